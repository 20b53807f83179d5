"""Which lines of a figure stand out, and that no two of them look the same; how options are written in papers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from matplotlib.lines import Line2D

OUT = 8  # lines that stand out in a figure: more look alike; the rest is grey
MARKS = "os^Dv<>pX*Pdh"  # of what shares a colour, one each
GREY = "#A9A9A9"
GREY_LOOK: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": "-", "alpha": 0.75, "zorder": 1.5}

# Symbols of the field's papers. Only names in this table are ever read as mathematics; the others may hold any sign.
SYMBOLS = {
    "temperature": r"\tau",
    "temperature_competition": r"\tau_c",
    "lr": r"\eta",
    "lr_student": r"\eta_S",
    "lr_generator": r"\eta_G",
    "lr_images": r"\eta_x",
    "lr_teacher": r"\eta_T",
    "beta": r"\beta",
    "lr_beta": r"\eta_\beta",
}

OPTION = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, SYMBOLS))})=")  # in a row's label

T = TypeVar("T")


def symbol_text(name: str) -> tuple[str, bool]:
    r"""An option as a figure writes it, and whether that is to be read as mathematics.

    >>> symbol_text("temperature"), symbol_text("a $name$")
    (('temperature $\\tau$', True), ('a $name$', False))
    """
    symbol = SYMBOLS.get(name)
    return (f"{name} ${symbol}$", True) if symbol else (name, False)


def label_text(label: str, longest: int = 34) -> tuple[str, bool]:
    r"""A row's label as a figure writes it: with symbols for options, and cut in its middle where it is long.

    >>> label_text("dafl (lr_generator=0.1, temperature=20.0)")
    ('dafl ($\\eta_G$=0.1, $\\tau$=20.0)', True)
    >>> label_text("a method with a name of more than 34 letters")
    ('a method with a …e than 34 letters', False)
    """
    if "$" not in label and (names := OPTION.findall(label)):
        written = OPTION.sub(lambda found: f"${SYMBOLS[found[1]]}$=", label)
        if len(label) - sum(len(name) - 1 for name in names) <= longest:
            return written, True
    half = longest // 2
    return (label if len(label) <= longest else f"{label[: half - 1]}…{label[-half:]}"), False


def marks_apart(names: Iterable[T], colours: Mapping[T, str]) -> dict[T, str]:
    """A mark for each name, so that no two have the same colour and the same mark, while there are marks."""
    marks: dict[T, str] = {}
    for name in names:
        taken = sum(colours[other] == colours[name] for other in marks)
        marks[name] = MARKS[taken % len(MARKS)]
    return marks


def standing_out(names: Sequence[T], always: Iterable[T] = (), most: int = OUT) -> list[T]:
    """The names that stand out, in their order: those of ``always`` that are there, and the first others, ``most``
    together.

    >>> standing_out(["a", "b", "c", "noise"], ["noise"], 3)
    ['a', 'b', 'noise']
    """
    if len(names) <= most:
        return list(names)
    kept = [name for name in names if name in set(always)][:most]
    others = [name for name in names if name not in kept][: most - len(kept)]
    chosen = {*kept, *others}
    return [name for name in names if name in chosen]


def grey_handle(count: int, words: str = "other rows") -> Line2D:
    """The entry of a legend for the lines that do not stand out."""
    return Line2D([], [], **GREY_LOOK, label=f"{count} {words}")


def count_tick(value: float, _: object = None) -> str:
    """Images, steps or seconds: a million and more in millions, since seven digits run into the next label."""
    if value >= 1e6:
        return f"{value / 1e6:,.4g} M"
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"
