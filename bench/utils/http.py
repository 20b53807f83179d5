"""Bringing a file from an address: the only code of the suite that downloads. The caller judges what it brings."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]  # file name, bytes so far, bytes in all

BLOCK = 1 << 18  # bytes
TIMEOUT = 30.0  # seconds without an answer


class RefusedError(Exception):
    """What was downloaded, or lies there, is not the official file."""


FAILURES = (OSError, http.client.HTTPException, ValueError, RefusedError)  # what a transfer may raise


def transfer(url: str, part: Path, size: int, shown: str, progress: Progress | None) -> None:
    """Write what is at ``url`` to the file ``part``, which must become ``size`` bytes long.

    ``progress(shown, bytes so far, bytes in all)`` is called after each block. Raises one of :data:`FAILURES`; what was
    written until then is left to the caller to remove.
    """
    done = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, part.open("wb") as out:
        while block := answer.read(BLOCK):
            out.write(block)
            done += len(block)
            if done > size:  # a login page, or a server that never stops
                raise RefusedError(f"more than the official {size} bytes")
            if progress is not None:
                progress(shown, done, size)
    if done < size:
        raise RefusedError(f"ended after {done} of {size} bytes")
