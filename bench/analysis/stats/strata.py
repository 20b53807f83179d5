"""Statistics over several tasks: interquartile mean, probability of improvement and performance profiles, as Agarwal et
al. (2021, Deep RL at the Edge of the Statistical Precipice) define them.

Their percentile bootstrap holds 0 to 87 % of the time at two and three seeds where it says 95 %. The intervals here
hold at any number of seeds: the simulation is in docs/reports.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench.analysis.stats.checks import check_finite, check_level
from bench.analysis.stats.intervals import ENOUGH, Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RESAMPLES = 2_000

Scores = Mapping[str, Sequence[float]]  # one score per seed, by task; comparable over tasks, so normalised as a rule


class Profile(NamedTuple):
    """A performance profile: for each threshold the share of runs above it, with a pointwise interval or none."""

    thresholds: tuple[float, ...]
    share: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    how: str


def interquartile_mean(scores: Scores, level: float = 0.95, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of the middle half of all runs on all tasks, with its interval. Tasks stay as they are, seeds vary.

    A quarter of the runs, rounded down, is left out at either end. Where every task has ``ENOUGH`` seeds, the interval
    is the percentiles of the bootstrap stratified by task. With fewer it is Student's t, on the spread of the runs
    within their tasks as if none were left out, over the share that is kept: at least as wide as the asymptotic one of
    a trimmed mean, whose winsorized spread is far too small when a task has two or three runs. Degrees of freedom are
    Welch and Satterthwaite's. There is no interval where each task's runs are equal.

    Args:
        scores: one score per seed, by task. A task with more seeds than the others has more weight.
        level: confidence, between 0 and 1.
        seed: of the resampling.
        resamples: how many.

    Raises:
        ValueError: no task, a task without a run, a value that is not finite, or a level outside (0, 1).
    """
    strata = _strata(scores, level)
    import numpy as np
    from scipy.stats import trim_mean

    found = float(trim_mean(np.concatenate(strata), 0.25))
    if (reason := _one_seed(scores)) is not None:
        return Interval(found, None, None, reason)
    if min(map(len, strata)) < ENOUGH:
        half = _student_half(strata, level)
        if half is None:
            return Interval(found, None, None, "equal scores on every task: no interval")
        return Interval(found, found - half, found + half, f"Student's t within tasks, {_counted(strata)}")
    drawn = np.concatenate(_resampled(strata, resamples, np.random.default_rng(seed)), axis=1)
    low, high = _percentiles(np.asarray(trim_mean(drawn, 0.25, axis=1)), level)
    return Interval(found, float(low), float(high), _how(strata))


def probability_of_improvement(first: Scores, second: Scores, level: float = 0.95) -> Interval:
    """How likely a run of ``first`` is better than one of ``second`` on a task drawn at random.

    On each task it is the share of all pairs of runs in which ``first`` is better, a tie counting half (Mann and
    Whitney's U over the number of pairs); the mean over tasks is returned. Its interval is the score interval of
    Newcombe (2006, Statist. Med. 25, method 5): all probabilities from which the found one is not further than chance
    allows, with the variance of Hanley and McNeil. It is inside 0 to 1 and has a width even where every run of one is
    better. The variance at the mean over tasks is at least the mean variance, so tasks that differ make it wide.

    Args:
        first, second: one score per seed, by task; the same tasks. Seeds are not paired: see ``paired_test``.
        level: as for ``interquartile_mean``.

    Raises:
        ValueError: as ``interquartile_mean``, or other tasks in one than in the other.
    """
    if set(first) != set(second):
        raise ValueError(f"both need the same tasks; only one has {', '.join(sorted(set(first) ^ set(second)))}")
    ours, theirs = _strata(first, level), _strata(second, level)
    import numpy as np

    found = float(np.mean([_better(a[None], b[None]) for a, b in zip(ours, theirs, strict=True)]))
    if (reason := _one_seed(first) or _one_seed(second)) is not None:
        return Interval(found, None, None, reason)
    sizes = [(len(a), len(b)) for a, b in zip(ours, theirs, strict=True)]

    def variance(place: float) -> float:
        return sum(_of_pairs(place, *size) for size in sizes) / len(sizes) ** 2

    low, high = _score_interval(found, variance, level)
    return Interval(found, low, high, f"score interval, {_counted(ours)}")


