"""What an error of a method says, and where it happened."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path


def place(error: BaseException, file: Path) -> str:
    """The line of the method where it happened, however deep below it; else the line that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == file] or frames
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def told(error: BaseException) -> str:
    """The first line of what an error says, or else its name; whatever it is made of."""
    try:
        said = str(error).strip().partition("\n")[0]
    except BaseException as another:  # its own __str__ may raise anything
        said = f"(its message cannot be had: {type(another).__name__})"
    return printable(said) or printable(type(error).__name__)


def printable(text: str) -> str:
    """Text that every file and terminal takes: lone surrogates and control characters as escapes."""
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in whole)


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error
