"""Data-free means data-free: while a method's code runs, opening a file of real data raises.

An audit hook sees every file that is opened through Python, by whatever library, and safetensors' own reader is
watched too. It is a fence against accidents and shortcuts, not a sandbox: files that compiled code or another program
opens are not seen, and Python cannot hold code that sets out to break it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from bench.errors import AccessDenied, DataLeak

_CODE = (".py", ".pyc", ".so", ".pyd")  # a library may be imported late, and may lie below a data folder


class _Fence:
    """What is forbidden now. One for the process, since an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.active = False
        self.installed = False
        self.data: tuple[str, ...] = ()
        self.teachers: tuple[str, ...] = ()
        self.caught: BaseException | None = None

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            self._check_file(args[0])
        elif event == "socket.connect":
            self._raise(DataLeak("the method opened a network connection"))

    def _check_file(self, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        full = os.path.realpath(os.fsdecode(path))
        if full.endswith(_CODE):
            return
        if full.startswith(self.data):
            self._raise(DataLeak(f"the method opened real data: {Path(full).name}"))
        if full.startswith(self.teachers):
            self._raise(AccessDenied(f"the method opened a stored teacher: {Path(full).name}"))

    def _raise(self, error: BaseException) -> None:
        self.caught = self.caught or error  # the trial fails even if the method swallows it
        raise error


_fence = _Fence()


@contextlib.contextmanager
def fenced(data: Iterable[Path], teachers: Iterable[Path]) -> Iterator[None]:
    """Forbid opening files below these folders, and network connections, inside the block.

    Raises:
        DataLeak, AccessDenied: at the attempt, and again at the end of the block if the method caught it.
    """
    if not _fence.installed:
        sys.addaudithook(_fence.hook)
        _fence.installed = True
    _fence.data = tuple(os.path.realpath(path) + os.sep for path in data)
    _fence.teachers = tuple(os.path.realpath(path) + os.sep for path in teachers)
    _fence.caught = None
    _fence.active = True
    try:
        with _watched_safetensors():
            yield
    finally:
        _fence.active = False
    if _fence.caught is not None:
        raise _fence.caught


@contextlib.contextmanager
def _watched_safetensors() -> Iterator[None]:
    """Its reader is compiled code that no audit event tells of, and teachers and captured images are in its format."""
    modules: tuple[Any, ...] = (safetensors, safetensors.torch)
    read = safetensors.safe_open

    def watched(filename: Any, *args: Any, **kwargs: Any) -> Any:
        _fence.hook("open", (filename,))
        return read(filename, *args, **kwargs)

    for module in modules:
        module.safe_open = watched
    try:
        yield
    finally:
        for module in modules:
            module.safe_open = read


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Inside a fenced block: the harness's own work (evaluation, checkpoints)."""
    before = _fence.active
    _fence.active = False
    try:
        yield
    finally:
        _fence.active = before
