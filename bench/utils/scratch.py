"""Temporary folders that bear the number of the process that made them, so that those of killed ones can go."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ABANDONED = 86_400.0  # seconds; another container's processes cannot be seen, and its folders are younger


def make_scratch(kind: str) -> Path:
    """A new folder for this process, named ``kind``, its number and more; abandoned ones of the kind are removed."""
    clear_abandoned(kind)
    return Path(tempfile.mkdtemp(prefix=f"{kind}{os.getpid()}-"))


@contextlib.contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """Such a folder, which is there inside only."""
    folder = make_scratch(kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def clear_abandoned(kind: str) -> None:
    """Remove the folders of processes that were killed: those of processes that are gone, a day old."""
    for folder in Path(tempfile.gettempdir()).glob(f"{kind}*-*"):
        number = folder.name.removeprefix(kind).partition("-")[0]
        with contextlib.suppress(OSError):
            if number.isdecimal() and not _lives(int(number)) and time.time() - folder.lstat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
