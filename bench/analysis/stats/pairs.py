"""Two methods compared seed by seed, and many pairs at once with Holm's correction."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.analysis.stats.checks import check_finite, check_level
from bench.analysis.stats.intervals import Interval, seed_interval

Test = Literal["t", "wilcoxon", "permutation"]
FLIPS = 50_000  # combinations of signs
NAMES: dict[Test, str] = {"t": "paired t-test", "wilcoxon": "Wilcoxon's signed-rank test", "permutation": "sign flips"}


@dataclass(frozen=True)
class Paired:
    """The differences of two methods over the seeds that both have: first minus second.

    ``low``, ``high``, ``effect`` and ``p`` are None where there is nothing to tell them from, and ``how`` says why.
    """

    pairs: int
    difference: float  # the mean, in the unit of the scores
    low: float | None  # the interval of the mean, see ``seed_interval``
    high: float | None
    effect: float | None  # Cohen's d_z: the mean difference over the standard deviation of the differences
    p: float | None  # two-sided
    adjusted: float | None  # p after Holm's correction for all pairs that were compared together; None before it
    how: str


def paired_test(
    first: Mapping[Hashable, float], second: Mapping[Hashable, float], test: Test = "t", level: float | None = 0.95
) -> Paired:
    """Compare two methods over the seeds that both have.

    The same seed gives both the same student to begin with, which is what makes them pairs. The t-test is the one
    for few seeds: sign flips and Wilcoxon's test can give no p below 2 / 2^n, which for five seeds is 0.06.

    Args:
        first, second: score by seed. A seed that only one has is left out.
        test: ``t`` (differences are taken to be normal), ``wilcoxon`` (symmetric), ``permutation`` (symmetric; signs of
            the differences flipped, every combination up to 15 seeds, drawn ones beyond).
        level: confidence of the interval; None: no interval, which for many seeds takes most of the time.

    Raises:
        ValueError: no seed in common, a value that is not finite, an unknown test, or a level outside (0, 1).
    """
    if level is not None:
        check_level(level)
    if test not in NAMES:
        raise ValueError(f"unknown paired test {test!r}; available: {', '.join(NAMES)}")
    seeds = sorted(first.keys() & second.keys(), key=str)
    if not seeds:
        raise ValueError("a paired test needs a common seed")
    check_finite([*(first[seed] for seed in seeds), *(second[seed] for seed in seeds)], "a paired test")
    differences = [first[seed] - second[seed] for seed in seeds]
    if level is None:
        mean, low, high, interval = Interval(statistics.fmean(differences), None, None, "not requested")
    else:
        mean, low, high, interval = seed_interval(differences, level)
    if len(seeds) == 1:
        return Paired(1, mean, None, None, None, None, None, "one common seed: no interval and no test")
    spread = statistics.stdev(differences)
    if _rounding(spread, [first[seed] for seed in seeds]):
        p = 1.0 if _rounding(mean, [first[seed] for seed in seeds]) else None
        how = "no difference on any seed" if p else "the same difference on every seed: no test"
        return Paired(len(seeds), mean, low, high, None, p, None, how)
    how = f"{NAMES[test]} over {len(seeds)} seeds; interval: {interval}"
    return Paired(len(seeds), mean, low, high, mean / spread, _p_value(differences, test), None, how)


def compare_all(
    scores: Mapping[str, Mapping[Hashable, float]],
    against: str | None = None,
    test: Test = "t",
    level: float | None = 0.95,
) -> dict[tuple[str, str], Paired]:
    """Every pair of methods that share a seed, or every method with ``against``; p-values adjusted for all of them.

    Args:
        scores: method -> score by seed.
        against: the method that all others are compared with; None for all pairs.
        test, level: as for ``paired_test``.

    Returns:
        By (first, second), in the order of ``scores``; with ``against``, it is the second of each pair.

    Raises:
        ValueError: as ``paired_test``, or ``against`` is none of the methods.
    """
    if against is not None and against not in scores:
        raise ValueError(f"{against!r} is not one of {', '.join(scores)}")
    names: Iterable[tuple[str, str]] = (
        itertools.combinations(scores, 2)
        if against is None
        else ((name, against) for name in scores if name != against)
    )
    shared = [(a, b) for a, b in names if scores[a].keys() & scores[b].keys()]
    return holm_adjusted({(a, b): paired_test(scores[a], scores[b], test, level) for a, b in shared})


def holm_adjusted(compared: Mapping[tuple[str, str], Paired]) -> dict[tuple[str, str], Paired]:
    """The same comparisons with ``adjusted`` filled in; those without a p-value do not count."""
    tested = {pair: each.p for pair, each in compared.items() if each.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {pair: replace(each, adjusted=adjusted.get(pair)) for pair, each in compared.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979, Scand. J. Statist. 6) of the p-values of many tests, in their order.

    An adjusted value below alpha rejects its hypothesis; the chance of even one wrong rejection is at most alpha.

    Raises:
        ValueError: a value outside [0, 1].

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p-values are between 0 and 1")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _rounding(value: float, scores: Sequence[float]) -> bool:
    """Whether a number is 0 but for the rounding of differences of the scores."""
    return abs(value) <= 8 * math.ulp(max(1.0, *map(abs, scores)))


def _p_value(differences: Sequence[float], test: Test) -> float:
    import numpy as np
    from scipy import stats

    values = np.asarray(differences, dtype=float)
    if test == "t":
        return float(stats.ttest_1samp(values, 0).pvalue)
    if test == "wilcoxon":
        return float(stats.wilcoxon(values).pvalue)
    done = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=FLIPS, rng=0)
    return float(done.pvalue)
