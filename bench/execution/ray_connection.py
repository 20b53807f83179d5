"""The driver's connection to Ray, which is kept by a helper process.

Ray ends the process that is connected, without an exception, when the cluster is gone; it also takes over signals, and
reads its settings once. So a helper is connected, and the driver asks it through a pipe: whatever becomes of Ray, the
driver stays, has what was saved, and says so. The helper ends with its driver.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, Pipe
from typing import Any

from bench.errors import UserError
from bench.execution.ray_cluster import LOCAL, PORT, Cluster, Key, News, Outcome, joined
from bench.utils.stopping import SIGNALS, Stopped, asked, signal_name
from bench.utils.text import shown

REACH_SECONDS = 5.0
ANSWER_SECONDS = 150.0  # a cluster that does not answer for so long is lost; Ray itself gives one up after 60
CLOSE_SECONDS = 30.0  # for Ray to end
SETTINGS = {  # read when Ray is imported and when it starts its daemons
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # a new worker imports torch
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # where something else listens at the address, Ray would try for a quarter hour
}
DONE, REFUSED, LOST = "done", "refused", "lost"
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[4])
from bench.execution.ray_connection import serve
serve(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
"""


class ClusterLost(UserError):
    """The cluster, or the connection to it, is gone; what was saved is kept."""


class RayConnection:
    """A cluster as the driver sees it: each method is that of :class:`Cluster`, in the helper.

    All of them raise ClusterLost where the cluster is gone or does not answer.
    """

    def __init__(self, address: str, helper: subprocess.Popen[bytes], pipe: Connection[Any, Any]) -> None:
        self._address = address
        self._helper = helper
        self._pipe = pipe

    def slots(self, needs: Mapping[str, float]) -> int:
        return int(self.ask("slots", needs))

    def check_fits(self, needs: Mapping[str, float]) -> None:
        self.ask("check_fits", needs)

    def submit(self, order: bytes, key: Key, needs: Mapping[str, float], name: str) -> None:
        self.ask("submit", order, key, needs, name)

    def ended(self, seconds: float) -> list[Key]:
        found: list[Key] = self.ask("ended", seconds)
        return found

    def news(self, stop: bool) -> dict[Key, News]:
        found: dict[Key, News] = self.ask("news", stop)
        return found

    def forget(self, key: Key) -> None:
        self.ask("forget", key)

    def outcome(self, key: Key) -> Outcome:
        found: Outcome = self.ask("outcome", key)
        return found

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a method of the helper's cluster; its result."""
        try:
            self._pipe.send((name, arguments))
            if not self._pipe.poll(ANSWER_SECONDS):
                raise self._lost(f"it has not answered for {ANSWER_SECONDS:g} s")
        except OSError:
            raise self._lost(self._end()) from None
        return self.answer()

    def answer(self) -> Any:
        """What the helper says next."""
        try:
            how, value = self._pipe.recv()
        except (EOFError, OSError):
            raise self._lost(self._end()) from None
        if how == LOST:
            raise self._lost(value)
        if how == REFUSED:
            raise UserError(value)
        return value

    def _lost(self, why: str) -> ClusterLost:
        where = "Ray of this machine's own" if self._address == LOCAL else f"Ray cluster {self._address}"
        return ClusterLost(
            f"the connection to the {where} is lost: {why}; what was saved is kept, and the same command continues"
        )

    def _end(self) -> str:
        """How the helper ended, which nobody asked it to."""
        try:
            code = self._helper.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return "the process that was connected hangs"
        said = f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"
        return f"Ray ended the process that was connected ({said})"


@contextlib.contextmanager
def connected(address: str, cpus: float) -> Iterator[RayConnection]:
    """Inside, there is a connection to the cluster at an address, or to one of its own with so many CPUs.

    Raises:
        UserError: there is none that this process could work with.
        Stopped: somebody asked for it during the start.
    """
    if address != LOCAL:
        host, _, port = address.partition(":")
        _reach(host, int(port or PORT))
    ours, theirs = Pipe()
    with theirs:
        words = [str(theirs.fileno()), address, str(cpus), json.dumps(sys.path)]
        helper = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the driver alone, which then asks the trials to stop
        )
    patience = 0.0
    try:
        connection = RayConnection(address, helper, ours)
        while not ours.poll(0.2):
            if reason := asked():
                raise Stopped(reason)
        connection.answer()
        patience = CLOSE_SECONDS
        yield connection
    finally:
        ours.close()
        try:
            helper.wait(patience)
        except subprocess.TimeoutExpired:
            helper.kill()  # daemons of a Ray of this machine's own die with it
            helper.wait()


def _reach(host: str, port: int) -> None:
    """Raise UserError if nobody listens there: Ray itself would try for minutes."""
    try:
        socket.create_connection((host, port), REACH_SECONDS).close()
    except (OSError, UnicodeError, OverflowError) as error:
        raise UserError(
            f"executor ray: nothing answers at {host}:{port}: {getattr(error, 'strerror', error) or error}; "
            "the address is that of the cluster's head, `ray start --head` prints it"
        ) from None


def _environment() -> dict[str, str]:
    """With what Ray reads. A Ray of this machine's own makes its workers no nicer than us."""
    niceness = str(max(0, os.getpriority(os.PRIO_PROCESS, 0)))
    return {**SETTINGS, "RAY_worker_niceness": niceness, **os.environ}


def serve(descriptor: int, address: str, cpus: float) -> None:
    """The helper: answer the driver's questions until it hangs up."""
    pipe: Connection[Any, Any] = Connection(descriptor)
    said: tuple[str, str] | None = None
    try:
        with joined(address, cpus) as cluster:
            for number in SIGNALS:  # Ray has them end this process; who stops all processes means the trials
                signal.signal(number, signal.SIG_IGN)
            try:
                _answer_all(cluster, pipe)
            finally:
                signal.alarm(int(CLOSE_SECONDS))  # ends this process where Ray does not end
    except UserError as error:
        said = REFUSED, str(error)
    except (Exception, SystemExit) as error:
        said = LOST, _in_brief(error)
    if said is not None:
        with contextlib.suppress(ConnectionError):
            pipe.send(said)


def _answer_all(cluster: Cluster, pipe: Connection[Any, Any]) -> None:
    with contextlib.suppress(EOFError, ConnectionError):  # the driver has hung up, or was killed
        pipe.send((DONE, None))
        while True:
            name, arguments = pipe.recv()
            pipe.send(_answered(cluster, name, arguments))


def _answered(cluster: Cluster, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    from ray.exceptions import RayError

    try:
        return DONE, getattr(cluster, name)(*arguments)
    except UserError as error:
        return REFUSED, str(error)
    except RayError as error:
        return LOST, _in_brief(error)


def _in_brief(error: BaseException) -> str:
    return shown(next(iter(str(error).strip().splitlines()), "") or type(error).__name__)[:300]
