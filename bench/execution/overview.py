"""How far a study has come, seen from anywhere: read from its results folder, in which nothing is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.execution.driver import Driver, PlannedTrial, read_driver
from bench.execution.durations import Durations
from bench.execution.progress import Progress, read_progress
from bench.records import Record, load_record
from bench.records.folder import trial_names
from bench.records.foreign import is_there

FRESH_SECONDS = 120.0  # a trial that has reported since is running; steps may take long, and clocks differ a little


@dataclass(frozen=True)
class RunningTrial:
    """A trial that runs, and what it said last."""

    trial: PlannedTrial
    progress: Progress | None


@dataclass(frozen=True)
class Overview:
    """The trials of one results folder by what has become of them.

    ``saved`` are those that were stopped and have a checkpoint; ``seconds_left`` is None where nothing tells.
    ``driver`` is None for a folder of an earlier version, where trials that have not begun are not known.
    """

    results: Path
    driver: Driver | None
    done: int
    failed: Sequence[Record]
    running: Sequence[RunningTrial]
    saved: int
    waiting: int
    seconds_left: float | None

    @property
    def trials(self) -> int:
        return self.done + len(self.failed) + len(self.running) + self.saved + self.waiting


def overview(results: Path) -> Overview:
    """What has become of the trials of a results folder so far.

    Raises:
        UserError: a file in it is damaged.
    """
    driver = read_driver(results)
    names = trial_names(results)
    known = Durations()
    listed = {trial.id: trial for trial in driver.trials} if driver is not None else {}
    failed = []
    done: set[str] = set()
    for name in names:
        record = load_record(results / "trials" / name)
        if listed and name not in listed:
            continue  # of another study that shares the folder, or of one before it was changed
        known.add(listed[name].label if name in listed else "", record)
        if record.status in ("ok", "unsupported"):
            done.add(name)
        else:
            failed.append(record)
    running: list[RunningTrial] = []
    saved = waiting = 0
    runs = driver is not None and driver.running
    for trial in listed.values():
        if trial.id in done:
            continue
        work = results / "work" / trial.id
        if runs and _reports(work):
            running.append(RunningTrial(trial, read_progress(work)))
        elif trial.id not in {record.id for record in failed}:
            kept = is_there(work / "checkpoint.pt")
            saved, waiting = saved + kept, waiting + (not kept)
    again = {each.trial.id for each in running}
    failed = [record for record in failed if record.id not in again]
    left = _left(driver, done | {record.id for record in failed}, running, known) if driver is not None else None
    return Overview(results, driver, len(done), failed, running, saved, waiting, left)


def _reports(work: Path) -> bool:
    """Whether a trial has begun under a driver that runs, and said something since."""
    try:
        said = max(file.stat().st_mtime for file in (work / "progress.json", work / "order.json") if file.exists())
    except (OSError, ValueError):
        return False
    return abs(time.time() - said) < FRESH_SECONDS


def _left(driver: Driver, ended: set[str], running: Sequence[RunningTrial], known: Durations) -> float | None:
    """Seconds until all trials have ended, with as many at a time as the last run had."""
    shares = {each.trial.id: each.progress.share if each.progress else 0.0 for each in running}
    open_trials = [trial for trial in driver.trials if trial.id not in ended]
    if not open_trials:
        return 0.0
    expected = []
    for trial in open_trials:
        seconds = known.expected(trial.task, trial.method, trial.label)
        if seconds is None:
            return None
        expected.append(seconds * (1 - shares.get(trial.id, 0.0)))
    return max(sum(expected) / max(1, driver.workers), *expected)
