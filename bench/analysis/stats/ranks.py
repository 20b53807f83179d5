"""Average ranks over tasks, with Friedman's test, Nemenyi's and the critical difference (Demšar 2006, JMLR 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.stats.checks import check_finite, check_level


@dataclass(frozen=True)
class Ranking:
    """Methods by their average rank over the same tasks; rank 1 is the best, ties share the mean of their ranks."""

    tasks: tuple[str, ...]
    ranks: dict[str, float]  # the best first
    chi_square: float | None  # Friedman's statistic, corrected for ties; None for fewer than three methods
    p: float | None  # Friedman's: whether any two methods differ; None likewise
    critical_difference: float  # Nemenyi's, in ranks, at ``alpha``
    alpha: float
    nemenyi: dict[tuple[str, str], float]  # p of each pair, the better first
    friedman_can_reject: bool  # with some ranks; few tasks and methods allow no p below alpha whatever the scores
    nemenyi_can_reject: bool  # likewise: whether the largest difference of two average ranks exceeds the critical one
    groups: tuple[tuple[str, ...], ...]  # the largest sets in which no two methods differ: the bars of the diagram


def rank_methods(scores: Mapping[str, Mapping[str, float]], alpha: float = 0.05) -> Ranking:
    """Rank methods on every task and compare their average ranks.

    Nemenyi's p-values are those of all pairs at once and need no further correction.

    Args:
        scores: method -> task -> one score, higher is better; a mean over seeds as a rule. Every method has the same
            tasks.
        alpha: the level of the critical difference.

    Raises:
        ValueError: fewer than two methods or tasks, a method that lacks a task, a value that is not finite, or an alpha
            outside (0, 1).
    """
    check_level(1 - alpha)
    methods = sorted(scores)
    tasks = sorted({task for values in scores.values() for task in values})
    if len(methods) < 2 or len(tasks) < 2:
        raise ValueError(f"ranks need at least two methods and two tasks, not {len(methods)} and {len(tasks)}")
    for method in methods:
        if missing := [task for task in tasks if task not in scores[method]]:
            raise ValueError(f"ranks need every method on every task; {method} has none on {', '.join(missing)}")
        check_finite(scores[method].values(), f"the rank of {method}")
    import numpy as np
    from scipy.stats import friedmanchisquare, rankdata

    table = np.array([[scores[method][task] for method in methods] for task in tasks])
    means = rankdata(-table, axis=1).mean(axis=0)
    order = sorted(range(len(methods)), key=lambda index: (means[index], methods[index]))
    ranks = {methods[index]: float(means[index]) for index in order}
    chi_square = p = None
    if len(methods) > 2:
        differ = bool((table != table[:, :1]).any())  # where all are equal, scipy divides by zero
        chi_square, p = map(float, friedmanchisquare(*table.T)) if differ else (0.0, 1.0)
    difference = critical_difference(len(methods), len(tasks), alpha)
    from scipy.stats import chi2

    return Ranking(
        tasks=tuple(tasks),
        ranks=ranks,
        chi_square=chi_square,
        p=p,
        critical_difference=difference,
        alpha=alpha,
        nemenyi=_nemenyi(ranks, len(tasks)),
        friedman_can_reject=float(chi2.sf(len(tasks) * (len(methods) - 1), len(methods) - 1)) < alpha,
        nemenyi_can_reject=difference < len(methods) - 1,
        groups=_groups(ranks, difference),
    )


def critical_difference(methods: int, tasks: int, alpha: float = 0.05) -> float:
    """By how much two average ranks must differ for Nemenyi's test to tell the methods apart.

    q sqrt(k (k + 1) / (6 N)), where q is the quantile of the studentized range over the root of 2.
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - alpha, methods, math.inf)) / math.sqrt(2)
    return quantile * _standard_error(methods, tasks)


def _standard_error(methods: int, tasks: int) -> float:
    return math.sqrt(methods * (methods + 1) / (6 * tasks))


def _nemenyi(ranks: Mapping[str, float], tasks: int) -> dict[tuple[str, str], float]:
    from scipy.stats import studentized_range

    names, error = list(ranks), _standard_error(len(ranks), tasks)
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    distances = [math.sqrt(2) * abs(ranks[first] - ranks[second]) / error for first, second in pairs]
    found = [studentized_range.sf(distance, len(names), math.inf) for distance in distances]
    return {pair: min(1.0, max(0.0, float(p))) for pair, p in zip(pairs, found, strict=True)}


def _groups(ranks: Mapping[str, float], difference: float) -> tuple[tuple[str, ...], ...]:
    """Runs of methods whose ranks lie within the critical difference, of two methods or more, none inside another."""
    names = list(ranks)
    found: list[tuple[str, ...]] = []
    reached = 0
    for start, first in enumerate(names):
        end = _end(names, ranks, ranks[first] + difference)
        if end - start > 1 and end > reached:
            found.append(tuple(names[start:end]))
            reached = end
    return tuple(found)


def _end(names: Sequence[str], ranks: Mapping[str, float], limit: float) -> int:
    return sum(ranks[name] <= limit for name in names)
