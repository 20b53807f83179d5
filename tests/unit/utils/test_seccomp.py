"""The filter of a method's process, on both processors: the numbers are the kernel's, the answers those wanted.

The one for the other processor cannot be loaded here. So its program is run, line by line, by a small machine.
"""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest

from bench.utils.confinement import seccomp

ALLOWED, REFUSED, UNKNOWN, ENDED = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
TOKENS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OWN = 4711
THREAD, FORK = 0x00010000 | 0x100, 0x11  # CLONE_THREAD | CLONE_VM; SIGCHLD


def _numbers(name: str) -> dict[str, int]:
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
    return {each: library.seccomp_syscall_resolve_name_arch(token, name.encode()) for each, token in TOKENS.items()}


def _answer(processor: str, number: int, *arguments: int, token: int | None = None) -> int:
    """What a classic BPF machine makes of a call: the forms of instructions that seccomp.py uses, and no other."""
    places = {0: number, 4: TOKENS[processor] if token is None else token}
    for index, value in enumerate(arguments):
        places[16 + 8 * index], places[20 + 8 * index] = value & 0xFFFFFFFF, value >> 32
    program, at, loaded = seccomp._program(processor, OWN), 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            loaded = places.get(value, 0)
            continue
        holds = {0x15: loaded == value, 0x35: loaded >= value, 0x25: loaded > value, 0x45: bool(loaded & value)}[code]
        at += yes if holds else no


@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="libseccomp is not installed")
def test_numbers_are_those_that_libseccomp_knows() -> None:
    special = {"clone": seccomp._CLONE, "clone3": seccomp._CLONE3, "kill": seccomp._KILL, "tkill": seccomp._TKILL}
    special |= {"tgkill": seccomp._TGKILL, "prlimit64": seccomp._PRLIMIT, "prctl": seccomp._PRCTL}
    special |= {"ioctl": seccomp._IOCTL}
    wrong, unknown = {}, 0
    for name, pair in {**seccomp.DENIED, **special}.items():
        known = _numbers(name)
        if set(known.values()) == {-1}:  # newer than the library
            unknown += 1
            continue
        # below -1: a number of libseccomp's own, for a call that this processor does not have
        expected = tuple(max(known[each], -1) for each in ("x86_64", "aarch64"))
        if expected != pair:
            wrong[name] = (pair, expected)
    assert not wrong
    assert unknown <= 10


@pytest.mark.parametrize("processor", TOKENS)
def test_every_listed_call_is_refused_and_work_is_not(processor: str) -> None:
    column = list(TOKENS).index(processor)
    for name, numbers in seccomp.DENIED.items():
        if numbers[column] >= 0:
            assert _answer(processor, numbers[column]) == REFUSED, name
    work = {"read": (0, 63), "write": (1, 64), "mmap": (9, 222), "munmap": (11, 215), "futex": (202, 98)}
    work |= {"openat": (257, 56), "close": (3, 57), "exit_group": (231, 94), "madvise": (28, 233), "brk": (12, 214)}
    for name, numbers in work.items():
        assert _answer(processor, numbers[column]) == ALLOWED, name


@pytest.mark.parametrize("processor", TOKENS)
def test_calls_that_depend_on_their_arguments(processor: str) -> None:
    column = list(TOKENS).index(processor)

    def answer(numbers: tuple[int, int], *arguments: int) -> int:
        return _answer(processor, numbers[column], *arguments)

    assert answer(seccomp._CLONE, THREAD) == ALLOWED
    assert answer(seccomp._CLONE, FORK) == REFUSED
    assert answer(seccomp._CLONE3, 0, 88) == UNKNOWN  # the C library then takes clone
    for call in (seccomp._KILL, seccomp._TGKILL):
        assert answer(call, OWN, 9) == ALLOWED
        assert answer(call, 1, 9) == REFUSED
        assert answer(call, 2**32 - 1, 9) == REFUSED  # -1: everybody
    assert answer(seccomp._TKILL, OWN, 9) == REFUSED
    assert answer(seccomp._PRLIMIT, 0) == answer(seccomp._PRLIMIT, OWN) == ALLOWED
    assert answer(seccomp._PRLIMIT, 1) == REFUSED
    assert answer(seccomp._PRCTL, 15) == ALLOWED  # a thread's name
    assert answer(seccomp._PRCTL, 1) == answer(seccomp._PRCTL, 4) == REFUSED
    assert answer(seccomp._IOCTL, 0, 0x5401) == ALLOWED  # TCGETS
    assert answer(seccomp._IOCTL, 0, 0x5412) == REFUSED


@pytest.mark.parametrize("processor", TOKENS)
def test_other_interfaces_are_no_way_round(processor: str) -> None:
    other = next(token for name, token in TOKENS.items() if name != processor)
    assert _answer(processor, 0, token=other) == ENDED
    assert _answer(processor, seccomp.LAST + 1) == UNKNOWN
    assert _answer(processor, 0x40000000 | 59) == UNKNOWN  # x32's execve


def test_the_kernel_compares_whole_numbers_by_their_low_half() -> None:
    """Options of prctl and requests of ioctl are read as 32 bits by the kernel too: a high half is no way round."""
    for processor, column in zip(TOKENS, (0, 1), strict=True):
        assert _answer(processor, seccomp._IOCTL[column], 0, 0x5412 | 1 << 40) == REFUSED
        assert _answer(processor, seccomp._PRCTL[column], 4 | 1 << 40) == REFUSED
