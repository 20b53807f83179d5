"""Statistics over seeds: how sure a mean is, and where it stands between the floor and the ceiling."""

from __future__ import annotations

import math
import statistics
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
