"""Spearman's rank correlation with its interval: what goes up with what."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from bench.analysis.stats.checks import check_finite, check_level


def rank_correlation(
    x: Sequence[float], y: Sequence[float], level: float = 0.95
) -> tuple[float | None, float | None, float | None]:
    """Spearman's rank correlation and its confidence interval.

    Equal values share the mean of their ranks. The interval is Fisher's, with the standard error
    sqrt((1 + rho^2 / 2) / (n - 3)) of Bonett and Wright (2000, Psychometrika 65(1)). It takes the pairs to be
    independent.

    Args:
        x, y: the pairs, in the same order.
        level: confidence, between 0 and 1.

    Returns:
        rho, low and high. rho is None where one side does not vary. There is no interval (None, None) for fewer than
        four pairs, nor for a rho of exactly -1 or 1, where Fisher's would have the width 0 however few the pairs.

    Raises:
        ValueError: unequal lengths, a value that is not finite, or a level outside (0, 1).

    >>> rank_correlation([1, 2, 3], [1, 4, 9])
    (1.0, None, None)
    """
    if len(x) != len(y):
        raise ValueError(f"a correlation needs pairs, not {len(x)} and {len(y)} values")
    check_finite((*x, *y), "a correlation")
    check_level(level)
    a, b = _centred_ranks(x), _centred_ranks(y)  # whole numbers: no rounding decides whether rho is 1
    together = sum(first * second for first, second in zip(a, b, strict=True))
    product = sum(value * value for value in a) * sum(value * value for value in b)
    if product == 0:
        return None, None, None
    rho = together / math.sqrt(product)
    if together * together == product:
        return math.copysign(1.0, rho), None, None
    if len(x) < 4:
        return rho, None, None
    half = statistics.NormalDist().inv_cdf((1 + level) / 2) * math.sqrt((1 + rho * rho / 2) / (len(x) - 3))
    return rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)


def _centred_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value less twice the mean rank: below minus above, as many values as there are."""
    ordered = sorted(values)
    return [bisect_left(ordered, value) + bisect_right(ordered, value) - len(ordered) for value in values]
