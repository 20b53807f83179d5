"""Waiting for what another process is making, on this machine or another that shares the folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bench.utils.stopping import Stopped, asked

LOOK_SECONDS = 0.5


@contextmanager
def waiting_for(file: Path) -> Iterator[None]:
    """Hold the lock of a file inside, waiting as long as it takes; the system frees it when its owner dies.

    Raises:
        Stopped: somebody asks this process to stop while it waits.
    """
    lock = FileLock(str(file), timeout=LOOK_SECONDS)
    while True:
        try:
            lock.acquire()
            break
        except Timeout:
            if reason := asked():
                raise Stopped(reason) from None
    try:
        yield
    finally:
        lock.release()
