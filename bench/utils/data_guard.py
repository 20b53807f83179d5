"""Data-free means data-free: while a method's code runs, opening a file of real data raises.

An audit hook sees every file that is opened through Python, by whatever library; the readers that are compiled code are
watched too. The fence stands for every thread. The harness's own work is let through file by file, and only in the
thread that does it. It is a fence and no wall: Python cannot hold code that sets out to break it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.errors import AccessDenied, DataLeak

_CODE = (".py", ".pyc", ".so", ".pyd")  # a library may be imported late, and may lie below a data folder
_MEMORY = re.compile(r"/proc/\d+/(task/\d+/)?(mem|map_files/.*)")
_NETWORK = ("connect", "bind", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr")
_PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile", "pty.spawn")
_RAW = frozenset({"open", "open64", "openat", "openat64", "fopen", "fopen64", "syscall", "mmap", "mmap64", "execve"})
NO_PROCESSES = "a method starts no other process: its work could not be counted; give a DataLoader num_workers=0"
_SEARCHES = ("gc.get_objects", "gc.get_referrers", "sys._current_frames")


class _Here(threading.local):
    """What the harness itself may open now, in this thread."""

    def __init__(self) -> None:
        self.spared: tuple[str, ...] = ()
        self.outside = False


class _Fence:
    """What is forbidden now. One for the process, since an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.active = False
        self.installed = False
        self.data: tuple[str, ...] = ()
        self.teachers: tuple[str, ...] = ()
        self.caught: BaseException | None = None
        self.left: set[threading.Thread] = set()  # threads of an earlier block that are not to get out
        self.here = _Here()
        self._events: dict[str, Callable[[tuple[Any, ...]], None]] = {
            "open": lambda args: self._check_file(args[0], folders=args[1] is None),
            "sqlite3.connect": lambda args: self._check_file(args[0]),
            "os.link": lambda args: self._check_both(args[0], args[2], args[1], args[3]),
            "os.rename": lambda args: self._check_both(args[0], args[2], args[1], args[3]),
            "ctypes.dlsym": lambda args: self._check_symbol(args[1]),
            **{f"socket.{name}": lambda _: self._network() for name in _NETWORK},
            **{name: lambda _: self._program() for name in _PROGRAMS},
            **{name: lambda _: self._fork() for name in ("os.fork", "os.forkpty")},
            **{name: lambda _: self._search() for name in _SEARCHES},
        }

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.active and (check := self._events.get(event)) is not None and not self.here.outside:
            check(args)

    def _check_file(self, path: Any, base: str | None = None, *, folders: bool = True) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.fsdecode(path)
        full = os.path.realpath(Path(base, name) if base else name)
        if full.endswith(_CODE) or full in self.here.spared:
            return
        whole = full.rstrip(os.sep) + os.sep
        if whole.startswith(self.data) or _MEMORY.fullmatch(full):
            self._raise(DataLeak(f"the method opened real data: {Path(full).name}"))
        if whole.startswith(self.teachers):
            self._raise(AccessDenied(f"the method opened a stored teacher: {Path(full).name}"))
        # An open folder can serve as the start of paths that are not seen here (dir_fd). Only os.open opens one, and
        # gives no mode; what reads sys.path's entries as archives (importlib.metadata) calls open(), and fails.
        if folders and any(each.startswith(whole) for each in (*self.data, *self.teachers)) and Path(full).is_dir():
            self._raise(DataLeak(f"the method opened a folder around real data or teachers: {full}"))

    def _check_both(self, source: Any, source_folder: Any, target: Any, target_folder: Any) -> None:
        for path, folder in ((source, source_folder), (target, target_folder)):
            at = isinstance(folder, int) and folder >= 0
            self._check_file(path, os.path.realpath(f"/proc/self/fd/{folder}") if at else None)

    def _check_symbol(self, name: Any) -> None:
        if name in _RAW:
            raise PermissionError(f"the C library's {name}() is not for methods: its files cannot be seen")

    def _network(self) -> None:
        self._raise(DataLeak("the method opened a network connection"))

    def _search(self) -> None:
        self._raise(AccessDenied("the method searched the memory of the process"))

    def _program(self) -> None:
        raise PermissionError("a method starts no other program: its files cannot be seen")  # libraries do without

    def _fork(self) -> None:
        raise PermissionError(NO_PROCESSES)

    def _raise(self, error: BaseException) -> None:
        self.caught = self.caught or error  # the trial fails even if the method swallows it
        raise error


