"""How things are written to the terminal: tables, numbers in words, and JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.table
from rich.console import Console, RenderableType
from rich.text import Text

from bench.utils.text import plain_lines, shown

WIDE = 200  # columns where there is no terminal: a line of a table stays a line
COLOURS = {"ok": "green", "running": "cyan", "waiting": "dim", "missing": "yellow", "missing_data": "yellow"}


def console() -> Console:
    """For text that people wrote: ``[brackets]`` in a path or a name are no markup."""
    terminal = sys.stdout.isatty()
    return Console(markup=False, highlight=False, emoji=False, width=None if terminal else WIDE)


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
    """Print a table, without the blanks that fill its last column."""
    screen = console()
    with screen.capture() as text:
        screen.print(made)
    print("\n".join(line.rstrip() for line in text.get().split("\n")[:-1]), flush=True)  # in colours, on a terminal


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
        self._terminal = sys.stdout.isatty()
        self._percent = -1

    def __call__(self, name: str, done: int, of: int) -> None:
        percent = 100 * done // max(of, 1)
        if self._terminal and percent != self._percent:
            self._percent = percent
            sys.stdout.write(f"\r{name}: {percent} % of {size(of)}" + ("\n" if done >= of else ""))
            sys.stdout.flush()
        elif not self._terminal and done >= of:
            say(f"{name}: {size(of)}")
