"""What a curve says beyond its end: the mean score over the budget, and what was spent when a score was first seen."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from bench.analysis.stats.checks import check_finite


class Reach(NamedTuple):
    """How many of several curves reach a score, and the median of what those had spent by then (None: none does)."""

    median: float | None
    reached: int
    curves: int


def area_under(spent: Sequence[float], scores: Sequence[float], limit: float) -> float:
    """The mean score while a budget is spent: the area under the curve from 0 to ``limit``, over ``limit``.

    Between two evaluations the curve is a straight line. Before the first it is as high as there, and after the last
    as well: a method that ended early still has its student.

    Args:
        spent: what had been spent at each evaluation, from 0 on and never decreasing.
        scores: the score at each evaluation; at least one.
        limit: the budget in the same unit, more than 0. What was spent beyond it does not count.

    Returns:
        A score: in the unit of ``scores``, between the smallest and the largest of them.

    Raises:
        ValueError: unequal lengths, no evaluation, a value that is not finite, a limit that is not above 0, or spending
            that is negative or decreases.

    >>> area_under([0, 10], [0.0, 1.0], limit=10)
    0.5
    """
    if not spent or len(spent) != len(scores):
        raise ValueError(f"a curve needs a score at each evaluation, not {len(scores)} at {len(spent)}")
    check_finite([*spent, *scores, limit], "the area under a curve")
    if spent[0] < 0 or any(later < earlier for earlier, later in itertools.pairwise(spent)):
        raise ValueError("what has been spent is never negative and never decreases")
    if not limit > 0:
        raise ValueError(f"a mean over a budget needs a budget above 0, not {limit}")
    area, place, height = 0.0, 0.0, scores[0]
    for x, y in zip(spent, scores, strict=True):
        if x > limit:
            there = height + (y - height) * (limit - place) / (x - place)
            return (area + (limit - place) * (height + there) / 2) / limit
        area += (x - place) * (height + y) / 2
        place, height = x, y
    return (area + (limit - place) * height) / limit


def first_reach(scores: Sequence[float], target: float) -> int | None:
    """The place of the first evaluation with at least the score ``target``; None where there is none.

    Nothing is read between evaluations: the answer is a student that was really measured, and late by up to the
    distance of two evaluations.

    >>> first_reach([0.1, 0.6, 0.9], target=0.5)
    1
    """
    return next((place for place, score in enumerate(scores) if score >= target), None)


def median_reach(found: Sequence[float | None]) -> Reach:
    """What several seeds had spent when they reached a score, in one: the median of those that do, and how many.

    Args:
        found: of each seed; None: it does not reach the score.

    >>> median_reach([10, None, 30])
    Reach(median=20.0, reached=2, curves=3)
    """
    there = [value for value in found if value is not None]
    return Reach(float(statistics.median(there)) if there else None, len(there), len(found))
