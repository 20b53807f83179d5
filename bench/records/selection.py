"""Which student is scored. Each rule picks one point of a trial's curve; all but ``oracle`` do without test data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

RULES: Mapping[str, str] = {
    "last": "the student at the end of the budget",
    "ema": "the running average of the student's weights at the end of the budget",
    "teacher_agreement": "the student that agrees most often with the teacher on held-out synthetic images",
    "oracle": "the best test score of the whole curve: it uses the test set, and is shown only to state the gap",
}
DATA_FREE = tuple(rule for rule in RULES if rule != "oracle")


def choose(rule: str, curve: Sequence[Mapping[str, Any]], held_out: Sequence[float] | None = None) -> tuple[int, float]:
    """The index of the chosen point and its test score.

    Args:
        rule: one of ``RULES``.
        curve: the evaluated points in order, each with ``score`` and ``score_ema``; not empty. A score is None where
            the weights were not finite.
        held_out: for ``teacher_agreement``: the agreement on held-out synthetic images at each point.

    Returns:
        (index, score); a later point wins a tie, since it has seen more. The score is NaN when there is nothing to
        choose by, or the chosen point has none.
    """
    last = len(curve) - 1
    if rule == "last":
        return last, _number(curve[last]["score"])
    if rule == "ema":
        return last, _number(curve[last]["score_ema"])
    if rule == "oracle":
        values = [_number(point["score"]) for point in curve]
    elif rule == "teacher_agreement":
        values = [float(value) for value in held_out or [math.nan] * len(curve)]
    else:
        raise ValueError(f"no such selection rule: {rule}")
    if len(values) != len(curve):
        raise ValueError(f"{len(values)} values to choose by, but {len(curve)} points")
    usable = [(value, index) for index, value in enumerate(values) if not math.isnan(value)]
    if not usable:
        return last, math.nan
    best = max(usable)[1]
    return best, _number(curve[best]["score"])


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
