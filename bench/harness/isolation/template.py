"""Where a method's process comes from: a fork of a process that has imported the libraries and knows nothing else.

Importing torch takes seconds; a fork takes milliseconds. The fork confines itself before it imports the method's file.
A process of many trials asks a template for forks. A worker, which has one, forks itself before it reads any data.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.utils.confinement import Way
from bench.utils.memory import keep_freed_memory
from bench.utils.scratch import make_scratch
from bench.utils.stopping import SIGNALS

LARGEST_ORDER = 2**17
SCRATCH = "dfkd-method-"  # how the folder of a method's process begins
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from bench.harness.isolation.template import serve
serve(int(sys.argv[1]))
"""
_PASSED = (
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR"),
    *("OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_MAX_CPU_ISA", "KMP_AFFINITY", "GOMP_CPU_AFFINITY", "MKL_DYNAMIC", "MALLOC_ARENA_MAX"),
)
_PDEATHSIG = 1


class Template:
    """The judge's way to such a process; one each at a time is asked for a fork."""

    def __init__(self) -> None:
        """A new process, which imports the libraries by itself."""
        self.owner = os.getpid()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
        environment.setdefault("OMP_NUM_THREADS", "1")  # a pool of threads would not survive a fork
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _CODE, str(theirs.fileno()), json.dumps(sys.path)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=environment,
                    start_new_session=True,  # Ctrl-C reaches the judge alone
                )
        except BaseException:
            self._control.close()
            raise

    @property
    def usable(self) -> bool:
        return self.owner == os.getpid() and self._process.poll() is None

    def start(self, order: Mapping[str, Any], descriptors: list[int]) -> int:
        """Fork a process for an order; its pid. ``descriptors``: shared memory, reading end, writing end, log."""
        socket.send_fds(self._control, [json.dumps(order).encode()], descriptors)
        return int(self._answer()["pid"])

    def wait(self, pid: int) -> tuple[int, float, float]:
        """Its wait status, seconds of processor time and peak memory (MiB) beyond the template's, once it has ended."""
        self._control.send(json.dumps({"wait": pid}).encode())
        told = self._answer()
        return int(told["status"]), float(told["seconds"]), float(told["memory"])

    def _answer(self) -> Any:
        data = self._control.recv(LARGEST_ORDER)
        if not data:
            raise RuntimeError("the process that methods are forked from has ended")
        return json.loads(data)

    def close(self) -> None:
        if self.owner != os.getpid():
            return
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()


class ReadyFork:
    """A fork of this process, made before it read what a method may not know, that becomes one method's process.

    A worker has one trial: a template between the two would be one fork more, a tenth of what a short trial costs.
    """

    def __init__(self) -> None:
        from bench.harness.isolation.method_process import warm_up

        warm_up()
        self.owner = os.getpid()
        self._taken = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        try:
            os.setsid()
            os.dup2(theirs.fileno(), 3)
            os.set_inheritable(3, False)
            os.closerange(4, 65536)
            _wait_for_order(3)
        finally:
            os._exit(1)

    @property
    def usable(self) -> bool:
        return self.owner == os.getpid() and not self._taken

    def start(self, order: Mapping[str, Any], descriptors: list[int]) -> int:
        """Let it become the process of an order; the rest is as of :class:`Template`."""
        self._taken = True
        try:
            socket.send_fds(self._control, [json.dumps(order).encode()], descriptors)
        except OSError:
            raise RuntimeError("the process that a method was to run in has ended") from None
        return self.pid

    def wait(self, pid: int) -> tuple[int, float, float]:
        """As of :class:`Template`: memory counts beyond what it had before the order."""
        _, status, usage = os.wait4(pid, 0)
        told = b""  # where it was killed before it could say, or before it read the order
        with self._control, contextlib.suppress(ConnectionResetError):
            told = self._control.recv(LARGEST_ORDER)
        return status, *_used(usage, int(told or 0))

    def close(self) -> None:
        if self.usable:
            self._control.close()
            os.kill(self.pid, signal.SIGKILL)  # it is there until somebody has waited for it
            os.waitpid(self.pid, 0)


_template: list[Template | ReadyFork] = []


def get_template() -> Template | ReadyFork:
    """Where this process's next method comes from: its fork, or a template that the first call starts."""
    if _template and _template[0].usable:
        return _template[0]
    if _template:
        _template.pop().close()
    _template.append(Template())
    atexit.register(close_template)
    return _template[0]


def use_fork() -> None:
    """Have the next method run in a fork of this process, made now: before data, teachers or anything else is read."""
    if not _template:
        _template.append(ReadyFork())
        atexit.register(close_template)


def close_template() -> None:
    while _template:
        _template.pop().close()


