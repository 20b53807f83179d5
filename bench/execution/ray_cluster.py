"""Talking to Ray: a cluster, tasks, and what became of them. Ray is imported when it is first used.

The process that is connected is a helper of the driver's, see :mod:`bench.execution.ray_connection`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import UserError
from bench.utils.text import shown

LOCAL = "local"
PORT = 6379  # of a cluster's head, where an address names none
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
    """A Ray cluster that this process is connected to. Its methods may raise what Ray does when the cluster is lost."""

    def __init__(self, address: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._address = ray, address
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self._tasks: dict[Key, Any] = {}
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

    def submit(self, order: bytes, key: Key, needs: Mapping[str, float], name: str) -> None:
        """Hand a trial's order to Ray, as the task ``key``."""
        task = self._task.options(
            num_cpus=needs["CPU"],
            num_gpus=needs.get("GPU", 0.0),
            memory=needs.get("memory", 0.0) or None,
            max_retries=0,  # the driver runs a lost trial again, from its last checkpoint
            name=name,
        )
        # Inside a list, so that Ray does not see an argument of its own: with one, most trials got a new worker.
        self._tasks[key] = task.remote([self._ray.put(order)], key, self._mailbox, self._niceness)

    def ended(self, seconds: float) -> list[Key]:
        """The tasks that have ended, waiting so long for the first one."""
        if not self._tasks:
            return []
        running = list(self._tasks.values())
        self._ray.wait(running, timeout=seconds)
        ended = set(self._ray.wait(running, num_returns=len(running), timeout=0)[0])
        return [key for key, task in self._tasks.items() if task in ended]

    def news(self, stop: bool) -> dict[Key, News]:
        """The latest of each trial since the last call; with ``stop``, all are told to save themselves and end."""
        found: dict[Key, News] = self._ray.get(self._mailbox.read.remote(stop))
        return found

    def forget(self, key: Key) -> None:
        """Take a task that has not begun from the queue."""
        self._ray.cancel(self._tasks.pop(key))

    def outcome(self, key: Key) -> Outcome:
        """Of a task that has ended."""
        from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

        try:
            answer, refusal = self._ray.get(self._tasks.pop(key))
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
def joined(address: str, cpus: float) -> Iterator[Cluster]:
    """Inside, this process is connected to the cluster at an address, or to one of its own with so many CPUs.

    Raises:
        UserError: there is none that this process could work with.
    """
    where: dict[str, Any] = {"address": LOCAL, "num_cpus": max(1, int(cpus)), "include_dashboard": False}
    if address != LOCAL:
        host, _, port = address.partition(":")
        where = {"address": f"{host}:{port or PORT}"}
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            words = shown(" ".join(str(error).split()))[:500]
            raise UserError(f"executor ray: no connection to the Ray cluster {address}: {words}") from None
        yield Cluster(address)
    finally:
        ray.shutdown()


def _in_words(needs: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / 2**30:.3g} GiB" if name == "memory" else f"{amount:g} {name}{'s' * (amount != 1)}"
        for name, amount in needs.items()
    )
