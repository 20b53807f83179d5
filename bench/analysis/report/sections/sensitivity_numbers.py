"""How sensitive the scores are, in numbers: how robust a method is, what each option matters, what changed nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev
from typing import Any

from bench.analysis.report.sections.groups import Group, Row
from bench.analysis.report.sections.sensitivity_cells import Grid, Sensitivity, value_of
from bench.analysis.stats import Effects, Importance, grid_effects, grid_importance, sample_importance
from bench.records import short_text
from bench.spec.task import tasks

POINT = 0.01  # scores are shares
NEAR_CHANCE = 0.02  # a student that gives one class to all images is at most that far above guessing in our data sets
FEWEST = 8  # scored cells from which an importance is estimated


@dataclass(frozen=True)
class Robustness:
    """How much a method's score depends on which cell is taken. Scores and spreads are shares."""

    cells: int
    mean: float  # of the cells' mean scores
    spread: float  # standard deviation of the cells' mean scores
    seeds: float | None  # standard deviation over seeds within a cell, all cells pooled; None: one seed
    best: Row
    worst: Row
    near: int  # cells at most one point below the best
    diverged: int  # trials without a score, and those at chance level
    failed: int  # trials without a score
    trials: int
    below_noise: int | None  # cells with a score that is not above that of noise; None without a noise


def robustness(grid: Grid, floor: float | None, chance: float | None) -> Robustness | None:
    """The numbers of one method; None where no cell has a score.

    Args:
        floor: the score of noise, a share.
        chance: the score below which a student knows nothing, see ``chance_level``.
    """
    if not grid.scored:
        return None
    means = [mean_of([row]) for row in grid.scored]
    best, worst = max(means), min(means)
    failed = sum(len(row.records) - len(row.ok) for row in grid.cells)
    return Robustness(
        cells=len(grid.cells),
        mean=fmean(means),
        spread=pstdev(means),
        seeds=_pooled(grid.scored),
        best=grid.scored[means.index(best)],
        worst=grid.scored[means.index(worst)],
        near=sum(mean >= best - POINT - 1e-12 for mean in means),
        diverged=failed + sum(chance is not None and score <= chance + 1e-12 for score in scores_of(grid.scored)),
        failed=failed,
        trials=sum(len(row.records) for row in grid.cells),
        below_noise=None if floor is None else sum(mean <= floor for mean in means),
    )


def chance_level(group: Group) -> float | None:
    """The accuracy up to which a student is taken to have learnt nothing: two points above guessing.

    None for other metrics than accuracy, and for tasks that this installation does not know.
    """
    task = tasks().get(group.key.task)
    if task is None or group.key.metric != "accuracy":
        return None
    return 1 / task.classes + NEAR_CHANCE


def importance_of(grid: Grid, of: Sensitivity) -> Importance | None:
    """The shares of the options in the variance of the cells' means.

    Exact where every combination of the values has a score; else estimated, from ``FEWEST`` cells on. None where there
    are fewer, where there is one option, and where nothing varies.
    """
    if len(grid.options) < 2:
        return None
    if grid.full:
        import numpy as np

        axes = [grid.values(name) for name in grid.options]
        scores = np.zeros([len(axis) for axis in axes])
        for row in grid.cells:
            at = [axis.index(value_of(row, name)) for name, axis in zip(grid.options, axes, strict=True)]
            scores[tuple(at)] = mean_of([row])
        return grid_importance(scores)
    if len(grid.scored) < FEWEST:
        return None
    scales = [of.axis(name) for name in grid.options]
    points = [[axis.scaled(value_of(row, axis.name)) for axis in scales] for row in grid.scored]
    return sample_importance(points, [mean_of([row]) for row in grid.scored])


def effects_of(grid: Grid) -> Effects | None:
    """Whether the options have an effect beyond chance, over the seeds that every cell has.

    None where not every combination of the values has a score, where cells have no seed in common, and where nothing
    varies.
    """
    if len(grid.options) < 2 or not grid.full:
        return None
    import numpy as np

    of_cells = [{record.trial.seed: record.scores[record.headline] for record in row.ok} for row in grid.cells]
    seeds = sorted(set.intersection(*(set(of_cell) for of_cell in of_cells)))
    if not seeds:
        return None
    axes = [grid.values(name) for name in grid.options]
    scores = np.zeros([len(seeds), *(len(axis) for axis in axes)])
    for row, of_cell in zip(grid.cells, of_cells, strict=True):
        at = [axis.index(value_of(row, name)) for name, axis in zip(grid.options, axes, strict=True)]
        place: tuple[Any, ...] = (slice(None), *at)
        scores[place] = [of_cell[seed] for seed in seeds]
    return grid_effects(scores)


def unchanged(rows: Sequence[Row], options: Sequence[str]) -> list[tuple[str, int]]:
    """The options that changed nothing, with the number of comparisons.

    An option changed nothing if all trials that differ in it alone, of which there are some, have the same scores by
    every rule and the same agreement with the teacher, to the last bit.
    """
    found = []
    for option in options:
        alike: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        for row in rows:
            own = row.records[0].trial.options
            rest = short_text({name: value for name, value in own.items() if name != option})
            for record in row.ok:
                measured = (sorted(record.scores.items()), record.agreement)
                alike[f"{rest}, seed {record.trial.seed}"].append((value_of(row, option), measured))
        compared = [those for those in alike.values() if len({value for value, _ in those}) > 1]
        if compared and all(measured == those[0][1] for those in compared for _, measured in those):
            found.append((option, sum(len(those) - 1 for those in compared)))
    return found


def mean_of(rows: Iterable[Row]) -> float:
    """The mean over rows of their mean scores; all need one."""
    return fmean(row.score[0] for row in rows if row.score)


def scores_of(rows: Iterable[Row]) -> list[float]:
    """The score of every trial that has one."""
    return [record.scores[record.headline] for row in rows for record in row.ok]


def _pooled(rows: Iterable[Row]) -> float | None:
    """Root of the mean variance over seeds, each row counting as its degrees of freedom."""
    several = [scores for row in rows if len(scores := scores_of([row])) > 1]
    freedom = sum(len(scores) - 1 for scores in several)
    return math.sqrt(sum((len(each) - 1) * stdev(each) ** 2 for each in several) / freedom) if freedom else None
