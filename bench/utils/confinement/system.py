"""Raw system calls: libc's `syscall`, `prctl`, `mount` and `unshare` with errors as OSError."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> int:
    """The result of a system call; OSError where it fails. Structures go by reference, integers as 64 bits."""
    values = [_word(each) for each in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *values))
    return checked(result, f"system call {number}")


def prctl(option: int, *arguments: int) -> int:
    words = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    return checked(int(_libc().prctl(ctypes.c_int(option), *words)), f"prctl {option}")


def call(name: str, *arguments: object) -> int:
    """A function of libc by its name."""
    return checked(int(getattr(_libc(), name)(*arguments)), name)


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def machine() -> str:
    """``x86_64`` or ``aarch64``; empty on every other processor and system."""
    names = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    known = names.get(platform.machine().lower(), "")
    return known if platform.system() == "Linux" and ctypes.sizeof(ctypes.c_void_p) == 8 else ""


def _word(value: int | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> object:
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.byref(value)