def performance_profile(scores: Scores, thresholds: Sequence[float], level: float = 0.95) -> Profile:
    """For each threshold the share of runs with a score above it, the mean over tasks, with pointwise intervals.

    They are Wilson's, with the variance at the mean over tasks, which is at least the mean variance.

    Args:
        scores: one score per seed, by task.
        thresholds: at least one, in any order.
        level: as for ``interquartile_mean``.

    Raises:
        ValueError: as ``interquartile_mean``, or no threshold.
    """
    strata = _strata(scores, level)
    if not thresholds:
        raise ValueError("a profile needs at least one threshold")
    check_finite(thresholds, "a profile")
    import numpy as np

    limits = np.asarray(thresholds, dtype=float)
    found = np.mean([_above(runs[None], limits)[0] for runs in strata], axis=0)
    points = tuple(float(value) for value in limits)
    share = tuple(float(value) for value in found)
    if (reason := _one_seed(scores)) is not None:
        return Profile(points, share, None, None, reason)
    runs = len(strata) ** 2 / sum(
        1 / len(stratum) for stratum in strata
    )  # tasks weigh the same: a mean of their shares
    low, high = _wilson(np.asarray(found), runs, level)
    return Profile(points, share, tuple(map(float, low)), tuple(map(float, high)), f"Wilson's, {_counted(strata)}")


def _strata(scores: Scores, level: float) -> list[Array]:
    """Each task's runs, in an order that depends on neither the tasks' nor the seeds'."""
    check_level(level)
    if not scores or not all(len(runs) for runs in scores.values()):
        raise ValueError("at least one task, and at least one run of each, is needed")
    for task, runs in scores.items():
        check_finite(runs, f"the statistic over tasks, on {task},")
    import numpy as np

    return [np.sort(np.asarray(scores[task], dtype=float)) for task in sorted(scores)]


def _one_seed(scores: Scores) -> str | None:
    """Why there is no interval: a task with one run cannot vary, and an interval without it would be too narrow."""
    alone = sorted(task for task, runs in scores.items() if len(runs) == 1)
    return f"one seed on {', '.join(alone)}: no interval" if alone else None


def _resampled(strata: Sequence[Array], resamples: int, random: np.random.Generator) -> list[Array]:
    """For each stratum (resamples, runs): its runs drawn with replacement."""
    return [runs[random.integers(len(runs), size=(resamples, len(runs)))] for runs in strata]


def _better(a: Array, b: Array) -> Array:
    """(resamples,): the share of pairs of a row of ``a`` and one of ``b`` in which ``a`` is above, ties half."""
    import numpy as np

    return np.asarray(
        [
            (np.searchsorted(y, x, "left") + np.searchsorted(y, x, "right")).mean() / (2 * len(y))
            for x, y in _sorted(a, b)
        ]
    )


def _sorted(a: Array, b: Array) -> zip[tuple[Array, Array]]:
    import numpy as np

    return zip(a, np.sort(b, axis=1), strict=True)


def _above(runs: Array, limits: Array) -> Array:
    """(resamples, thresholds): the share of each row above each threshold."""
    import numpy as np

    return np.stack([(runs > limit).mean(axis=1) for limit in limits], axis=1)


def _percentiles(drawn: Array, level: float) -> tuple[Array, Array]:
    import numpy as np

    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _student_half(strata: Sequence[Array], level: float) -> float | None:
    """Half the width of the interquartile mean's interval; None where no task's runs vary."""
    from scipy.special import stdtrit

    runs = sum(map(len, strata))
    kept = (runs - 2 * (runs // 4)) / runs
    parts = [(len(each) / runs) ** 2 * float(each.var(ddof=1)) / len(each) for each in strata]
    if not sum(parts) > 0:
        return None
    freedom = sum(parts) ** 2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, strata, strict=True))
    return float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(sum(parts)) / kept


def _of_pairs(place: float, ours: int, theirs: int) -> float:
    """Hanley and McNeil's variance of the share of pairs where its expectation is ``place``, as Newcombe uses it."""
    more = (ours + theirs) / 2 - 1
    shape = 1 + more * (1 - place) / (2 - place) + more * place / (1 + place)
    return place * (1 - place) * shape / (ours * theirs)


def _score_interval(found: float, variance: Callable[[float], float], level: float) -> tuple[float, float]:
    """The places on both sides of ``found`` at which it is just not further away than chance allows."""
    from scipy.optimize import brentq
    from scipy.special import ndtri

    quantile = float(ndtri((1 + level) / 2))

    def beyond(place: float) -> float:
        return abs(found - place) - quantile * math.sqrt(variance(place))

    low = (
        0.0 if found <= 0 else float(brentq(beyond, 0.0, found)) if found < 1 else float(brentq(beyond, 0.0, 1 - 1e-9))
    )
    high = 1.0 if found >= 1 else float(brentq(beyond, found, 1.0)) if found > 0 else float(brentq(beyond, 1e-9, 1.0))
    return low, high


def _wilson(share: Array, runs: float, level: float) -> tuple[Array, Array]:
    """Wilson's interval of shares of ``runs``, which need not be a whole number."""
    import numpy as np
    from scipy.special import ndtri

    squared = float(ndtri((1 + level) / 2)) ** 2 / runs
    middle = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def _counted(strata: Sequence[Array]) -> str:
    runs = sum(len(stratum) for stratum in strata)
    return f"{len(strata)} {'task' if len(strata) == 1 else 'tasks'}, {runs} runs"


def _how(strata: Sequence[Array]) -> str:
    return f"bootstrap stratified by task, {_counted(strata)}"
