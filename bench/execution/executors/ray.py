"""A task of Ray for each trial, on this machine or on a cluster: orders and answers travel as content.

The driver takes over checkpoints as they are made, and runs the trials of a lost node again from there.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from pydantic import Field, field_validator

from bench.errors import UserError
from bench.execution.base_record import record_failure
from bench.execution.executors import Executor, Watcher, Work
from bench.execution.progress import Progress, work_folder, write_progress
from bench.execution.ray_cluster import Key, Outcome
from bench.execution.ray_connection import ClusterLost, RayConnection, connected
from bench.execution.transport import accept_packed, packed_order
from bench.records import Record
from bench.spec.trial import Trial
from bench.utils.stopping import Stopped, asked
from bench.utils.yaml import SIZE

POLL_SECONDS = 0.5
GRACE_SECONDS = 60.0  # for trials to save themselves, and for what they saved to arrive

_ADDRESS = re.compile(r"local|[A-Za-z0-9][A-Za-z0-9_.-]*(:\d{1,5})?")


class Ray(Executor):
    address: str = Field(
        "local",
        description="`local`: a Ray of its own on this machine; or the HOST:PORT of a cluster's head",
    )
    cpus: float = Field(0.0, ge=0, description="CPUs of a trial; as many as it has threads if not given")
    gpus: float | None = Field(None, ge=0, description="GPUs of a trial, or a part of one such as 0.25; 1 on `cuda`")
    memory: str = Field("", pattern=SIZE, description="memory of a trial, such as 8G")
    retries: int = Field(3, ge=0, description="how often a trial is run again whose worker or node was lost")

    @field_validator("address")
    @classmethod
    def _place(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError(f"must be `local` or the HOST:PORT of a cluster's head, not {value!r}")
        return value

    @field_validator("gpus")
    @classmethod
    def _whole(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value % 1:
            raise ValueError(f"must be a part of one GPU, or a whole number of them, not {value:g}")
        return value

    def check(self) -> None:
        if find_spec("ray") is None:
            raise UserError("the executor ray needs Ray, which is not installed: pip install 'dfkd-bench[ray]'")

    def needs(self, trial: Trial) -> dict[str, float]:
        """What Ray sets aside for a trial, by Ray's names."""
        gpus = float(trial.device != "cpu") if self.gpus is None else self.gpus
        memory = float(self.memory.rstrip("KMGT") or 0) * 1024 ** " KMGT".index(self.memory.lstrip("0123456789") or " ")
        found = {"CPU": self.cpus or float(trial.threads), "GPU": gpus, "memory": memory}
        return {name: amount for name, amount in found.items() if amount}

    def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
        self.check()
        needs = [self.needs(trial) for trial in trials]
        with connected(self.address, work.workers * max(each["CPU"] for each in needs)) as cluster:
            for each in {tuple(each.items()) for each in needs}:
                cluster.check_fits(dict(each))
            _Run(self, cluster, work, watcher).drive(trials)


@dataclass
class _Task:
    trial: Trial
    progress: Progress | None = None  # None: it has not begun


@dataclass
class _Run:
    """The trials of one call on a cluster."""

    how: Ray
    cluster: RayConnection
    work: Work
    watcher: Watcher
    tasks: dict[Key, _Task] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    late: int = 0  # trials that were lost while they were to save themselves

    def drive(self, trials: Sequence[Trial]) -> None:
        waiting = deque(trials)
        while waiting or self.tasks:
            if reason := asked():
                with contextlib.suppress(ClusterLost):  # a queue that ends a job ends its Ray, too
                    self._stop()
                raise Stopped(reason, self.late + sum(task.progress is not None for task in self.tasks.values()))
            # As many again wait at the nodes, so that no node waits for the driver; one waits where there is no node.
            while waiting and len(self.tasks) < max(1, 2 * self.cluster.slots(self.how.needs(waiting[0]))):
                self._start(waiting.popleft())
            waiting.extendleft(self._look(POLL_SECONDS))

    def _start(self, trial: Trial) -> None:
        self.attempts[trial.id] += 1
        key, name = (trial.id, self.attempts[trial.id]), f"dfkd {trial.label} seed {trial.seed}"
        self.cluster.submit(packed_order([trial], self.work), key, self.how.needs(trial), name)
        self.tasks[key] = _Task(trial)

    def _look(self, wait: float, stop: bool = False) -> list[Trial]:
        """Take over what has come and what has ended; the trials that are to be run again."""
        ended = self.cluster.ended(wait)
        news = self.cluster.news(stop)
        for key, task in self.tasks.items():
            if key in news:
                values, checkpoint = news[key]
                task.progress = Progress(**values)
                write_progress(work_folder(self.work.results, task.trial.id), task.progress)
                if checkpoint:
                    accept_packed(checkpoint, task.trial, self.work.results)
            self.watcher.update(task.trial, task.progress or Progress("queued"))
        again = []
        for key in ended:
            outcome = self.cluster.outcome(key)
            task = self.tasks.pop(key)
            if outcome.refusal:
                raise UserError(f"a Ray worker cannot work here: {outcome.refusal}")
            record = accept_packed(outcome.answer, task.trial, self.work.results) if outcome.answer else None
            if record is None and stop:
                self.late += not outcome.answer
            elif record is None and self.attempts[task.trial.id] > self.how.retries:
                record = self._give_up(task.trial, outcome)
            if record is None:
                again.append(task.trial)
            else:
                self.watcher.ended(task.trial, record)
        return again

    def _give_up(self, trial: Trial, outcome: Outcome) -> Record:
        folder = self.work.results / "work" / trial.id
        status = "out_of_memory" if outcome.out_of_memory else "crashed"
        reason = f"its Ray worker was lost {self.attempts[trial.id]} times, at last: {outcome.lost or 'it was stopped'}"
        record = record_failure(trial, status, reason, self.work.results, folder / "log.txt")
        shutil.rmtree(folder, ignore_errors=True)
        return record

    def _stop(self) -> None:
        """Have all trials save themselves, and take over what they saved; those that have not begun do not begin."""
        deadline = time.monotonic() + GRACE_SECONDS
        self._look(0.0, stop=True)
        for key in [each for each, task in self.tasks.items() if task.progress is None]:
            self.cluster.forget(key)
            del self.tasks[key]
        while self.tasks and time.monotonic() < deadline:
            self._look(POLL_SECONDS, stop=True)
