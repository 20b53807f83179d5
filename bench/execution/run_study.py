"""Running a study: from its file to a record of every trial, and resuming an interrupted run."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from bench.errors import UserError
from bench.execution.base_record import record_failure
from bench.execution.driver import driving
from bench.execution.durations import Durations, long_first
from bench.execution.executors import Watcher, Work, check_executor, get_executor, require_executor
from bench.execution.gpu_memory import MemoryNeeds
from bench.execution.isolation import ASKED, isolated
from bench.execution.parts import StudyPart
from bench.execution.plan import Plan, default_workers, finished_of, plan_study
from bench.execution.teachers import WantedTeacher, check_teacher, missing_teachers, train_teacher, wanted_teachers
from bench.records import Record, load_record, open_results
from bench.records.folder import writing
from bench.spec.custom_tasks import save_tasks
from bench.spec.requirements import missing_data, unsupported
from bench.spec.trial import Trial
from bench.utils.stopping import Stopped, asked, listening

if TYPE_CHECKING:
    from bench.harness.teachers.progress import TrainingProgress

CHECKPOINT_SECONDS = 30.0
LIKE = 3  # finished trials of one kind that are read to know how long the others take


@dataclass(frozen=True)
class TrialResult:
    """What became of one trial; ``log`` is where a failure is written down."""

    trial: Trial
    record: Record
    log: Path | None


@dataclass(frozen=True)
class Summary:
    """The whole study after a run; ``kept`` trials had been finished before."""

    plan: Plan
    outcomes: tuple[TrialResult, ...]

    @property
    def kept(self) -> int:
        """How many of the trials that went well had done so before this run."""
        ok = {outcome.trial.id for outcome in self.outcomes if outcome.record.status == "ok"}
        return len(self.plan.finished & ok)

    @property
    def statuses(self) -> Mapping[str, int]:
        return Counter(outcome.record.status for outcome in self.outcomes)

    @property
    def unmeasured(self) -> Mapping[str, int]:
        """Image metrics that the study asks for and finished trials do not have: on how many of them."""
        return Counter(
            name
            for outcome in self.outcomes
            if outcome.record.status == "ok"
            for name in outcome.trial.image_metrics
            if name not in outcome.record.image_metrics
        )

    @property
    def not_isolated(self) -> str:
        """Why methods shared a process with the harness though nobody asked for that; empty where none did."""
        found = (outcome.record.provenance.get("isolation", {}) for outcome in self.outcomes)
        reasons = [str(each["why"]) for each in found if each.get("mode") == "none" and each.get("why")]
        return next((why for why in reasons if why != ASKED), "")

    @property
    def failures(self) -> list[TrialResult]:
        return [outcome for outcome in self.outcomes if outcome.record.status not in ("ok", "unsupported")]

    @property
    def unsupported(self) -> list[TrialResult]:
        """Trials that were left out by plan: the method is not made for the task."""
        return [outcome for outcome in self.outcomes if outcome.record.status == "unsupported"]


class Audience(Watcher, Protocol):
    """Told how a study comes along: a :class:`Watcher` that also sees what goes before the trials."""

    def planned(self, plan: Plan, workers: int) -> None: ...


class Silence:
    """An audience that prints nothing."""

    def planned(self, plan: Plan, workers: int) -> None:
        pass

    def teacher(self, task: str, progress: TrainingProgress) -> None:
        pass

    def update(self, trial: Trial, progress: object) -> None:
        pass

    def ended(self, trial: Trial, record: Record) -> None:
        pass


def run_study(
    file: Path,
    *,
    results: Path | None = None,
    executor: str = "processes",
    workers: int | None = None,
    device: str = "auto",
    method_files: Sequence[Path] = (),
    data_folder: Path | None = None,
    weights: Path | None = None,
    allow_altered: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    isolation: str | None = None,
    audience: Audience | None = None,
    part: StudyPart | None = None,
) -> Summary:
    """Run a study's trials that are not finished yet; a trial's failure becomes its record and the study continues.

    Args:
        file: the study.
        results: the results folder; ``runs/<study>`` if not named.
        executor: one of ``EXECUTORS``, or a site's own, with its options: ``slurm:partition=gpu``.
        workers: trials at a time (`inline`: always one); if not named, what the cores allow, on GPUs one on each.
        device: ``auto``, ``cpu``, ``cuda`` (with `processes`, every visible GPU) or ``cuda:N``.
        method_files: method files beside those that the study names.
        data_folder: where to look for data sets first.
        weights: a folder or file to look in first for the weights of image metrics.
        allow_altered: use data files that are well-formed but not the official ones.
        checkpoint_seconds: how often a running trial is saved.
        isolation: ``auto``, ``process`` or ``none`` instead of what the study says.
        audience: called with the progress.
        part: run only this part of the study; without ``results``, in the part's own folder.

    Raises:
        UserError: what the user has to fix before anything can run; nothing was written, or only complete files.
        Stopped: a signal came or the time was over (:mod:`bench.utils.stopping`); the running trials and a teacher in
            training are saved, and the same call continues.
        KeyboardInterrupt: a second Ctrl-C; what has not been saved is lost, and the same call continues from there.
    """
    check_executor(executor)
    plan = plan_study(
        file,
        results=results,
        device=device,
        method_files=method_files,
        allow_altered=allow_altered,
        data_folder=data_folder,
        part=part,
    )
    return run_plan(
        plan,
        file,
        executor=executor,
        workers=workers,
        data_folder=data_folder,
        weights=weights,
        allow_altered=allow_altered,
        checkpoint_seconds=checkpoint_seconds,
        isolation=isolation,
        audience=audience,
    )


def run_plan(
    plan: Plan,
    file: Path,
    *,
    executor: str = "processes",
    workers: int | None = None,
    data_folder: Path | None = None,
    weights: Path | None = None,
    allow_altered: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    isolation: str | None = None,
    audience: Audience | None = None,
) -> Summary:
    """Run what is left of a plan of the study in ``file``; the rest is as in :func:`run_study`."""
    if plan.waiting:
        require_executor(executor)
    else:
        check_executor(executor)
    audience = audience or Silence()
    isolation = isolation or plan.study.isolation
    for trial in plan.trials:
        isolated(isolation, trial.device)  # a UserError before anything is written
    refused = refusals(plan.waiting, data_folder, allow_altered)
    count = 1 if executor == "inline" else workers or default_workers(plan)
    open_results(plan.results, create=True)
    with locked(plan.results):
        plan = replace(plan, finished=finished_of(plan.results, plan.trials))  # another run may just have ended
        _prepare_folder(plan, file)
        audience.planned(plan, count)
        durations, needs = known_of(plan)
        around = (data_folder, checkpoint_seconds, count, plan.gpu, weights, isolation)
        work = Work(plan.results, *around, needs=needs)
        order = long_first(plan.waiting, durations)
        with driving(plan, count, executor, audience) as beating:
            run_trials(order, refused, work, executor, beating)
        return Summary(plan, tuple(_outcome(trial, plan.results) for trial in plan.trials))


def known_of(plan: Plan) -> tuple[Durations, MemoryNeeds]:
    """What the finished trials of a plan tell of how long others take, and how much of a GPU's memory."""
    durations, needs, looked_at = Durations(), MemoryNeeds(), Counter[tuple[str, ...]]()
    for trial in plan.trials:
        kind = (trial.task, trial.method, trial.label)
        if trial.id in plan.finished and looked_at[kind] < LIKE:
            looked_at[kind] += 1
            record = load_record(plan.results / "trials" / trial.id)
            durations.add(trial.label, record)
            needs.add(trial.label, record)
    return durations, needs


