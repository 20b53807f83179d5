"""From the differences of a number to a verdict.

- ``better`` and ``worse`` need both a corrected p-value below alpha and a mean difference that matters.
- ``same`` needs the whole interval to lie within the smallest effect that matters: that a difference was not found is
  not enough.
- Everything else is ``not enough data``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.analysis.regression.effects import Effect
from bench.analysis.stats import holm, paired_test
from bench.spec.metric_names import Metric

Verdict = Literal["better", "worse", "changed", "same", "not enough data"]
ALPHA = 0.01
LEVEL = 0.95  # of the intervals
SEEDS = 3  # a spread of fewer is hardly one


@dataclass(frozen=True)
class Number:
    """One number on both sides, and what is to be said of it.

    ``difference``, ``low`` and ``high`` are head minus base, ``smallest`` the difference that matters, all in ``unit``.
    ``identical``: the same bits, or the same numbers where bits are not known.
    """

    task: str
    method: str
    metric: str
    unit: str
    higher_is_better: bool | None
    pairs: int
    base: float
    head: float
    difference: float
    low: float | None
    high: float | None
    smallest: float
    p: float | None  # before Holm's correction; None: there is no spread, or there are too few
    adjusted: float | None = None
    verdict: Verdict = "not enough data"
    identical: Literal["", "bits", "numbers"] = ""
    why: str = ""

    @property
    def family(self) -> bool:
        """Whether it is one of the tests that Holm's correction is for."""
        return self.p is not None and not self.identical and not self._equal

    @property
    def _equal(self) -> bool:
        """No difference on any seed: nothing is tested."""
        return self.low == self.high == 0


@dataclass(frozen=True)
class Missing:
    """What could not be compared, and why."""

    task: str
    method: str
    what: str
    why: str


def paired_number(
    names: tuple[str, str, str],
    metric: Metric,
    effect: Effect,
    base: Mapping[Hashable, float],
    head: Mapping[Hashable, float],
    same_bits: bool | None,
) -> Number:
    """A number measured on the same seeds on both sides; undecided.

    Args:
        names: task, method, metric.
        metric: its unit and direction.
        effect: the smallest that matters.
        base, head: value by seed, the same seeds.
        same_bits: whether all students are the same on both sides; None: not known.
    """
    found = paired_test(head, base, level=LEVEL)
    before = statistics.fmean(base.values())
    equal = dict(base) == dict(head) and same_bits is not False
    enough = len(base) >= SEEDS
    few = f"{len(base)} seed{'s' if len(base) > 1 else ''} in common; the test needs {SEEDS}"
    return Number(
        *names,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        pairs=len(base),
        base=before,
        head=statistics.fmean(head.values()),
        difference=found.difference,
        low=found.low if enough else None,
        high=found.high if enough else None,
        smallest=effect.at(before),
        p=found.p if enough else None,
        identical=("bits" if same_bits else "numbers") if equal else "",
        why="" if enough or equal else few,
    )


def ratio_number(
    names: tuple[str, str, str], metric: Metric, effect: Effect, base: Sequence[float], head: Sequence[float]
) -> Number:
    """A positive number measured in independent runs of both sides, by Welch's t-test of the logarithms; undecided."""
    before, after = ([math.log(value) for value in values] for values in (base, head))
    first, second = math.exp(statistics.fmean(before)), math.exp(statistics.fmean(after))
    low, high, p = None, None, None
    enough = min(len(base), len(head)) >= SEEDS
    if enough and len(set(before)) == len(set(after)) == 1:
        low = high = second - first  # no spread to test against
    elif enough:
        from scipy.stats import ttest_ind  # takes a second to import

        found = ttest_ind(after, before, equal_var=False)
        interval = found.confidence_interval(LEVEL)
        low, high, p = first * math.expm1(interval.low), first * math.expm1(interval.high), float(found.pvalue)
    few = f"{len(base)} and {len(head)} steady runs; the test needs {SEEDS} of each"
    return Number(
        *names,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        pairs=min(len(base), len(head)),
        base=first,
        head=second,
        difference=second - first,
        low=low,
        high=high,
        smallest=effect.at(first),
        p=p,
        why="" if enough else few,
    )


def decide(numbers: list[Number], alpha: float) -> list[Number]:
    """The same numbers with corrected p-values and verdicts."""
    family = [number.p for number in numbers if number.p is not None and number.family]
    corrected = iter(holm(family))
    with_p = [replace(number, adjusted=next(corrected)) if number.family else number for number in numbers]
    return [replace(number, **_verdict(number, alpha)) for number in with_p]


def _verdict(number: Number, alpha: float) -> dict[str, Any]:
    if number.identical or number._equal:
        return {"verdict": "same"}
    if number.low is None or number.high is None:
        return {"verdict": "not enough data"}
    edge = number.smallest * (1 - 1e-9)  # a difference of just one point is one in spite of its rounding
    certain = number.low == number.high and number.p is None  # the same difference on every seed
    if abs(number.difference) >= max(edge, 5e-324) and (
        certain or (number.adjusted is not None and number.adjusted < alpha)
    ):
        if number.higher_is_better is None:
            return {"verdict": "changed"}
        return {"verdict": "better" if (number.difference > 0) is number.higher_is_better else "worse"}
    if number.smallest > 0 and -number.smallest <= number.low and number.high <= number.smallest:
        return {"verdict": "same"}
    return {"verdict": "not enough data"}