def serve(control: int) -> None:
    """Fork a process for every order, until the judge hangs up."""
    shared = _get_ready()
    with socket.socket(fileno=control) as talk:
        while True:
            data, descriptors, _, _ = socket.recv_fds(talk, LARGEST_ORDER, 8)
            if not data:
                os._exit(0)
            order = json.loads(data)
            if "wait" in order:
                _, status, usage = os.wait4(order["wait"], 0)
                seconds, memory = _used(usage, shared)
                talk.send(json.dumps({"status": status, "seconds": seconds, "memory": memory}).encode())
                continue
            pid = os.fork()
            if not pid:
                _become(order, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            talk.send(json.dumps({"pid": pid}).encode())


def _wait_for_order(control: int) -> None:
    """Become the process of the one order that comes, or end where the judge hangs up before."""
    shared = _get_ready()
    with socket.socket(fileno=control) as talk:
        talk.send(str(shared).encode())
        data, descriptors, _, _ = socket.recv_fds(talk, LARGEST_ORDER, 8)
        if data:
            _become(json.loads(data), descriptors)


def _get_ready() -> int:
    """Everything that can be done before an order; bytes of memory of the libraries, which nobody pays twice for."""
    from bench.utils.confinement.system import prctl

    prctl(_PDEATHSIG, signal.SIGKILL)
    for number in SIGNALS:  # the judge decides how it ends
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    from bench.harness.isolation.method_process import warm_up
    from bench.utils.confinement.view import look_around

    keep_freed_memory()
    warm_up()
    look_around()
    return int(psutil.Process().memory_info().rss)


def _used(usage: resource.struct_rusage, shared: int) -> tuple[float, float]:
    """Seconds of processor time, and peak memory (MiB) beyond ``shared`` bytes."""
    return usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss * 1024 - shared, 0) / 2**20


def _become(order: Mapping[str, Any], descriptors: list[int]) -> None:
    """This fork is now the process of a method, and ends as one."""
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        _take_descriptors(descriptors)
        scratch = order["scratch"]
        kept = {name: os.environ[name] for name in _PASSED if name in os.environ}
        os.environ.clear()
        os.environ.update(kept)
        os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "TORCH_HOME"), scratch))
        tempfile.tempdir = None
        os.chdir(scratch)
        sys.path[:] = order["path"]
        sys.argv[:] = ["method"]
        sys.dont_write_bytecode = True

        from bench.harness.isolation import method_process
        from bench.harness.isolation.channel import Channel, Kind, Message
        from bench.utils.confinement import confine, view_of

        channel = Channel(3, 4, 5, judge=False)
        view = view_of(Path(order["file"]), Path(scratch), more=map(Path, order["networks"]))
        words = confine(view, order["way"])
        channel.send(Message(Kind.CONFINED, payload=words.encode()))
        method_process.run(order, channel)
        method_process.leave()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(70)


def _take_descriptors(descriptors: list[int]) -> None:
    """Standard input is empty, output goes to the log; beside them nothing is open but memory and the two pipes."""
    high = [os.dup2(each, 100 + index) for index, each in enumerate(descriptors)]
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(high[3], 1)
    os.dup2(high[3], 2)
    for place, each in zip((3, 4, 5), high[:3], strict=True):
        os.dup2(each, place, inheritable=False)
    os.closerange(6, 65536)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115


@dataclass
class MethodProcess:
    """A method's process, as the judge has it."""

    pid: int
    channel: Any
    scratch: Path
    template: Template | ReadyFork
    status: int | None = None
    cpu_seconds: float = 0.0
    memory_mib: float = 0.0

    def still(self, still: bool) -> None:
        """Stop all its threads, or let them go on."""
        if self.status is None:
            os.kill(self.pid, signal.SIGSTOP if still else signal.SIGCONT)

    def end(self) -> int:
        """Kill it if it lives; its wait status."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return self.ended()

    def ended(self) -> int:
        """Its wait status, where it has closed its end of the pipe by itself. What it left in its folder goes."""
        if self.status is None:
            self.status, self.cpu_seconds, self.memory_mib = self.template.wait(self.pid)
            self.channel.close()
            shutil.rmtree(self.scratch, ignore_errors=True)
        return self.status


def start(order: Mapping[str, Any], way: Way, log: Path) -> MethodProcess:
    """A confined process for an order; it runs by itself until it has a question.

    Raises:
        RuntimeError: it could not be confined; its log says why.
    """
    from bench.harness.isolation.channel import Channel, shared_memory

    template = get_template()
    scratch = make_scratch(SCRATCH)
    memory = shared_memory()
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        whole = {**order, "scratch": str(scratch), "way": way, "path": sys.path}
        pid = template.start(whole, [memory, theirs_in, theirs_out, written])
        channel = Channel(memory, ours_in, ours_out, judge=True)
    finally:
        for each in (memory, theirs_in, theirs_out, written):
            os.close(each)
    return MethodProcess(pid, channel, scratch, template)
