"""What became of a trial: the status that an error stands for."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.errors import AccessDenied, DataLeak, Diverged, MethodError, MissingData, Unsupported, UserError
from bench.utils.tracebacks import place


class Interrupted(BaseException):
    """The user stops the study; the trial is saved and goes on next time."""


class TimedOut(BaseException):
    """The trial ran longer than the study's ``timeout``."""


@dataclass(frozen=True)
class Ending:
    status: str = "ok"
    reason: str = ""


def ending_of(error: BaseException, file: Path) -> Ending | None:
    """The status that an error stands for; None for those that the user must mend before anything can run."""
    text = f"{error}".partition("\n")[0] or type(error).__name__
    kinds: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
        ((DataLeak,), "leaked"),
        ((AccessDenied,), "denied"),
        ((Diverged,), "diverged"),
        ((TimedOut,), "timed_out"),
        ((MissingData,), "missing_data"),
        ((Unsupported,), "unsupported"),
        ((MemoryError, torch.cuda.OutOfMemoryError), "out_of_memory"),
    )
    for types, status in kinds:
        if isinstance(error, types):
            return Ending(status, text)
    if isinstance(error, UserError):
        return None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise UserError(f"the disk is full ({error.filename}); free some space and run the same command again")
    if isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text):
        return Ending("out_of_memory", text)
    if isinstance(error, MethodError):
        return Ending("crashed", text)
    return Ending("crashed", f"{type(error).__name__}: {text}{place(error, file)}")