def refusals(
    trials: Sequence[Trial], data_folder: Path | None, allow_altered: bool = False
) -> dict[str, tuple[str, str]]:
    """The trials that cannot run here, by id: the status of their record, and the reason.

    Raises:
        UserError: a data file or a stored teacher is damaged or does not fit.
    """
    unfit = unsupported(trials)
    able = [trial for trial in trials if trial.id not in unfit]
    missing = missing_data(able, data_folder, allow_altered)
    for wanted in wanted_teachers(able):
        check_teacher(wanted)
    return {name: ("unsupported", reason) for name, reason in unfit.items()} | {
        name: ("missing_data", reason) for name, reason in missing.items()
    }


def run_trials(
    trials: Sequence[Trial],
    refused: Mapping[str, tuple[str, str]],
    work: Work,
    executor: str,
    audience: Audience,
) -> None:
    """Run trials in a folder that is locked. Those that :func:`refusals` names get their record without a run."""
    able = []
    for trial in trials:
        if trial.id in refused:
            log = work.results / "work" / trial.id / "log.txt"
            audience.ended(trial, record_failure(trial, *refused[trial.id], work.results, log))
        else:
            able.append(trial)
    if able:
        with listening():
            _run_able(able, work, executor, audience)


def _run_able(trials: Sequence[Trial], work: Work, executor: str, audience: Audience) -> None:
    gpu = work.gpu is not None or any(trial.device != "cpu" for trial in trials)
    runs = get_executor(executor)
    missing = missing_teachers(trials)
    if missing and not gpu and runs.trains_teachers:
        work = replace(work, teachers=tuple(missing))
    else:
        _train_teachers(missing, work.data_folder, f"cuda:{work.gpu or 0}" if gpu else "cpu", audience)
    if reason := asked():
        raise Stopped(reason)
    runs(trials, work, audience)


def _train_teachers(missing: Iterable[WantedTeacher], folder: Path | None, device: str, audience: Audience) -> None:
    """Train what is not cached, once and here: every trial of a task needs the same teacher, and some its anchors."""
    for wanted in missing:
        train_teacher(wanted, folder, device, partial(audience.teacher, wanted.title))


@contextmanager
def locked(results: Path) -> Iterator[None]:
    """Two runs in one folder would run the same trials; records are safe without, the time would be wasted."""
    lock = FileLock(str(results / ".lock"), timeout=0)
    with writing(results):
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"another run is using {results}; wait for it, or choose another --results") from None
    try:
        yield
    finally:
        lock.release()


def _prepare_folder(plan: Plan, file: Path) -> None:
    """Keep a copy of the study and of its own tasks; clear what a kill after a trial's record left behind."""
    with writing(plan.results):
        copy = plan.results / "study.yaml"
        part = copy.with_name(".study.yaml.part")
        try:
            shutil.copyfile(file, part)
            part.replace(copy)
        finally:
            part.unlink(missing_ok=True)
        save_tasks(plan.results, [trial.own_task for trial in plan.trials if trial.own_task])
        for name in plan.finished:
            shutil.rmtree(plan.results / "work" / name, ignore_errors=True)


def _outcome(trial: Trial, results: Path) -> TrialResult:
    folder = results / "trials" / trial.id
    log = folder / "log.txt"
    return TrialResult(trial, load_record(folder), log if log.is_file() else None)
