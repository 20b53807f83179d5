"""The harness's side of a running trial: the same whether its method runs in this process or in another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.data.source import Split
from bench.execution.prepare import PreparedTrial
from bench.execution.status import Ending, TimedOut
from bench.harness.checkpoint import load_trial, lost
from bench.harness.evaluation import Judge, answers_of_all, score_answers
from bench.harness.isolation.judge_side import JudgeSide
from bench.harness.learning_curve import Curve
from bench.harness.peak_memory import peak_memory_mib
from bench.harness.trial_context import TrialContext

if TYPE_CHECKING:
    from bench.execution.run_trial import Setting

PASSPORT = ("sha256", "network", "recipe", "seed", "score")  # what a record says of its teacher


class LiveTrial:
    """A trial whose method runs: evaluated, saved, resumed and stopped on the way.

    Args:
        prepared: what it needs.
        setting: what is around it.
        started: as ``time.perf_counter()`` has it; the study's timeout counts from here.
        isolated: whether the method runs in another process; the checkpoints of the two are different.
    """

    context: TrialContext | JudgeSide
    judge: Judge
    curve: Curve

    def __init__(self, prepared: PreparedTrial, setting: Setting, started: float, *, isolated: bool) -> None:
        self.prepared = prepared
        self.setting = setting
        self.started = started
        self.resumed = 0
        self.stopping = False  # the user wants it
        self.restarted = ""  # why the work before a stop was lost
        self._saved = time.perf_counter()
        self._shown = 0.0
        self._ensemble_score = 0.0  # of several teachers, on the test images
        self._scores_there: Sequence[float] = ()  # of each, where the test images are another set's than its passport's
        self._checkpoint = load_trial(prepared.work, prepared.trial.id, self._on_lost, isolated=isolated)

    def _judged_by(self, context: TrialContext | JudgeSide) -> tuple[Judge, Curve]:
        """Who scores the student, and the curve of its scores."""
        prepared, image, classes = self.prepared, self.prepared.task.image, self.prepared.dataset.classes
        test, device = prepared.dataset.test, prepared.device
        labels = test.labels.to(device)
        test = Split(test.images if test.mapped else test.images.to(device), labels, test.digest)
        networks = [teacher.network for teacher in prepared.teachers]
        found = answers_of_all(networks, test.images, image)  # each teacher passes once, whatever is scored
        judge = Judge(prepared.student, found[0], test, image, device, classes)
        if prepared.dataset.home is not None:
            self._scores_there = [score_answers(each, labels, classes)[0] for each in found[: len(networks)]]
        if prepared.others:
            self._ensemble_score = score_answers(found[-1], labels, classes)[0]
        trial = prepared.trial
        selects = "teacher_agreement" in trial.selection
        return judge, Curve(context, judge, trial.points, prepared.work, selects, trial.averages)

    def _on_lost(self, reason: str) -> None:
        self.restarted = lost(self.prepared.work, reason)

    def _check_time(self) -> None:
        timeout = self.prepared.trial.timeout
        if timeout is not None and time.perf_counter() - self.started > timeout:
            raise TimedOut(f"ran longer than the study's timeout of {timeout:g} s")

    def measured(self, ending: Ending) -> dict[str, Any]:
        """The fields of the record that every trial has whose method began."""
        prepared, context = self.prepared, self.context
        context.meter.peak_memory_mib = peak_memory_mib(context.device) + self._elsewhere_mib()
        spent, unit = context.budget.progress(context.meter)
        facts = [{name: teacher.passport[name] for name in PASSPORT} for teacher in prepared.teachers]
        for each, score in zip(facts, self._scores_there, strict=False):
            each["score"] = score
        values = {"teacher": facts[0], "meter": context.meter.as_record(), "resumed": self.resumed}
        if len(facts) > 1:
            used = [each | use.as_record() for each, use in zip(facts, context.uses, strict=True)]
            values["ensemble"] = {"score": self._ensemble_score, "teachers": used}
        if ending.status == "ok":
            values["stopped_by"] = unit if spent >= 1.0 else "method"
        return values

    def _elsewhere_mib(self) -> float:
        """Memory that other processes of the trial took."""
        return 0.0
