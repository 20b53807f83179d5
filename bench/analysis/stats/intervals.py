"""How sure a mean over seeds is: Student's t for few seeds (of a share: on log-odds), the BCa bootstrap for many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.analysis.stats.checks import check_finite, check_level

if TYPE_CHECKING:
    import numpy as np

ENOUGH = 30  # seeds for a bootstrap: with fewer its intervals are clearly too narrow
RESAMPLES = 9_999
PAGE_RESAMPLES = 1_999  # where hundreds of intervals are asked for, and printed with three digits


class Interval(NamedTuple):
    """An estimate and its confidence interval, in the unit of the values.

    ``low`` and ``high`` are None where there is no interval; ``how`` is a phrase for the reader that says which
    interval it is, or why there is none.
    """

    value: float
    low: float | None
    high: float | None
    how: str


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
    if not values:
        raise ValueError("an interval needs at least one value, and finite values only")
    check_finite(values, "an interval")
    check_level(level)
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    quantile = float(stdtrit(len(values) - 1, (1 + level) / 2))
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))


def half_widths(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """The half width of ``mean_interval`` in every column at once.

    Args:
        values: finite, (seeds, columns), of two seeds or more.
        level: confidence, between 0 and 1.
    """
    check_level(level)
    from scipy.special import stdtrit

    seeds = len(values)
    return stdtrit(seeds - 1, (1 + level) / 2) * values.std(axis=0, ddof=1) / math.sqrt(seeds)  # type: ignore[no-any-return]


def share_interval(values: Sequence[float], level: float = 0.95, resamples: int = PAGE_RESAMPLES) -> Interval:
    """The mean over seeds of a share with its interval, which is never outside 0 to 1.

    Below ``ENOUGH`` seeds it is Student's t on the scale of log-odds: the standard error of the mean m becomes that of
    its log-odds, divided by m (1 - m). The interval is longer on the side where scores have more room, which is where
    their long tail is. From ``ENOUGH`` seeds on it is BCa. There is none for one seed, and none for equal scores: they
    do not tell how far another seed would be from them.

    Args:
        values: one score per seed, from 0 to 1.
        level: confidence, between 0 and 1.
        resamples: of the bootstrap.

    Raises:
        ValueError: no values, a value that is not finite or not a share, or a level outside (0, 1).

    >>> share_interval([0.5, 0.5, 0.5])
    Interval(value=0.5, low=None, high=None, how='3 equal scores: no interval')
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    check_finite(values, "an interval")
    check_level(level)
    if min(values) < 0 or max(values) > 1:
        raise ValueError(f"a share is between 0 and 1, not {min(values)} or {max(values)}")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Interval(mean, None, None, "one seed: no interval")
    if min(values) == max(values) or not 0 < mean < 1:  # equal to the last bit of their mean
        return Interval(mean, None, None, f"{len(values)} equal scores: no interval")
    if len(values) >= ENOUGH:
        found = bootstrap_interval(values, level=level, resamples=resamples)
        return found._replace(value=mean, how=f"BCa bootstrap over {len(values)} seeds")
    from scipy.special import expit

    _, half = mean_interval(values, level)
    assert half is not None
    place, reach = math.log(mean / (1 - mean)), half / (mean * (1 - mean))
    how = f"Student's t of the log-odds over {len(values)} seeds"
    return Interval(mean, float(expit(place - reach)), float(expit(place + reach)), how)


def seed_interval(values: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """The mean over seeds of any number, such as a difference, with its interval.

    BCa from ``ENOUGH`` seeds on, Student's t below, none for one seed.

    Few seeds cannot show the shape of their distribution, and a bootstrap can only repeat what it has seen: of normal
    scores its 95 % interval holds the mean in about 84 % of all cases with five seeds, 90 % with ten and 92 % with
    thirty. Student's t keeps its promise for any number of seeds if scores are normal; with many that are not, BCa
    follows their skewness.

    Raises:
        ValueError: as ``mean_interval``.
    """
    mean, half = mean_interval(values, level)
    if half is None:
        return Interval(mean, None, None, "one seed: no interval")
    if len(values) < ENOUGH:
        return Interval(mean, mean - half, mean + half, f"Student's t over {len(values)} seeds")
    found = bootstrap_interval(values, level=level, resamples=resamples)
    return found._replace(value=mean, how=f"BCa bootstrap over {len(values)} seeds")


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """The bias-corrected and accelerated bootstrap interval (BCa; Efron 1987, JASA 82), the same in every call.

    Args:
        values: at least two.
        statistic: of the values; it is called with ``axis`` and works along it, as ``numpy.mean``, the default, does.
        level: confidence, between 0 and 1.
        seed: of the resampling.
        resamples: how many.

    Returns:
        The statistic and its interval. Where all resamples agree, as for equal values, the interval has width 0.

    Raises:
        ValueError: fewer than two values, a value that is not finite, or a level outside (0, 1).
    """
    if len(values) < 2:
        raise ValueError("a bootstrap needs at least two values")
    check_finite(values, "a bootstrap")
    check_level(level)
    import numpy as np
    from scipy.stats import bootstrap

    of = statistic or np.mean
    data = np.sort(np.asarray(values, dtype=float))  # the order of the seeds must not matter
    found = float(of(data, axis=0))
    how = f"BCa bootstrap over {len(values)} values"
    if data[0] == data[-1]:  # scipy gives NaN and a warning
        return Interval(found, found, found, how)
    both = bootstrap(
        (data,), of, confidence_level=level, n_resamples=resamples, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(found, float(both.low), float(both.high), how)
