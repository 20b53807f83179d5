"""Statistics over several tasks, with the bootstrap stratified by task: interquartile mean, probability of improvement
and performance profiles, as Agarwal et al. (2021, Deep RL at the Edge of the Statistical Precipice) define them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench.analysis.stats.checks import check_finite, check_level
from bench.analysis.stats.intervals import Interval

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
    """The mean of the middle half of all runs on all tasks, with a percentile interval of the stratified bootstrap.

    A quarter of the runs, rounded down, is left out at either end. Every task's runs are resampled among
    themselves, so that tasks stay as they are and only seeds vary.

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
    drawn = np.concatenate(_resampled(strata, resamples, np.random.default_rng(seed)), axis=1)
    low, high = _percentiles(np.asarray(trim_mean(drawn, 0.25, axis=1)), level)
    return Interval(found, float(low), float(high), _how(strata))


def probability_of_improvement(
    first: Scores, second: Scores, level: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """How likely a run of ``first`` is better than one of ``second`` on a task drawn at random.

    On each task it is the share of all pairs of runs in which ``first`` is better, a tie counting half (Mann and
    Whitney's U over the number of pairs); the mean over tasks is returned, with a percentile interval.

    Args:
        first, second: one score per seed, by task; the same tasks. Seeds are not paired: see ``paired_test``.
        level, seed, resamples: as for ``interquartile_mean``.

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
    random = np.random.default_rng(seed)
    pairs = zip(_resampled(ours, resamples, random), _resampled(theirs, resamples, random), strict=True)
    low, high = _percentiles(np.mean([_better(a, b) for a, b in pairs], axis=0), level)
    return Interval(found, float(low), float(high), _how(ours))


def performance_profile(
    scores: Scores, thresholds: Sequence[float], level: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Profile:
    """For each threshold the share of runs with a score above it, the mean over tasks, with pointwise intervals.

    Args:
        scores: one score per seed, by task.
        thresholds: at least one, in any order.
        level, seed, resamples: as for ``interquartile_mean``.

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
    drawn = _resampled(strata, resamples, np.random.default_rng(seed))
    low, high = _percentiles(np.mean([_above(runs, limits) for runs in drawn], axis=0), level)
    return Profile(points, share, tuple(map(float, low)), tuple(map(float, high)), _how(strata))


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


def _how(strata: Sequence[Array]) -> str:
    runs = sum(len(stratum) for stratum in strata)
    return f"bootstrap stratified by task, {len(strata)} {'task' if len(strata) == 1 else 'tasks'}, {runs} runs"
