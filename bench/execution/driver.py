"""What a running study leaves in its results folder for others to see, and how they ask it to stop.

The driver, the process of ``dfkd run``, writes ``run.json``: the trials, where it runs, and, by the file's time, that
it lives. Who wants it to stop writes ``.cancel`` beside it. Both work from any machine that sees the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.errors import UserError
from bench.execution.plan import Plan
from bench.execution.progress import Progress
from bench.records import Record
from bench.records.folder import check_schema, read_json, writing
from bench.records.foreign import is_id, is_there
from bench.spec.trial import Trial
from bench.utils.stopping import ask

if TYPE_CHECKING:
    from bench.execution.run_study import Audience
    from bench.harness.teachers.progress import TrainingProgress

FILE, CANCEL = "run.json", ".cancel"
SCHEMA = 1
BEAT_SECONDS = 2.0  # between looks for a wish to stop, each with a sign of life
SILENT_SECONDS = 120.0  # a driver of another machine without a sign for so long has gone
CANCELLED = "dfkd cancel"


@dataclass(frozen=True)
class PlannedTrial:
    """A trial as a driver's file lists it."""

    id: str
    task: str
    method: str
    label: str
    seed: int


@dataclass(frozen=True)
class Driver:
    """What a results folder says of the last run in it.

    ``seen`` is the time of its last sign of life, as ``time.time()`` has it; ``running`` whether it still runs, as far
    as can be told from here.
    """

    study: str
    part: str
    host: str
    pid: int
    executor: str
    workers: int
    trials: tuple[PlannedTrial, ...]
    seen: float
    running: bool


def read_driver(results: Path) -> Driver | None:
    """The last run of a results folder; None where no run of this version was made in it.

    Raises:
        UserError: the file is damaged or of a newer version.
    """
    file = results / FILE
    if not is_there(file):
        return None
    values = read_json(file)
    check_schema(values, file)
    try:
        trials = tuple(
            PlannedTrial(str(name), str(task), str(method), str(label), int(seed))
            for name, task, method, label, seed in values["trials"]
        )
        ended, began = bool(values["ended"]), float(values["began"])
        host, pid, seen = str(values["host"]), int(values["pid"]), file.stat().st_mtime
        if not all(is_id(trial.id) for trial in trials):
            raise ValueError("trials")
        return Driver(
            study=str(values["study"]),
            part=str(values["part"]),
            host=host,
            pid=pid,
            executor=str(values["executor"]),
            workers=int(values["workers"]),
            trials=trials,
            seen=seen,
            running=not ended and _lives(host, pid, began, seen),
        )
    except (KeyError, TypeError, ValueError, OSError):
        raise UserError(f"{file} is damaged; delete it, or run the study again") from None


def _lives(host: str, pid: int, began: float, seen: float) -> bool:
    if host != socket.gethostname():
        return abs(time.time() - seen) < SILENT_SECONDS
    try:
        return abs(psutil.Process(pid).create_time() - began) < 2.0  # another process may have got the number
    except psutil.Error:
        return False


@contextmanager
def driving(plan: Plan, workers: int, executor: str, audience: Audience) -> Iterator[Audience]:
    """Inside, the results folder, which is locked, tells of this run, and a wish to stop is heard.

    Yields an audience that passes everything on to ``audience``; a run that tells it nothing gives no sign of life.
    """
    driver = _Beating(plan, workers, executor, audience)
    try:
        yield driver
    finally:
        driver.end()


class _Beating:
    """Passes everything on; every now and then it touches the driver's file and looks for a wish to stop."""

    def __init__(self, plan: Plan, workers: int, executor: str, audience: Audience) -> None:
        self._results = plan.results
        self._audience = audience
        self._beaten = time.monotonic()
        self._content: dict[str, Any] = {
            "schema": SCHEMA,
            "study": plan.study.name,
            "part": str(plan.part or ""),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began": psutil.Process().create_time(),
            "executor": executor,
            "workers": workers,
            "ended": False,
            "trials": [[each.id, each.task, each.method, each.label, each.seed] for each in plan.trials],
        }
        with contextlib.suppress(UserError):
            before = read_driver(plan.results)
            known = {trial.id for trial in before.trials} if before is not None else set()
            if before is not None and known > {trial.id for trial in plan.trials} and before.study == plan.study.name:
                # A run of some of the trials, such as those that failed, is one of the same study.
                self._content["trials"] = [
                    [each.id, each.task, each.method, each.label, each.seed] for each in before.trials
                ]
        self._write()
        (plan.results / CANCEL).unlink(missing_ok=True)  # meant for a run before

    def _write(self) -> None:
        part = self._results / f".{FILE}.part"
        with writing(self._results):
            try:
                part.write_text(json.dumps(self._content), encoding="utf-8")
                part.replace(self._results / FILE)
            finally:
                part.unlink(missing_ok=True)

    def end(self) -> None:
        self._content["ended"] = True
        with contextlib.suppress(UserError):  # a full disk: what matters is written
            self._write()
        with contextlib.suppress(OSError):
            (self._results / CANCEL).unlink(missing_ok=True)

    def _beat(self) -> None:
        if time.monotonic() - self._beaten < BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        with contextlib.suppress(OSError):
            os.utime(self._results / FILE)
            if (self._results / CANCEL).exists():
                ask(CANCELLED)

    def planned(self, plan: Plan, workers: int) -> None:
        self._audience.planned(plan, workers)

    def teacher(self, task: str, progress: TrainingProgress) -> None:
        self._beat()
        self._audience.teacher(task, progress)

    def update(self, trial: Trial, progress: Progress) -> None:
        self._beat()
        self._audience.update(trial, progress)

    def ended(self, trial: Trial, record: Record) -> None:
        self._beat()
        self._audience.ended(trial, record)


def cancel(results: Path, wait: float) -> bool | None:
    """Ask the run of a results folder to save its trials and stop.

    Args:
        results: the folder.
        wait: seconds to wait for it to have stopped.

    Returns:
        Whether it has stopped; None where nothing runs.

    Raises:
        UserError: the folder cannot be written.
    """
    driver = read_driver(results)
    if driver is None or not driver.running:
        return None
    with writing(results):
        (results / CANCEL).touch()
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        driver = read_driver(results)
        if driver is None or not driver.running:
            (results / CANCEL).unlink(missing_ok=True)
            return True
        time.sleep(0.2)
    return False
