"""What became of a trial: the status that an error stands for."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.errors import AccessDenied, DataLeak, Diverged, MethodError, MissingData, Unsupported, UserError


class TimedOut(BaseException):
    """The trial ran longer than the study's ``timeout``."""


@dataclass(frozen=True)
class Ending:
    status: str = "ok"
    reason: str = ""


_KINDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((DataLeak,), "leaked"),
    ((AccessDenied,), "denied"),
    ((Diverged,), "diverged"),
    ((TimedOut,), "timed_out"),
    ((MissingData,), "missing_data"),
    ((Unsupported,), "unsupported"),
    ((MemoryError, torch.cuda.OutOfMemoryError), "out_of_memory"),
)


def ending_of(error: BaseException, file: Path, *, from_method: bool = False) -> Ending | None:
    """The status that an error stands for; None for those that the user must fix before anything can run.

    Args:
        error: whatever was raised, a group of errors included.
        file: the method's.
        from_method: the method's own code raised it, so that it says nothing of what the user must fix.
    """
    text = told(error)
    leaves = list(_leaves(error))
    for types, status in _KINDS:
        for leaf in leaves:
            if isinstance(leaf, types) and not (from_method and isinstance(leaf, MissingData)):
                return Ending(status, told(leaf))
    if isinstance(error, UserError) and not from_method:
        return None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and not from_method:
        raise UserError(f"the disk is full ({error.filename}); free some space and run the same command again")
    if isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text):
        return Ending("out_of_memory", text)
    if isinstance(error, MethodError):
        return Ending("crashed", text)
    inner = "" if leaves == [error] else f" ({', '.join(sorted({type(leaf).__name__ for leaf in leaves}))})"
    return Ending("crashed", printable(f"{type(error).__name__}: {text}{inner}{_place(error, file)}"))


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


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _place(error: BaseException, file: Path) -> str:
    """The line of the method where it happened, however deep below it; else the line that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == file] or frames
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
