"""The score against what was spent: evaluation at evenly spread points of the budget, and the choice of a student."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import Diverged
from bench.harness.curve_files import load_student, save_student
from bench.harness.evaluation import Judge
from bench.harness.isolation.judge_side import JudgeSide
from bench.harness.trial_context import TrialContext
from bench.records.selection import choose


@dataclass(frozen=True)
class Choice:
    """The student that a rule picks: where on the curve, its test score, its agreement with the teacher, and what else
    was measured on the test images."""

    point: int
    score: float
    agreement: float
    details: Mapping[str, float | None]


class Curve:
    """Evaluates a context's student at ``points`` evenly spread shares of the budget, at the start and at the end.

    The average of its weights is scored at the end; at each point where ``averages`` is true.
    """

    def __init__(
        self,
        context: TrialContext | JudgeSide,
        judge: Judge,
        points: int,
        work: Path,
        keep_students: bool,
        averages: bool = False,
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._context = context
        self._judge = judge
        self._points = points
        self._next = 1
        self._evaluated = (-1, -1)
        self._averages = averages
        self._students = work / "points" if keep_students else None
        self._sums: list[str] = []  # hashes of the students' files
        self.weights: dict[str, Tensor] = {}  # the student's, as they were scored last
        self._average: dict[str, Tensor] = {}  # of them, at that time

    @property
    def latest(self) -> float | None:
        return self.rows[-1]["score"] if self.rows else None

    def begin(self) -> None:
        """The untrained student, once."""
        if not self.rows:
            self.evaluate()

    def due(self) -> bool:
        return self._context.progress * self._points >= self._next

    def close(self) -> None:
        """The student at the end, unless it was just evaluated."""
        meter = self._context.meter
        if (meter.steps, meter.optimizer_steps) != self._evaluated:
            self.evaluate()
        elif not self.weights:  # it was, before a stop
            self.weights, self._average = self._context.weights()
        if self.rows[-1]["score_ema"] is None:
            self.rows[-1].update(self._scores_of_average())

    def evaluate(self) -> None:
        context = self._context
        self._next = math.floor(context.progress * self._points + 1e-9) + 1
        self.weights, self._average = context.weights()
        weights = self.weights
        if not all(bool(torch.isfinite(value).all()) for value in weights.values() if value.is_floating_point()):
            raise Diverged("the student's weights became NaN or infinite")
        verdict = self._judge.test(weights)
        meter = context.meter
        self._evaluated = (meter.steps, meter.optimizer_steps)
        self.rows.append(
            {
                "progress": context.progress,
                "seconds": meter.seconds,
                "steps": meter.steps,
                "teacher_images": meter.teacher_images,
                "student_images": meter.student_images,
                "gmacs": meter.gmacs,
                "score": verdict.score,
                "score_ema": None,
                "agreement": verdict.agreement,
                "agreement_ema": None,
                "details": dict(verdict.details),
                "details_ema": {},
                "logs": context.take_logs(),
            }
        )
        if self._averages:
            self.rows[-1].update(self._scores_of_average())
        if self._students is not None:
            self._sums.append(save_student(self._students, len(self.rows) - 1, weights))

    def _scores_of_average(self) -> dict[str, Any]:
        averaged = self._judge.test(self._average)
        return {
            "score_ema": averaged.score,
            "agreement_ema": averaged.agreement,
            "details_ema": dict(averaged.details),
        }

    def select(self, rules: Sequence[str]) -> dict[str, Choice]:
        """What each rule picks; a rule that has nothing to go by is left out."""
        held_out = self._held_out() if "teacher_agreement" in rules else None
        chosen = {}
        for rule in rules:
            point, score = choose(rule, self.rows, held_out)
            if math.isfinite(score):
                row = self.rows[point]
                weights = "_ema" if rule == "ema" else ""
                chosen[rule] = Choice(point, score, row[f"agreement{weights}"], row[f"details{weights}"])
        return chosen

    def _held_out(self) -> list[float] | None:
        """Agreement with the teacher at each point, on the images that were held out from training."""
        sample = self._context.capture.held_out
        images, labels = sample.column("images"), sample.column("labels")
        if images is None or labels is None or self._students is None:
            return None
        values = []
        for index, row in enumerate(self.rows):
            weights = load_student(self._students, index, self._sums[index], str(self._context.device))
            row["held_out_agreement"] = self._judge.agreement_on(weights, images, labels)
            values.append(row["held_out_agreement"])
        return values

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "next": self._next, "evaluated": list(self._evaluated), "students": self._sums}

    def restore(self, state: dict[str, Any]) -> None:
        self.rows, self._next = [dict(row) for row in state["rows"]], int(state["next"])
        steps, optimizer_steps = state["evaluated"]
        self._evaluated = (int(steps), int(optimizer_steps))
        self._sums = [str(written) for written in state.get("students", [""] * len(self.rows))]
