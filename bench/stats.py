"""Statistics over trials: how sure a mean is, where it stands between floor and ceiling, what goes up with what."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

CLEARLY = 0.01  # scores are shares: a kd less than one point above noise is lost in the spread of the seeds


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float | None]:
    """The mean and the half width of its confidence interval, by Student's t over seeds.

    Args:
        values: one score per seed.
        level: confidence, between 0 and 1.

    Returns:
        The mean and the half width, in the unit of the values. One value has no interval: its half width is None.

    Raises:
        ValueError: no values, a value that is not finite, or a level outside (0, 1).

    >>> mean_interval([0.5])
    (0.5, None)
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError("an interval needs at least one value, and finite values only")
    if not 0 < level < 1:
        raise ValueError(f"the level must be between 0 and 1, not {level}")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    quantile = float(stdtrit(len(values) - 1, (1 + level) / 2))
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))


def normalised(score: float, noise: float, kd: float) -> float | None:
    """Where a score stands between ``noise`` (0) and ``kd`` (1); outside both it is below 0 or above 1.

    None where kd is not clearly above noise: by less than ``CLEARLY``, one percentage point, the quotient would
    say more about the seeds than about the method.

    >>> normalised(0.75, noise=0.5, kd=1.0)
    0.5
    """
    gap = kd - noise
    if not gap >= CLEARLY:
        return None
    return (score - noise) / gap


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
        raise ValueError(f"a correlation needs pairs, not {len(x)} values beside {len(y)}")
    if not all(math.isfinite(value) for value in (*x, *y)):
        raise ValueError("a correlation needs finite values only")
    if not 0 < level < 1:
        raise ValueError(f"the level must be between 0 and 1, not {level}")
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
