"""Landlock: the kernel's own allow-list of files, for a process and everything that it ever starts."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from bench.utils.confinement.system import machine, syscall
from bench.utils.confinement.view import View

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on all processors
_VERSION = 1  # flag of CREATE_RULESET that asks for the ABI
_BENEATH = 1  # kind of a rule: a path and all below it

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = (1 << bit for bit in range(13, 16))
_SINCE = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}  # the ABI that brought a right on files
_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # what a rule about one file may grant
_NETWORK = 0b11  # bind and connect, TCP; from ABI 4
_SCOPES = 0b11  # abstract unix sockets and signals of the world outside; from ABI 6


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def abi() -> int:
    """The version of Landlock that this kernel has; 0 where there is none."""
    if not machine():
        return 0
    try:
        return syscall(CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(view: View) -> None:
    """From now on this thread, and what it starts, sees and writes what ``view`` names and no other file.

    ``NO_NEW_PRIVS`` must be set.

    Raises:
        OSError: the kernel refuses.
    """
    version = abi()
    handled = (_MAKE_SYM << 1) - 1  # all rights of ABI 1
    for since, right in _SINCE.items():
        handled |= right if version >= since else 0
    ruleset = _Ruleset(handled, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = syscall(CREATE_RULESET, ruleset, size, 0)
    try:
        _allow(rules, view.readable, (_READ_FILE | _READ_DIR) & handled)
        _allow(rules, view.listable, _READ_DIR)
        _allow(rules, view.devices, (_READ_FILE | _WRITE_FILE) & handled)
        _allow(rules, [view.writable], handled & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK | _IOCTL_DEV))
        syscall(RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not there, or not this user's to see: no right to grant
        try:
            allowed = rights if path.is_dir() else rights & _FILES
            if allowed:
                syscall(ADD_RULE, rules, _BENEATH, _Beneath(allowed, parent), 0)
        finally:
            os.close(parent)