_fence = _Fence()


@contextlib.contextmanager
def fenced(data: Iterable[Path], teachers: Iterable[Path]) -> Iterator[None]:
    """Forbid opening files below these folders, and network connections, inside the block, in every thread.

    Threads that the block leaves behind stay behind the fence.

    Raises:
        DataLeak, AccessDenied: at the attempt, and again at the end of the block if the method caught it.
    """
    if not _fence.installed:
        sys.addaudithook(_fence.hook)
        _fence.installed = True
    if _fence.left and not any(thread.is_alive() for thread in _fence.left):
        _fence.left.clear()
        _fence.active = _fence.here.outside = False
    before = _fence.active, _fence.data, _fence.teachers, _fence.caught
    threads = set(threading.enumerate())
    with _watched_readers(), _no_processes():
        _fence.data = tuple(dict.fromkeys(os.path.realpath(path) + os.sep for path in data))
        _fence.teachers = tuple(dict.fromkeys(os.path.realpath(path) + os.sep for path in teachers))
        _fence.caught = None
        was_outside, _fence.here.outside = _fence.here.outside, False
        _fence.active = True
        try:
            yield
        finally:
            caught = _fence.caught
            left = set(threading.enumerate()) - threads
            if left:
                _fence.left |= left
                _fence.here.outside = True
            else:
                _fence.active, _fence.data, _fence.teachers, _fence.caught = before
                _fence.here.outside = was_outside
    if caught is not None:
        raise caught


@contextlib.contextmanager
def _watched_readers() -> Iterator[None]:
    """Compiled readers that no audit event tells of; teachers and captured images are in safetensors' format."""
    import safetensors
    import safetensors.torch
    import torch

    readers: list[tuple[Any, str]] = [
        (safetensors, "safe_open"),
        (safetensors.torch, "safe_open"),
        (torch, "from_file"),
        (torch.UntypedStorage, "from_file"),
        (torch.jit, "load"),
    ]
    originals = [vars(owner).get(name) for owner, name in readers]  # None: inherited
    for owner, name in readers:
        setattr(owner, name, _watched(getattr(owner, name)))
    try:
        yield
    finally:
        for (owner, name), original in zip(readers, originals, strict=True):
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


@contextlib.contextmanager
def _no_processes() -> Iterator[None]:
    """Whoever makes the locks of several processes, or starts one, is told at once; libraries that only try go on."""
    import multiprocessing.process
    import multiprocessing.synchronize

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(NO_PROCESSES)

    places: list[tuple[Any, str]] = [
        (multiprocessing.synchronize.SemLock, "__init__"),
        (multiprocessing.process.BaseProcess, "start"),
    ]
    originals = [getattr(owner, name) for owner, name in places]
    for owner, name in places:
        setattr(owner, name, refuse)
    try:
        yield
    finally:
        for (owner, name), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


def _watched(read: Any) -> Any:
    def watched(filename: Any, *args: Any, **kwargs: Any) -> Any:
        _fence.hook("open", (filename, "r", 0))
        return read(filename, *args, **kwargs)

    return staticmethod(watched) if isinstance(getattr(read, "__self__", None), type) else watched


@contextlib.contextmanager
def lifted(*paths: Path) -> Iterator[None]:
    """Inside a fenced block: the harness's own work on these very files, in this thread."""
    before = _fence.here.spared
    _fence.here.spared = tuple(os.path.realpath(path) for path in paths)
    try:
        yield
    finally:
        _fence.here.spared = before
