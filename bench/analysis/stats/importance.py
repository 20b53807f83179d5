"""Functional ANOVA: which share of the variance of a score comes from each option, and from two options together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.analysis.stats.checks import check_finite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TREES = 64
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
