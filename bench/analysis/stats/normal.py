"""Where a score stands between the floor and the ceiling of its task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.analysis.stats.checks import check_finite, check_level
from bench.analysis.stats.intervals import Interval

CLEARLY = 0.01  # scores are shares: a kd less than one point above noise is lost in the spread of the seeds


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


def normalised_interval(
    scores: Sequence[float], noise: Sequence[float], kd: Sequence[float], level: float = 0.95
) -> Interval | None:
    """The normalised score with its interval, in which the seeds of noise and kd vary as well.

    Fieller's interval of a quotient: all places at which Student's test of ``score - noise`` against that share of
    ``kd - noise`` does not reject, with the degrees of freedom of Welch and Satterthwaite.

    Args:
        scores, noise, kd: one score per seed; the three are independent samples.
        level: confidence, between 0 and 1.

    Returns:
        None where ``normalised`` is None. Without an interval where one of the three has one seed, where none of them
        varies, and where kd is not above noise beyond chance: every place would then be possible.

    Raises:
        ValueError: no score of one of the three, a value that is not finite, or a level outside (0, 1).
    """
    check_level(level)
    samples = (scores, noise, kd)
    if not all(samples):
        raise ValueError("a normalised score needs a score of the method, of noise and of kd")
    check_finite([value for sample in samples for value in sample], "a normalised score")
    means = [statistics.fmean(sample) for sample in samples]
    place = normalised(*means)
    if place is None:
        return None
    if any(len(sample) == 1 for sample in samples):
        return Interval(place, None, None, "one seed of the method, noise or kd: no interval")
    of_score, of_noise, of_kd = (statistics.variance(sample) / len(sample) for sample in samples)
    parts = (of_score, (1 - place) ** 2 * of_noise, place**2 * of_kd)
    if not sum(parts) > 0:
        return Interval(place, None, None, "equal scores: no interval")
    freedom = sum(parts) ** 2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, samples, strict=True))
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    squared = float(stdtrit(freedom, (1 + level) / 2)) ** 2
    above, gap = means[0] - means[1], means[2] - means[1]
    square = gap**2 - squared * (of_noise + of_kd)
    if square <= 0:
        return Interval(place, None, None, "kd is not above noise beyond chance: no interval")
    middle = (above * gap - squared * of_noise) / square
    half = math.sqrt(max(0.0, middle**2 - (above**2 - squared * (of_score + of_noise)) / square))
    return Interval(place, middle - half, middle + half, "Fieller's interval, with the seeds of noise and kd")
