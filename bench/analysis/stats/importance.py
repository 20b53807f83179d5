"""Functional ANOVA: which share of the variance of a score comes from each option, and from two options together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.analysis.stats.checks import check_finite
from bench.analysis.stats.pairs import holm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TREES = 64
PERMUTATIONS = 4_999
ALPHA = 0.05
PLACES = 40_000  # at most so many predictions are decomposed


@dataclass(frozen=True)
class Importance:
    """Shares of the variance over the options' space, 0 to 1: all main effects, all pairs, and the rest are 1."""

    main: tuple[float, ...]  # of each option alone
    pairs: dict[tuple[int, int], float]  # of two options together, beyond what each does alone
    rest: float  # of three and more options together
    fit: float | None = None  # out-of-bag R² of the forest; None where the grid was decomposed itself


def grid_importance(scores: NDArray[np.float64] | Sequence[Any]) -> Importance | None:
    """The exact decomposition of a full grid, in which every value of an option weighs the same.

    The part of a set of options is the mean over all other options, less the parts of its subsets (Hoeffding 1948;
    Hutter, Hoos and Leyton-Brown 2014, An Efficient Approach for Assessing Hyperparameter Importance).

    Args:
        scores: one axis an option.

    Returns:
        None where the scores do not vary at all.

    Raises:
        ValueError: a score is missing or not finite.

    >>> grid_importance([[1, 2], [3, 4]]).main  # rows differ by 2, columns by 1
    (0.8, 0.2)
    """
    import numpy as np

    values = np.asarray(scores, dtype=float)
    check_finite(values.ravel().tolist(), "a decomposition")
    centred = values - values.mean()
    total = float((centred**2).mean())
    if total <= 1e-24 * max(1.0, float((values**2).mean())):
        return None
    axes = range(values.ndim)

    def mean_over_others(*kept: int) -> NDArray[np.float64]:
        return np.asarray(centred.mean(axis=tuple(axis for axis in axes if axis not in kept)))

    main = tuple(float((mean_over_others(axis) ** 2).mean()) / total for axis in axes)
    pairs = {
        (a, b): max(0.0, float((mean_over_others(a, b) ** 2).mean()) / total - main[a] - main[b])
        for a, b in itertools.combinations(axes, 2)
    }
    return Importance(main, pairs, max(0.0, 1 - sum(main) - sum(pairs.values())))


@dataclass(frozen=True)
class Effects:
    """Whether options have an effect that the seeds do not explain: p-values, 0 to 1."""

    together: float | None  # that any of them matters; None with one seed, where nothing tells cells from chance
    each: tuple[float | None, ...]  # of each option, after Holm's correction for all; None: too few seeds to test


def grid_effects(scores: NDArray[np.float64], permutations: int = PERMUTATIONS) -> Effects | None:
    """Permutation tests on a full grid: scores change places as if options did not matter.

    That options matter at all is told from the variance of the cells' means, where the scores of each seed are
    permuted over all cells. That one option matters is told from the variance of its values' means, where the values of
    each seed are permuted, the same way for all values of the other options: trials with the same seed and value are
    often alike (the same generator), and would seem to confirm each other. Of k values and n seeds no p-value is below
    1 / k!^(n - 1); an option of which it could not be below ``ALPHA`` has none. Drawn permutations, and the one that
    was measured among them, keep the chance of a p-value below alpha at or below alpha.

    Args:
        scores: (seeds, one axis an option); the same seeds in every cell.
        permutations: how many are drawn; always the same.

    Returns:
        None where the scores do not vary at all.

    Raises:
        ValueError: a score is missing or not finite, or there is no axis of an option.
    """
    import numpy as np

    values = np.asarray(scores, dtype=float)
    if values.ndim < 2:
        raise ValueError("effects of options need an axis of seeds and one of each option")
    check_finite(values.ravel().tolist(), "a permutation test")
    if values.max() == values.min():
        return None
    random = np.random.default_rng(0)

    def p_of(kept: tuple[int, ...], permuted: Callable[[], NDArray[np.float64]]) -> float:
        def statistic(of: NDArray[np.float64]) -> float:
            return float(of.mean(axis=tuple(axis for axis in range(of.ndim) if axis not in kept)).var())

        least = statistic(values) * (1 - 1e-9)
        return (1 + sum(statistic(permuted()) >= least for _ in range(permutations))) / (1 + permutations)

    flat = values.reshape(len(values), -1)
    options = tuple(range(1, values.ndim))
    at_all = p_of(options, lambda: random.permuted(flat, axis=1).reshape(values.shape)) if len(values) > 1 else None

    def slices(axis: int) -> NDArray[np.float64]:
        orders = random.permuted(np.tile(np.arange(values.shape[axis]), (len(values), 1)), axis=1)
        return np.stack([of_seed.take(order, axis=axis - 1) for of_seed, order in zip(values, orders, strict=True)])

    each = [p_of((axis,), partial(slices, axis)) for axis in options]
    least = [len(options) / math.factorial(values.shape[axis]) ** (len(values) - 1) for axis in options]
    return Effects(at_all, tuple(p if low <= ALPHA else None for p, low in zip(holm(each), least, strict=True)))


def sample_importance(points: Sequence[Sequence[float]], scores: Sequence[float]) -> Importance | None:
    """An estimate from any cells of the space: a random forest learns the score, and its mean prediction is decomposed.

    Hutter, Hoos and Leyton-Brown decompose each tree over its leaves; here the forest's mean is read on a grid, as
    fine as ``PLACES`` allows. Few cells make the forest smooth: ``fit`` says how much of the variance of cells that a
    tree did not see it explains, and what it does not explain is in no share.

    Args:
        points: (cells, options), each option's number on the scale on which it was drawn; words as whole numbers.
        scores: one per cell.

    Returns:
        None where the scores do not vary at all.

    Raises:
        ValueError: fewer than two cells, not as many scores, or a number that is not finite.
    """
    import numpy as np

    where, values = np.asarray(points, dtype=float), np.asarray(scores, dtype=float)
    if where.ndim != 2 or len(where) < 2 or len(where) != len(values):
        raise ValueError("an importance needs two or more cells, each with a score")
    check_finite([*where.ravel().tolist(), *values.tolist()], "an importance")
    if values.max() == values.min():
        return None
    from sklearn.ensemble import RandomForestRegressor  # takes a second to import

    forest = RandomForestRegressor(TREES, oob_score=True, random_state=0, min_samples_leaf=1)
    forest.fit(where, values)
    most = max(2, int(PLACES ** (1 / where.shape[1]) + 1e-9))
    levels = [_levels(column, most) for column in where.T]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*levels, indexing="ij")], axis=1)
    found = grid_importance(forest.predict(grid).reshape([len(axis) for axis in levels]))
    return found and Importance(found.main, found.pairs, found.rest, float(forest.oob_score_))


def _levels(column: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Where an option is read: at its values if they are few, else in the middle of intervals of one width."""
    import numpy as np

    values = np.unique(column)
    count = min(most, 32)
    if len(values) <= min(count, 8):
        return values
    return np.asarray(values[0] + (np.arange(count) + 0.5) / count * (values[-1] - values[0]))
