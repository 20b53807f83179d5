"""Short trials of a method under check, with a view of what happened inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.execution.isolated_trial import IsolatedTrial
from bench.execution.isolation import isolated
from bench.execution.run_trial import Setting, run_trial
from bench.execution.status import Interrupted
from bench.harness.isolation.probe import Probe, digest
from bench.harness.trial_context import TrialContext
from bench.records import Record, open_results, read_curve
from bench.spec.method import Access
from bench.spec.method_card import MethodCard
from bench.spec.presets import preset
from bench.spec.study import SUITE
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_keys
from bench.spec.trial import Trial

POOL = "photos"  # the pool of every check: it needs no download, whatever the task's own pool is
STEPS = 40  # a method's ``quick`` options let it pass through all its parts in so many steps
POINTS = 8  # times that such a trial is scored on the way: before, between and after the stops of a resumed one


@dataclass
class Play:
    """One short trial: its record, the end of its student, and what its optimisers saw."""

    record: Record
    curve: list[dict[str, Any]]
    student: str = ""  # hash of the final weights
    start: str = ""  # hash of the initial weights
    used: Access = Access.NONE
    finite: bool = True
    parameters: dict[str, list[str]] = field(default_factory=dict)  # optimiser: parameters without any gradient


@dataclass(frozen=True)
class Trace:
    """The student after each step of a trial, as hashes of its weights."""

    students: tuple[str, ...]
    whole: bool  # to the end of the trial, and the last entry is that of the end, or the status if it failed


class Stage:
    """Plays short trials of one method on one task in a separate folder."""

    def __init__(
        self,
        card: MethodCard,
        task: str,
        method_files: tuple[Path, ...],
        folder: Path,
        isolation: str = "auto",
        **trial: Any,
    ) -> None:
        """``trial``: other values of its fields, such as ``memory_format``."""
        self._isolated = isolated(isolation, "cpu")
        self.card = card
        self.task = get_task(task)
        self.files = method_files
        self.folder = folder
        self.base = {**card.defaults(), **preset(card, self.task, "paper"), **card.quick}
        self._changes = trial
        self._count = 0

    def play(
        self,
        options: Mapping[str, Any] | None = None,
        budget: Mapping[str, float] | None = None,
        points: int = 1,
        stops: tuple[int, ...] = (),
    ) -> Play:
        """Run a trial; at each step of ``stops`` it is stopped, saved, and taken up again."""
        results, trial = self._trial(options, budget, points)
        probe = _Probe()
        for stop in stops:
            setting = self._setting(results, probe, probe.stop_at(stop))
            try:
                run_trial(trial, setting)
            except Interrupted:
                continue
            break
        record = run_trial(trial, self._setting(results, probe))
        return probe.play(record, read_curve(results / "trials" / trial.id))

    def trace(self, options: Mapping[str, Any], students: int | None = None) -> Trace:
        """A trial's student after each step and at the end, or until it has been ``students`` different ones."""
        found: list[str] = []

        def note(student: str) -> bool:
            found.append(student)
            return len(set(found)) == students

        stopped = self._follow(options, note)
        return Trace(tuple(found), whole=not stopped)

    def departs(self, options: Mapping[str, Any], trace: Trace) -> bool:
        """Whether a trial's student differs from that of a trace, as far as this goes; the trial runs no longer."""
        place = 0
        differs = False

        def look(student: str) -> bool:
            nonlocal place, differs
            over = place == len(trace.students)
            differs = trace.whole if over else student != trace.students[place]
            place += 1
            return over or differs

        self._follow(options, look)
        return differs or place < len(trace.students)

    def _follow(self, options: Mapping[str, Any], look: Callable[[str], bool]) -> bool:
        """Show the student of a trial to ``look`` after each step and at the end; True when it has seen enough."""
        results, trial = self._trial(options)
        probe = _Probe()

        def stop() -> bool:
            return probe.began and look(probe.student())

        try:
            record = run_trial(trial, self._setting(results, probe, stop))
        except Interrupted:
            return True
        return look(probe.student() if record.status == "ok" else record.status)

    def _setting(self, results: Path, probe: _Probe, stop: Callable[[], bool] = lambda: False) -> Setting:
        return Setting(
            results,
            checkpoint_seconds=1e9,
            inspect=probe.attach,
            watch=probe.watch,
            stop=stop,
            isolation=self._isolated.way,
            not_isolated=self._isolated.why,
        )

    def _trial(
        self, options: Mapping[str, Any] | None = None, budget: Mapping[str, float] | None = None, points: int = 1
    ) -> tuple[Path, Trial]:
        """A trial and an empty results folder for it."""
        self._count += 1
        results = open_results(self.folder / f"{self._count:04d}", create=True)
        keys = teacher_keys(self.task)
        trial = Trial(
            suite=SUITE,
            task=self.task.name,
            task_sha=self.task.sha,
            teacher=keys[0],
            teachers=keys if self.task.teachers else (),
            method=self.card.name,
            method_sha=self.card.sha,
            options={**self.base, **(options or {})},
            budget=dict(budget or {"steps": STEPS}),
            seed=0,
            points=points,
            selection=("last",),
            study="check",
            pool=POOL if self.card.pool else "",
            method_files=self.files,
        )
        return results, replace(trial, **self._changes)


class _Probe:
    """Looks into a running trial without touching it, in this process or through what the method's process tells."""

    def __init__(self) -> None:
        self._here: Probe | None = None
        self._context: TrialContext | None = None
        self._elsewhere: IsolatedTrial | None = None

    def attach(self, context: TrialContext) -> None:
        self._context, self._here = context, Probe(context)

    def watch(self, trial: IsolatedTrial) -> None:
        self._elsewhere = trial

    @property
    def began(self) -> bool:
        return self._context is not None or self._elsewhere is not None

    def stop_at(self, step: int) -> Callable[[], bool]:
        return lambda: self._steps() >= step

    def _steps(self) -> int:
        context = self._context or (self._elsewhere.context if self._elsewhere else None)
        return -1 if context is None else context.meter.steps

    def student(self) -> str:
        """Hash of the student's weights after the last step, or at the end."""
        if self._here is not None:
            return self._here.digest()
        if self._elsewhere is None:
            return ""
        context = self._elsewhere.context
        return digest(context.student) if context.finished else str(context.told.get("student", ""))

    def play(self, record: Record, curve: list[dict[str, Any]]) -> Play:
        told: Mapping[str, Any] = {}
        if self._here is not None:
            told = self._here.told()
        elif self._elsewhere is not None:
            told = self._elsewhere.context.finished.get("probe") or {}
        if not told:  # it failed before it began, or on the way
            return Play(record, curve)
        return Play(
            record=record,
            curve=curve,
            student=str(told["student"]),
            start=str(told["start"]),
            used=Access(told["used"]),
            finite=bool(told["finite"]),
            parameters=dict(told["parameters"]),
        )


def counts(record: Record) -> dict[str, Any]:
    """What a trial spent, without the times that differ from run to run."""
    meter = record.meter.model_dump()
    return {name: value for name, value in meter.items() if "seconds" not in name and "memory" not in name}
