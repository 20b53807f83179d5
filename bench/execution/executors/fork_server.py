"""Where workers come from on Linux: forks of one process that has imported torch and read the built-in methods' cards.

Importing torch takes seconds of processor time, a fork takes milliseconds. The bits are those of a spawned worker.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

LARGEST = 2**17  # bytes of a request
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from bench.execution.executors.fork_server import serve
serve(int(sys.argv[1]))
"""
_PDEATHSIG = 1
_UNKNOWN = 1  # exit code of a worker whose end nobody has seen


class ForkServer:
    """One such process, for workers with the same number of threads and the same modules."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.path = list(sys.path)
        self.owner = os.getpid()
        self._environment = dict(environment)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _CODE, str(theirs.fileno()), json.dumps(self.path)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=dict(environment),
                    start_new_session=True,  # Ctrl-C reaches the parent alone, which then asks the workers to stop
                )
        except BaseException:
            self._control.close()
            raise

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a worker with this environment can come from here: threads are counted when torch is imported."""
        read_early = [name for name in {*environment, *self._environment} if name.endswith("_NUM_THREADS")]
        same = all(environment.get(name) == self._environment.get(name) for name in read_early)
        return same and self.path == sys.path and self.alive

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and self._process.poll() is None

    def start(self, folder: Path, environment: Mapping[str, str], log: int) -> ForkedWorker:
        """A worker for the order in a work folder, which writes to the open file ``log``.

        Raises:
            OSError: the server has ended.
        """
        before = self._environment
        order = {
            "folder": str(folder.absolute()),
            "cwd": str(Path.cwd()),
            "set": {name: value for name, value in environment.items() if before.get(name) != value},
            "unset": [name for name in before if name not in environment],
        }
        socket.send_fds(self._control, [json.dumps(order).encode()], [log])
        return ForkedWorker(self, int(self._answer()))

    def code(self, pid: int) -> int | None:
        """The exit code of a worker, negative for a signal; None while it runs."""
        try:
            self._control.send(json.dumps({"poll": pid}).encode())
            answer: int | None = self._answer()
            return answer
        except OSError:  # the server is gone, and its workers notice and save themselves
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # in some containers nobody collects these
                    return None
            return _UNKNOWN

    def _answer(self) -> Any:
        data = self._control.recv(LARGEST)
        if not data:
            raise ConnectionError("the process that workers are forked from has ended")
        return json.loads(data)

    def close(self) -> None:
        if self.owner == os.getpid():
            self._control.close()
            self._process.kill()
            self._process.wait()


class ForkedWorker:
    """A worker, with as much of :class:`subprocess.Popen` as an executor needs."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            time.sleep(0.02)
        return code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


_servers: list[ForkServer] = []


def fork_server(environment: Mapping[str, str]) -> ForkServer | None:
    """This process's server; None where the system cannot fork such a process safely."""
    if sys.platform != "linux":
        return None
    if _servers and not _servers[0].fits(environment):
        _servers.pop().close()
    if not _servers:
        _servers.append(ForkServer(environment))
        atexit.register(close_server)
    return _servers[0]


def close_server() -> None:
    while _servers:
        _servers.pop().close()


def serve(control: int) -> None:
    """Fork a worker for every order, and tell of those that have ended, until the executor hangs up."""
    from bench.utils.confinement.system import prctl
    from bench.utils.stopping import SIGNALS

    for number in SIGNALS:  # who stops a whole group of processes means the trials, and they save themselves
        signal.signal(number, signal.SIG_IGN)
    prctl(_PDEATHSIG, signal.SIGKILL)
    import bench.execution.run_trial  # noqa: F401  # everything that a worker imports
    from bench.harness.isolation.method_process import warm_up
    from bench.spec.method_registry import built_in_methods
    from bench.utils.confinement.view import look_around
    from bench.utils.provenance import provenance

    warm_up()
    built_in_methods()
    look_around()
    provenance(threads=1, deterministic=True)  # the versions of libraries, the commit: asks git
    gc.collect()
    gc.freeze()  # what is here stays: a worker's collector would touch, and so copy, every page of it
    talk = socket.socket(fileno=control)
    while True:
        data, descriptors, _, _ = socket.recv_fds(talk, LARGEST, 1)
        if not data:
            os._exit(0)
        order = json.loads(data)
        if "poll" in order:
            talk.send(json.dumps(_code(order["poll"])).encode())
            continue
        pid = os.fork()
        if not pid:
            _become(order, descriptors)
        os.close(descriptors[0])
        talk.send(json.dumps(pid).encode())


def _code(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _become(order: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """This fork is now a worker, and ends as one."""
    from bench.execution.executors.worker import main

    code = 1
    try:
        parent = os.getppid()
        os.setsid()
        log = os.dup2(descriptors[0], 100)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.closerange(3, 65536)
        os.chdir(order["cwd"])
        for name in order["unset"]:
            os.environ.pop(name, None)
        os.environ.update(order["set"])
        sys.argv[1:] = [order["folder"]]
        main(Path(order["folder"]), parent)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
