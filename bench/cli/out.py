"""How things are written to the terminal: tables, numbers in words, and JSON for programs."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.table
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.text import Text

from bench.utils.text import plain_lines, shown

WIDE = 200  # columns where there is no terminal, and COLUMNS does not say: a row of most tables is one line
SENTENCE = 30  # columns in which sentences can be read
NARROWEST = 20  # columns below which no terminal is believed
COLOURS = {"ok": "green", "running": "cyan", "waiting": "dim", "missing": "yellow", "missing_data": "yellow"}


def console() -> Console:
    """For text that people wrote: ``[brackets]`` in a path or a name are no markup."""
    told = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() or told.isdecimal() else WIDE
    made = Console(
        markup=False,
        highlight=False,
        emoji=False,
        width=width,
        color_system=None if os.environ.get("NO_COLOR") else "auto",  # no bold text either
    )
    made.width = max(made.width, NARROWEST)
    return made


def redraws() -> bool:
    """Whether there is a terminal on which a line can be written again."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def say(text: str = "") -> None:
    """A line of plain text, or several; what is in it of others has no power over the terminal."""
    print(plain_lines(text), flush=True)


def print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """What every ``--json`` prints: a list of objects, and nothing else."""
    text = json.dumps(rows, indent=1, ensure_ascii=False, default=str)
    # JSON leaves some that a terminal obeys (U+009B begins a command, U+202E turns the line); escapes mean the same.
    print(_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def table(*columns: str, right: Iterable[str] = ()) -> PlainTable:
    """An empty table without lines; the columns of ``right`` are numbers."""
    made = PlainTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    return made


def show(made: PlainTable) -> None:
    """Print a table, without the blanks that fill its last column.

    Where words would have to be broken to fit, or sentences squeezed into the last column, each row is a paragraph.
    """
    screen = console()
    with screen.capture() as text:
        screen.print(_paragraphs(made, screen.width) if _too_wide(made, screen) else made)
    print("\n".join(line.rstrip() for line in text.get().split("\n")[:-1]), flush=True)  # in colours, on a terminal


def _too_wide(made: rich.table.Table, screen: Console) -> bool:
    needed = Measurement.get(screen, screen.options.update(width=10_000), made)
    if needed.maximum <= screen.width:
        return False
    last = made.columns[-1]
    longest = max(cell_len(str(cell)) for cell in (last.header, *last.cells))
    return needed.minimum > screen.width or screen.width - (needed.maximum - longest) < min(longest, SENTENCE)


def _paragraphs(made: rich.table.Table, width: int) -> Text:
    """The rows one under the other: the first cell, and below it the others with their columns' names."""
    names = [str(column.header) for column in made.columns]
    lines = []
    for row in zip(*(column.cells for column in made.columns), strict=True):
        first, *others = (str(cell) for cell in row)
        told = "; ".join(f"{name}: {cell}" for name, cell in zip(names[1:], others, strict=True) if cell.strip())
        indent = "  "
        wrapped = textwrap.wrap(told, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        lines += [Text(first, style="bold"), *map(Text, wrapped)]
    return Text("\n").join(lines)


def state(name: str) -> Text:
    """A status in its colour."""
    colour = COLOURS.get(name.partition(" ")[0], "" if name.startswith(("starting", "loading", "teacher")) else "red")
    return Text(shown(name.replace("_", " ")), style=colour)


def pairs(rows: Iterable[tuple[str, str]], indent: str = "  ") -> None:
    """Names and values, one under the other."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        say(f"{indent}{name:<{width}}  {value}".rstrip())


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """A time in two parts at most.

    >>> duration(7.4), duration(75), duration(7260)
    ('7 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Bytes in words.

    >>> size(512), size(47040016)
    ('512 B', '44.9 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "trial"), count(1200, "trial")
    ('1 trial', '1,200 trials')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


# DEL, the second set of controls, marks that turn the direction of text, separators of lines, halves of pairs
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class PlainTable(rich.table.Table):
    """A table of text that others may have written: it has no power over the terminal."""

    def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
        super().add_row(*(Text(shown(cell)) if isinstance(cell, str) else cell for cell in cells), **how)


class Download:
    """Reports a download: a counting line on a terminal, one line per file elsewhere."""

    def __init__(self) -> None:
        self._terminal = redraws()
        self._percent = -1

    def __call__(self, name: str, done: int, of: int) -> None:
        percent = 100 * done // max(of, 1)
        if self._terminal and percent != self._percent:
            self._percent = percent
            sys.stdout.write(f"\r{name}: {percent} % of {size(of)}" + ("\n" if done >= of else ""))
            sys.stdout.flush()
        elif not self._terminal and done >= of:
            say(f"{name}: {size(of)}")
