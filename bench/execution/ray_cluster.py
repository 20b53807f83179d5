"""Talking to Ray: a connection to a cluster, tasks, and what became of them. Ray is imported when it is first used."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import UserError
from bench.utils.stopping import SIGNALS, Stopped
from bench.utils.text import shown

LOCAL = "local"
PORT = 6379  # of a cluster's head, where an address names none
REACH_SECONDS = 5.0
SETTINGS = {  # read when Ray is imported and when it starts its daemons
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # a new worker imports torch
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # where something else listens at the address, Ray would try for a quarter hour
}


WORKER = "bench.execution.ray_worker"  # runs trials by an executor, and so is not imported by what executors import
Key = tuple[str, int]  # a trial's id and the number of the attempt: a lost one may still be alive
News = tuple[dict[str, Any], bytes]  # a trial's progress, and an answer with its checkpoint where there is a new one


class Mailbox:
    """An actor on the driver's node. It keeps the latest of each trial, so that what a lost node had sent is there."""

    def __init__(self) -> None:
        self._news: dict[Key, News] = {}
        self._stop = False

    def tell(self, key: Key, progress: dict[str, Any], answer: bytes = b"") -> bool:
        """From a trial; whether it should save itself and end."""
        _, before = self._news.get(key, ({}, b""))
        self._news[key] = (progress, answer or before)
        return self._stop

    def read(self, stop: bool) -> dict[Key, News]:
        """From the driver: what has come since the last time. ``stop`` is what trials are told from now on."""
        self._stop = stop
        news, self._news = self._news, {}
        return news


@dataclass(frozen=True)
class Outcome:
    """What a task has come to: an answer, a refusal in words, or the reason why its worker was lost."""

    answer: bytes = b""
    refusal: str = ""
    lost: str = ""
    out_of_memory: bool = False


class Cluster:
    """A Ray cluster that this process is connected to."""

    def __init__(self, address: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._address = ray, address
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self._task = ray.remote(importlib.import_module(WORKER).work)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(Mailbox).options(
            num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here, max_concurrency=1
        )
        self._mailbox = actor.remote()

    def slots(self, needs: Mapping[str, float]) -> int:
        """How many such trials fit on the nodes at a time."""
        return sum(min(int(node.get(name, 0.0) / amount) for name, amount in needs.items()) for node in self._nodes())

    def check_fits(self, needs: Mapping[str, float]) -> None:
        """Raise UserError where no node has what a trial needs."""
        if not self.slots(needs):
            most = {name: max([node.get(name, 0.0) for node in self._nodes()], default=0.0) for name in needs}
            raise UserError(
                f"executor ray: no node of the cluster {self._address} has {_in_words(needs)} for a trial; the most "
                f"that one has: {_in_words(most)}"
            )

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def submit(self, order: bytes, key: Key, needs: Mapping[str, float], name: str) -> Any:
        """Hand a trial's order to Ray; a reference to the task."""
        task = self._task.options(
            num_cpus=needs["CPU"],
            num_gpus=needs.get("GPU", 0.0),
            memory=needs.get("memory", 0.0) or None,
            max_retries=0,  # the driver runs a lost trial again, from its last checkpoint
            name=name,
        )
        # Inside a list, so that Ray does not see an argument of its own: with one, most trials got a new worker.
        return task.remote([self._ray.put(order)], key, self._mailbox, self._niceness)

    def ended(self, tasks: Sequence[Any], seconds: float) -> list[Any]:
        """Those that have ended, waiting so long for the first one."""
        if not tasks:
            return []
        self._ray.wait(list(tasks), timeout=seconds)
        return list(self._ray.wait(list(tasks), num_returns=len(tasks), timeout=0)[0])

    def news(self, stop: bool) -> dict[Key, News]:
        """The latest of each trial since the last call; with ``stop``, all are told to save themselves and end."""
        found: dict[Key, News] = self._ray.get(self._mailbox.read.remote(stop))
        return found

    def forget(self, task: Any) -> None:
        """Take a task that has not begun from the queue."""
        self._ray.cancel(task)

    def outcome(self, task: Any) -> Outcome:
        """Of a task that has ended."""
        from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

        try:
            answer, refusal = self._ray.get(task)
        except RayTaskError as error:
            words = shown(next(iter(str(error.cause or error).strip().splitlines()[-1:]), ""))[:300]
            if isinstance(error.cause, RayError):  # the order was lost on its way, or the mailbox
                return Outcome(lost=words)
            return Outcome(refusal=f"{type(error.cause).__name__}: {words}")
        except RayError as error:
            words = shown(next(iter(str(error).strip().splitlines()), "") or type(error).__name__)[:300]
            return Outcome(lost=words, out_of_memory=isinstance(error, OutOfMemoryError))
        return Outcome(answer, refusal)


@contextlib.contextmanager
def connected(address: str, cpus: float) -> Iterator[Cluster]:
    """Inside, this process is connected to the cluster at an address, or to one of its own with so many CPUs.

    Raises:
        UserError: there is none that this process could work with.
        Stopped: SIGTERM came during the start.
    """
    where: dict[str, Any] = {"address": LOCAL, "num_cpus": max(1, int(cpus)), "include_dashboard": False}
    if address != LOCAL:
        host, _, port = address.partition(":")
        where = {"address": f"{host}:{port or PORT}"}
        _reach(host, int(port or PORT))
    with _settings(), _own_handlers():
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            ray.shutdown()
            words = shown(" ".join(str(error).split()))[:500]
            raise UserError(f"executor ray: no connection to the Ray cluster {address}: {words}") from None
        except SystemExit:  # what Ray makes of SIGTERM while it starts
            ray.shutdown()
            raise Stopped("SIGTERM") from None
    try:
        yield Cluster(address)
    except ray.exceptions.RayError as error:
        words = shown(next(iter(str(error).strip().splitlines()), ""))[:300]
        raise UserError(
            f"the connection to the Ray cluster {address} is lost; the same command continues: {words}"
        ) from error
    finally:
        ray.shutdown()


def _reach(host: str, port: int) -> None:
    """Raise UserError if nobody listens there: Ray itself would try for minutes."""
    try:
        socket.create_connection((host, port), REACH_SECONDS).close()
    except (OSError, UnicodeError, OverflowError) as error:
        raise UserError(
            f"executor ray: nothing answers at {host}:{port}: {getattr(error, 'strerror', error) or error}; "
            "the address is that of the cluster's head, `ray start --head` prints it"
        ) from None


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Inside, the environment has what Ray reads. A Ray of this machine's own makes its workers no nicer than us."""
    own = {**SETTINGS, "RAY_worker_niceness": str(max(0, os.getpriority(os.PRIO_PROCESS, 0)))}
    added = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Afterwards signals are handled as before: Ray has SIGTERM end the process, unsaved."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_words(needs: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / 2**30:.3g} GiB" if name == "memory" else f"{amount:g} {name}{'s' * (amount != 1)}"
        for name, amount in needs.items()
    )
