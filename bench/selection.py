"""Which student is scored. Each rule picks one point of a trial's curve; all but ``oracle`` do without test data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

RULES: Mapping[str, str] = {
    "last": "the student when the budget is used up",
    "ema": "the running average of the student's weights when the budget is used up",
    "teacher_agreement": "the student that agrees most often with the teacher on held-out synthetic images",
    "oracle": "the best test score of the whole curve: it peeks at the test set, and is shown only to state the gap",
}
DATA_FREE = tuple(rule for rule in RULES if rule != "oracle")


def choose(rule: str, curve: Sequence[Mapping[str, Any]], held_out: Sequence[float] | None = None) -> tuple[int, float]:
    """The index of the chosen point and its test score.

    Args:
        rule: one of ``RULES``.
        curve: the evaluated points in order, each with ``score`` and ``score_ema``; not empty.
        held_out: for ``teacher_agreement``: the agreement on held-out synthetic images at each point.

    Returns:
        (index, score); a later point wins a tie, since it has seen more.
    """
    last = len(curve) - 1
    if rule == "last":
        return last, float(curve[last]["score"])
    if rule == "ema":
        return last, float(curve[last]["score_ema"])
    if rule == "oracle":
        values = [float(point["score"]) for point in curve]
    elif rule == "teacher_agreement":
        if held_out is None:
            return last, math.nan
        values = list(held_out)
    else:
        raise ValueError(f"no such selection rule: {rule}")
    best = max(range(len(values)), key=lambda index: (values[index], index))
    return best, float(curve[best]["score"])
