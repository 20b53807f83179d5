"""A confined method finds no data, no teacher's file, no other process and no network, whichever way it goes.

Each piece of code sets ``got`` to how many of its ways gave anything: 0 is right.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.utils.confinement import namespaces

FILES = {
    "open": "open(path, 'rb').read(1)",
    "os.open": "os.read(os.open(path, os.O_RDONLY), 1)",
    "dir_fd": "os.read(os.open(Path(path).name, os.O_RDONLY, dir_fd=os.open(Path(path).parent, os.O_DIRECTORY)), 1)",
    "compiled code": "ctypes.CDLL(None).open(path.encode(), os.O_RDONLY) >= 0",
    "openat2": "ctypes.CDLL(None).syscall(437, -100, path.encode(), (ctypes.c_uint64 * 3)(), 24) >= 0",
    "mmap": "mmap.mmap(os.open(path, os.O_RDONLY), 0, access=mmap.ACCESS_READ)[:1]",
    "symbolic link": "[(link := Path(os.environ['HOME'], os.urandom(4).hex())).symlink_to(path), link.read_bytes()][1]",
    "hard link": "[os.link(path, link := os.environ['HOME'] + '/' + os.urandom(4).hex()), open(link, 'rb').read()][1]",
    "rename": "[os.rename(path, link := os.environ['HOME'] + '/' + os.urandom(4).hex()), open(link, 'rb').read()][1]",
    "torch.from_file": "torch.from_file(path, size=8, dtype=torch.uint8).sum()",
    "safetensors": "__import__('safetensors.torch').torch.load_file(path)",
    "numpy": "len(__import__('numpy').fromfile(path, dtype='uint8'))",
    "by root of a process": "open('/proc/self/root' + path, 'rb').read(1)",
    "truncated": "os.truncate(path, 0) is None",
    "written": "open(path, 'ab').write(b'x')",
    "removed": "os.remove(path) is None",
    "changed": "os.chmod(path, 0o777) is None",
    "sendfile": "os.sendfile(os.memfd_create('m'), os.open(path, os.O_RDONLY), 0, 10)",
    "io_uring": "ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(200)) >= 0",
    "by handle": "ctypes.CDLL(None).syscall(303, -100, path.encode(), (ctypes.c_uint32 * 64)(128), "
    "(ctypes.c_int * 1)(), 0) == 0",
    "loader": "ctypes.CDLL(path)",
    "mount": "ctypes.CDLL(None).mount(path.encode(), os.environ['HOME'].encode(), None, 4096, None) == 0",
    "chroot": "os.chroot('/') is None",
}
PROCESSES = {
    "memory of the judge": "open(f'/proc/{JUDGE}/mem', 'rb')",
    "its maps": "open(f'/proc/{JUDGE}/maps').read()",
    "its environment": "open(f'/proc/{JUDGE}/environ', 'rb').read()",
    "its descriptors": "os.listdir(f'/proc/{JUDGE}/fd')",
    "its folder": "os.listdir(f'/proc/{JUDGE}/cwd')",
    "own memory as a file": "open('/proc/self/mem', 'rb')",
    "parent's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    "ptrace": "ctypes.CDLL(None).ptrace(16, int(JUDGE), 0, 0) == 0",
    "seize": "ctypes.CDLL(None).ptrace(0x4206, os.getppid(), 0, 0) == 0",
    "process_vm_readv": "ctypes.CDLL(None).process_vm_readv(int(JUDGE), "
    "(ctypes.c_uint64 * 2)(), 1, (ctypes.c_uint64 * 2)(4096, 8), 1, 0) >= 0",
    "pidfd": "os.pidfd_open(int(JUDGE)) >= 0",
    "signal to the judge": "os.kill(int(JUDGE), 0) is None",
    "signal to the parent": "os.kill(os.getppid(), 0) is None",
    "signal to all": "os.kill(-1, 0) is None",
    "its limits": "ctypes.CDLL(None).prlimit(int(JUDGE), 7, None, (ctypes.c_uint64 * 2)()) == 0",
    "fork": "os.fork() or os._exit(0)",
    "fork in C": "ctypes.CDLL(None).fork() >= 0 and os._exit(0)",
    "vfork": "ctypes.CDLL(None).syscall(58) > 0",
    "clone3": "ctypes.CDLL(None).syscall(435, (ctypes.c_uint64 * 11)(), 88) > 0",
    "subprocess": "subprocess.run(['true']).returncode == 0",
    "posix_spawn": "os.posix_spawn(sys.executable, ['python'], {})",
    "exec from memory": "os.execve(os.memfd_create('m'), ['m'], {})",
    "system": "os.system('true') == 0",
    "to live on": "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0",
    "namespaces": "ctypes.CDLL(None).unshare(0x10000000) == 0",
    "terminal": "ctypes.CDLL(None).ioctl(0, 0x5412, b'x') == 0",
    "terminal's file": "open('/dev/tty', 'rb')",
    "shared memory": "ctypes.CDLL(None).shmget(0, 4096, 0o1666) >= 0",
    "named shared memory": "open('/dev/shm/x', 'wb')",
    "bpf": "ctypes.CDLL(None).syscall(321, 0, (ctypes.c_uint64 * 16)(), 128) >= 0",
    "keys": "ctypes.CDLL(None).syscall(250, 0, -3, 0) >= 0",
    "userfaultfd": "ctypes.CDLL(None).syscall(323, 1) >= 0",
    "perf": "ctypes.CDLL(None).syscall(298, (ctypes.c_uint64 * 16)(), 0, -1, -1, 0) >= 0",
}
NETWORK = {
    "tcp": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "ip 6": "socket.socket(socket.AF_INET6, socket.SOCK_STREAM)",
    "unix": "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "virtual machines": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "in C": "ctypes.CDLL(None).socket(2, 1, 0) >= 0",
    "names": "socket.getaddrinfo('localhost', 80, proto=6) and socket.create_connection(('localhost', 80))",
}
LEFT = {
    "descriptors": "[fd for fd in range(6, 4096) if gave(lambda: os.fstat(fd).st_ino != os.fstat(3).st_ino)]",
    "names in the environment": "[name for name in os.environ if 'DFKD' in name or 'SECRET' in name or name == 'PATH']",
    "arguments": "sys.argv[1:]",
    "input": "sys.stdin.read()",
    "the judge's objects": "[each for each in gc.get_objects() if type(each).__name__ in ('Judge', 'JudgeSide', "
    "'Dataset', 'Teacher', 'PreparedTrial', 'IsolatedTrial', 'CountedTeacher')]",
    "a teacher's network": "[each for each in gc.get_objects() if type(each).__name__ == 'LeNet5' and "
    "not any(each is own for own in (s.student, CONTEXT.average.module))]",
    "data modules with images": "[each for each in gc.get_objects() if isinstance(each, torch.Tensor) and "
    "each.dtype == torch.uint8 and each.numel() > 100_000 and each.numel() < 2**32]",
}


def _inside(ways: dict[str, str], path: str = "SECRET") -> str:
    # Python's fence is taken down first: the kernel and the boundary must hold by themselves.
    lines = ["from bench.utils import data_guard", "data_guard._fence.active = False", f"path = {path}", "found = []"]
    lines += [f"found += [{name!r}] if gave(lambda: {code}) else []" for name, code in ways.items()]
    return "\n".join([*lines, "print('FOUND', found)", "s.log(got=float(len(found)))"])


@pytest.mark.filterwarnings("ignore")  # files that these ways leave open
def test_the_ways_work_where_nothing_is_enforced(attempt: Callable[..., object]) -> None:
    """Else the tests below would say nothing."""
    harmless = ("open", "os.open", "dir_fd", "compiled code", "mmap", "symbolic link", "numpy", "by root of a process")
    ran = attempt(_inside({name: FILES[name] for name in harmless}), how=None)
    assert ran.got == len(harmless)


@pytest.mark.parametrize("path", ["SECRET", "TEACHER"])
def test_no_file_can_be_read_or_changed(attempt: Callable[..., object], path: str, secret: object) -> None:
    ran = attempt(_inside(FILES, path))
    assert ran.got == 0, ran.log
    assert secret.read_bytes() == b"secret" * 100
    assert ran.record.status in ("ok", "denied")  # a stored teacher's name is noticed as well


@pytest.mark.parametrize("ways", [PROCESSES, NETWORK], ids=["processes", "network"])
def test_no_other_process_and_no_network_can_be_reached(attempt: Callable[..., object], ways: dict[str, str]) -> None:
    ran = attempt(_inside(ways))
    assert ran.got == 0, ran.log


def test_nothing_of_the_judge_is_left_in_the_process(attempt: Callable[..., object]) -> None:
    before = "from bench.harness.trial_context import current\nglobal CONTEXT\nCONTEXT = current()"
    ran = attempt(_inside(LEFT), before=before)
    assert ran.got == 0, ran.log


def test_threads_are_confined_too(attempt: Callable[..., object]) -> None:
    ran = attempt(
        """
        seen = []
        thread = threading.Thread(target=lambda: seen.append(gave(lambda: open(SECRET, "rb").read(1))))
        thread.start()
        thread.join()
        s.log(got=float(seen != [False]))
        """
    )
    assert ran.record.status == "ok"
    assert ran.got == 0


def test_the_scratch_folder_can_be_written_and_goes_with_the_trial(attempt: Callable[..., object]) -> None:
    ran = attempt("file = Path(os.environ['TMPDIR'], 'x')\nfile.write_text('x')\nprint(f'AT={file}')")
    assert ran.record.status == "ok"
    place = ran.log.partition("AT=")[2].partition("\n")[0]
    assert place
    from pathlib import Path

    assert not Path(place).exists()


def test_what_methods_need_can_be_imported(attempt: Callable[..., object]) -> None:
    names = ("sklearn.linear_model", "scipy.stats", "scipy.optimize", "matplotlib.pyplot", "pandas", "sympy")
    ran = attempt("\n".join(f"import {name}" for name in names), budget={"steps": 1})
    assert ran.record.status == "ok", ran.log


@pytest.mark.skipif(not namespaces.there(), reason="this user may not make namespaces")
@pytest.mark.parametrize("ways", [FILES, PROCESSES, NETWORK], ids=["files", "processes", "network"])
def test_the_second_way_holds_the_same(attempt: Callable[..., object], ways: dict[str, str]) -> None:
    ran = attempt(_inside(ways), how="namespaces")
    assert ran.got == 0, ran.log
    assert ran.record.status == "ok"
    assert "namespaces" in ran.record.provenance["isolation"]["enforced_by"]
