"""The smallest effect that matters: by how much a number must differ between two commits before anybody need care.

It is a judgement, not a measurement, and this is the one place where it is made. A number that is not here is not
compared: seconds and memory are the machine's as well, and RDSKD's protocol is too noisy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.errors import UserError, nearest
from bench.records.selection import RULES
from bench.spec.metric_names import METRICS, Metric, metric_of

COUNTS = (
    *("steps", "optimizer_steps", "teacher_images", "teacher_backward", "student_images", "student_backward"),
    *("synthesised_images", "real_images", "gmacs"),
)
FAILURES = Metric("failures", "trials that did not succeed", "cost", "trials", False)
TIME = Metric("time", "a benchmark's fastest round over that of the calibration", "cost", "calibrations", False)

STEP_SECONDS = Metric("step_seconds", "processor time of a step, of two commits in turn", "cost", "s", False)
OTHERS = (FAILURES, TIME, STEP_SECONDS)


@dataclass(frozen=True)
class Effect:
    """``size`` in the metric's unit or, where it is ``relative``, as a share of the earlier value."""

    size: float
    relative: bool = False

    def at(self, value: float) -> float:
        """In the unit, where the earlier value is ``value``."""
        return self.size * abs(value) if self.relative else self.size

    def __str__(self) -> str:
        return f"{100 * self.size:g} %" if self.relative else f"{self.size:g}"


SMALLEST: Mapping[str, Effect] = {
    "accuracy": Effect(0.01),  # one percentage point: of the digits' 355 test images three or four
    "miou": Effect(0.01),
    "pixel_accuracy": Effect(0.01),
    "iou[CLASS]": Effect(0.02),
    "agreement": Effect(0.01),
    "synthetic_agreement": Effect(0.01),
    "class_balance": Effect(0.02),
    "confidence": Effect(0.02),
    "distillation_loss": Effect(0.1, relative=True),
    "distillation_loss_variance": Effect(0.2, relative=True),
    "intra_class_pixel_std": Effect(0.01),
    "nearest_training_distance": Effect(0.01),
    "is[EXTRACTOR]": Effect(0.05, relative=True),
    "is_splits[EXTRACTOR]": Effect(0.05, relative=True),
    "fid[inception]": Effect(0.05, relative=True),
    "fd[EXTRACTOR]": Effect(0.05, relative=True),
    "fid_infinity[inception]": Effect(0.05, relative=True),
    "fd_infinity[EXTRACTOR]": Effect(0.05, relative=True),
    "kid[EXTRACTOR]": Effect(0.1, relative=True),
    "kid_subsets[EXTRACTOR]": Effect(0.1, relative=True),
    "precision[EXTRACTOR]": Effect(0.02),
    "recall[EXTRACTOR]": Effect(0.02),
    "density[EXTRACTOR]": Effect(0.05, relative=True),
    "coverage[EXTRACTOR]": Effect(0.02),
    "lpips[NETWORK]": Effect(0.05, relative=True),
    "lpips_all[NETWORK]": Effect(0.05, relative=True),
    **dict.fromkeys(COUNTS, Effect(0.01, relative=True)),
    FAILURES.name: Effect(1.0),
    TIME.name: Effect(0.1, relative=True),
    STEP_SECONDS.name: Effect(0.1, relative=True),
}


def metric_named(name: str) -> Metric | None:
    """The declaration of a number: a metric's, or one of those that only several trials, or no trial, have."""
    return {each.name: each for each in OTHERS}.get(name) or metric_of(name)


def smallest_effect(name: str, own: Mapping[str, Effect] | None = None) -> Effect | None:
    """The smallest effect that matters of a metric as a record names it; None: it is not compared."""
    metric = metric_named(name)
    if own and name in own:
        return own[name]
    return SMALLEST.get(metric.name) if metric else None


def own_effects(written: Iterable[str]) -> dict[str, Effect]:
    """What a user wrote: ``accuracy=0.005``, or ``fd[teacher]=2%`` for a share of the earlier value.

    Raises:
        UserError: it is not of that form, or no metric is named so.
    """
    found = {}
    for text in written:
        name, sign, size = (part.strip() for part in text.rpartition("="))
        if not sign or not name:
            raise UserError(f"{text!r}: write METRIC=SIZE, such as accuracy=0.005 or fd[teacher]=2%")
        check_name(name)
        try:
            value = float(size.removesuffix("%"))
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"{text!r}: the size must be a number of at least 0, in the metric's unit or in %")
        found[name] = Effect(value / 100, relative=True) if size.endswith("%") else Effect(value)
    return found


def check_name(name: str) -> None:
    """UserError for a name that no number bears."""
    if metric_named(name) is None:
        raise UserError(f"unknown number {name!r}{nearest(name, [*METRICS, *(each.name for each in OTHERS)])}")


def check_rule(name: str | None) -> None:
    """UserError for a name that no selection rule bears; None is the study's first."""
    if name is not None and name not in RULES:
        raise UserError(f"unknown selection rule {name!r}{nearest(name, RULES)}")
