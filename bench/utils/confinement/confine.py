"""Confining this process, in whichever way the machine offers; what is enforced is told in words for the record."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from bench.utils.confinement import landlock, namespaces, seccomp
from bench.utils.confinement.hidden import HiddenPackages
from bench.utils.confinement.system import machine, prctl, syscall
from bench.utils.confinement.view import View

Way = Literal["landlock", "namespaces"]

_PDEATHSIG, _NO_NEW_PRIVS, _CAPBSET_DROP, _CAP_AMBIENT, _CLEAR_ALL = 1, 38, 24, 47, 4
_SIGKILL = 9
_CAPSET = {"x86_64": 126, "aarch64": 91}
LARGEST_FILE = 2**30  # bytes of one file that a confined process may write


@dataclass(frozen=True)
class _Kind:
    there: Callable[[], bool]
    restrict: Callable[[View], None]
    words: Callable[[], str]


_KINDS: dict[Way, _Kind] = {
    "landlock": _Kind(
        lambda: landlock.abi() > 0, landlock.restrict, lambda: f"Landlock ABI {landlock.abi()} + seccomp"
    ),
    "namespaces": _Kind(
        namespaces.there, namespaces.restrict, lambda: "user, mount, network and IPC namespaces + seccomp"
    ),
}


@cache
def available() -> Way | None:
    """The way in which this machine can confine a process, Landlock before namespaces; None where it cannot."""
    if not seccomp.there():
        return None
    for way, kind in _KINDS.items():
        if kind.there():
            return way
    return None


def why_not() -> str:
    """What is missing here, for a user; empty where a process can be confined."""
    if available() is not None:
        return ""
    if not machine():
        return "only Linux on x86_64 or aarch64 can hold a process to what it may read"
    if not seccomp.there():
        return "this kernel has no seccomp"
    return "this kernel has no Landlock, and this user may not make namespaces"


def confine(view: View, way: Way) -> str:
    """Confine this process and everything that it starts, permanently; returns what enforces it.

    It must have one thread: others would stay free.

    Raises:
        OSError: the kernel refuses.
        RuntimeError: there are other threads.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise RuntimeError("a process with several threads cannot be confined")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    words = _KINDS[way].words()
    if way == "namespaces":  # while there are capabilities to make them with
        namespaces.restrict(view)
    _drop_capabilities()
    prctl(_PDEATHSIG, _SIGKILL)
    prctl(_NO_NEW_PRIVS, 1)
    if way == "landlock":
        landlock.restrict(view)
    seccomp.restrict()
    sys.meta_path.insert(0, HiddenPackages())
    return words


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = tuple((f"word{index}", ctypes.c_uint32) for index in range(6))


def _drop_capabilities() -> None:
    """A process of root's keeps none of root's powers but those of a file's owner."""
    for number in range(64):
        try:
            prctl(_CAPBSET_DROP, number)
        except OSError:
            break  # no such capability, or no right to drop it: then there is none to drop
    with contextlib.suppress(OSError):  # before Linux 4.3 there were none
        prctl(_CAP_AMBIENT, _CLEAR_ALL)
    syscall(_CAPSET[machine()], _Header(0x20080522, 0), _Sets())
