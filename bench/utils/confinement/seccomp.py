"""A seccomp filter: the system calls that a method's process has no use for, and that lead out of it.

Network, other programs and processes, other processes' memory, mounts, keys, asynchronous reading and writing that the
other rules do not see, changes of files' owners and modes. They fail with EPERM, so that a library that only tries goes
on. On another processor than the two below there is no filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from types import MappingProxyType

from bench.utils.confinement.system import machine, prctl

_SET_SECCOMP, _GET_SECCOMP, _FILTER_MODE = 22, 21, 2
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}
LAST = 462  # the newest call that was known when this list was made; newer ones do not exist for a method

# name: numbers on x86_64 and aarch64; -1 where there is no such call
DENIED: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        # network
        **{"socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "sendto": (44, 206), "recvfrom": (45, 207)},
        **{"sendmsg": (46, 211), "recvmsg": (47, 212), "bind": (49, 200), "listen": (50, 201)},
        **{"socketpair": (53, 199), "accept4": (288, 242), "recvmmsg": (299, 243), "sendmmsg": (307, 269)},
        # other programs and processes
        **{"fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "setns": (308, 268)},
        **{"setsid": (112, 157), "setpgid": (109, 154), "unshare": (272, 97), "personality": (135, 92)},
        # their memory and descriptors
        **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
        **{"process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_open": (434, 434)},
        **{"pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138)},
        **{"rt_tgsigqueueinfo": (297, 240), "move_pages": (279, 239), "migrate_pages": (256, 238)},
        **{"sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274)},
        # reading and writing past the other rules
        **{"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
        **{"open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "bpf": (321, 280)},
        **{"perf_event_open": (298, 241), "userfaultfd": (323, 282), "fanotify_init": (300, 262)},
        **{"inotify_init": (253, -1), "inotify_init1": (294, 26), "lookup_dcookie": (212, 18)},
        **{"keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "syslog": (103, 116)},
        # memory, queues and semaphores with names
        **{"shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191)},
        **{"semop": (65, 193), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188)},
        **{"msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181)},
        # mounts and roots
        **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)},
        **{"open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431)},
        **{"fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457)},
        "listmount": (458, 458),
        # owners, modes, times and attributes of files, which Landlock does not watch
        **{"chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1)},
        **{"fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1)},
        **{"futimesat": (261, -1), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6)},
        **{"fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16)},
        # the machine
        **{"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142)},
        **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "swapon": (167, 224), "swapoff": (168, 225)},
        **{"acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266)},
        **{"adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, -1)},
        **{"ioperm": (173, -1), "quotactl": (179, 60), "vhangup": (153, 58)},
    }
)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_KILL, _TKILL, _TGKILL = (62, 129), (200, 130), (234, 131)
_PRLIMIT, _PRCTL, _IOCTL = (302, 261), (157, 167), (16, 29)
_CLONE_THREAD = 0x00010000
_FORBIDDEN_PRCTL = (1, 4, 0x59616D61)  # PDEATHSIG, DUMPABLE, Yama's PTRACER
_FORBIDDEN_IOCTL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into somebody's terminal

_LOAD, _EQUAL, _AT_LEAST, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # places in struct seccomp_data; arguments: their low halves


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def there() -> bool:
    """Whether this kernel has seccomp, and a filter is known for this processor."""
    if not machine():
        return False
    try:
        return prctl(_GET_SECCOMP) >= 0
    except OSError:
        return False


def restrict() -> None:
    """Put the filter on this thread, and on what it starts. ``NO_NEW_PRIVS`` must be set.

    Raises:
        OSError: the kernel refuses.
    """
    lines = _program(machine(), os.getpid())
    instructions = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), instructions)
    prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(program))


def _program(processor: str, own: int) -> list[tuple[int, int, int, int]]:
    column = _COLUMN[processor]
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    unknown = (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _ARCHITECTURE[processor]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NR),
        (_ABOVE, 0, 1, LAST),  # among them all calls of x86_64's second interface, x32
        unknown,
        (_EQUAL, 0, 1, _CLONE3[column]),  # its flags cannot be seen from here; the C library then takes clone
        unknown,
    ]
    for numbers in DENIED.values():
        if numbers[column] >= 0:
            lines += [(_EQUAL, 0, 1, numbers[column]), refuse]
    lines += _only_if(_CLONE[column], _FIRST, [(_ANY_BIT, _CLONE_THREAD)])
    for numbers in (_KILL, _TGKILL):
        lines += _only_if(numbers[column], _FIRST, [(_EQUAL, own)])
    lines += [(_EQUAL, 0, 1, _TKILL[column]), refuse]
    lines += _only_if(_PRLIMIT[column], _FIRST, [(_EQUAL, 0), (_EQUAL, own)])
    lines += _never_if(_PRCTL[column], _FIRST, _FORBIDDEN_PRCTL)
    lines += _never_if(_IOCTL[column], _SECOND, _FORBIDDEN_IOCTL)
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _only_if(number: int, place: int, tests: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """A call is allowed if its argument passes one of the tests."""
    body = [(_LOAD, 0, 0, place)]
    for index, (code, value) in enumerate(tests):
        body.append((code, len(tests) - index, 0, value))
    body += [(_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


def _never_if(number: int, place: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """A call is refused if its argument is one of the values."""
    body = [(_LOAD, 0, 0, place)]
    for index, value in enumerate(values):
        body.append((_EQUAL, len(values) - index, 0, value))
    body += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    return [(_EQUAL, 0, len(body), number), *body]
