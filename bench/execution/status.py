"""What became of a trial: the status that an error stands for."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.errors import AccessDenied, DataLeak, Diverged, MethodError, MissingData, Unsupported, UserError
from bench.harness.remedies import remedy
from bench.utils.tracebacks import leaves_of, place, printable, told


class Interrupted(BaseException):
    """The user stops the study; the trial is saved and resumes next time."""


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
    leaves = list(leaves_of(error))
    for types, status in _KINDS:
        for leaf in leaves:
            if isinstance(leaf, types) and not (from_method and isinstance(leaf, MissingData)):
                return Ending(status, told(leaf) + remedy(leaf))
    if isinstance(error, UserError) and not from_method:
        return None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and not from_method:
        raise UserError(f"the disk is full ({error.filename}); free some space and run the same command again")
    if isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text):
        return Ending("out_of_memory", text)
    if isinstance(error, MethodError):
        return Ending("crashed", text)
    inner = "" if leaves == [error] else f" ({', '.join(sorted({type(leaf).__name__ for leaf in leaves}))})"
    return Ending("crashed", printable(f"{type(error).__name__}: {text}{inner}{place(error, file)}{remedy(error)}"))
