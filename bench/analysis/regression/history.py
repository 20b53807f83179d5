"""Every number along the commits of a branch, and the commits at which it stepped to another level.

The steps are found by ruptures' PELT (Killick, Fearnhead and Eckley, 2012) with squared deviations from the mean of a
segment. What is ours is the noise that a step has to rise above: not the scatter from commit to commit, which is zero
as long as the same code gives the same bits, but the part of the scatter over seeds that is redrawn when bits
change.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.analysis.regression.cells import Cell, align, cells_of, conditions_of, labels_of, numbers_of
from bench.analysis.regression.effects import FAILURES, TIME, Effect, metric_named, smallest_effect
from bench.analysis.regression.filing import Filed, read_filed, tracked_commits
from bench.analysis.regression.verdicts import ALPHA
from bench.analysis.stats import paired_test
from bench.errors import UserError
from bench.utils.git import Commit, line_of, resolve

COMMON = 0.05  # of a step's p-value over seeds: above, it is not common to them
Values = Mapping[int, float]  # by seed, or by run of a benchmark
Names = tuple[str, str, str]  # task, method, metric
Conditions = tuple[str, ...]  # what a number was measured with, in words: under others it is another series


@dataclass(frozen=True)
class Step:
    """A change of level; ``untracked``: commits since the one before on the line, which may have made it as well."""

    index: int  # of the first point on the new level
    commit: Commit
    before: float
    after: float
    verdict: Literal["better", "worse", "changed"]
    untracked: tuple[Commit, ...]


@dataclass(frozen=True)
class Series:
    """One number of one cell, oldest commit first."""

    task: str
    method: str
    metric: str
    unit: str
    higher_is_better: bool | None
    commits: tuple[Commit, ...]
    values: tuple[Values, ...]
    steps: tuple[Step, ...]

    @property
    def means(self) -> list[float]:
        return [statistics.fmean(values.values()) for values in self.values]


def timeline(root: Path, tracked: Path, tip: str = "HEAD") -> tuple[list[Commit], list[Filed]]:
    """The first-parent line that leads to ``tip``, and what is filed of its commits, oldest first.

    Raises:
        UserError: nothing is.
    """
    line, folders = line_of(root, resolve(root, tip).sha), tracked_commits(tracked)
    sides = [read_filed(commit.sha, folders[commit.sha], commit) for commit in line if commit.sha in folders]
    if not sides:
        raise UserError(f"no commit of {tip} is stored in {tracked}; `dfkd track STUDY` stores the current one")
    return line, sides


def history(
    line: Sequence[Commit],
    sides: Sequence[Filed],
    own: Mapping[str, Effect] | None = None,
    only: Sequence[str] | None = None,
    alpha: float = ALPHA,
) -> list[Series]:
    """All series of the sides with their steps. Other weights of the teacher make another series, and so do, for an
    image metric, other numbers of images or another extractor.

    Args:
        line: all commits, oldest first.
        sides: those of them that are tracked, in the same order.
        own: smallest effects by metric, in place of the suite's.
        only: the numbers that are wanted; all, if none is named.
        alpha: the chance of any step in a series that has none.
    """
    found: dict[Names, dict[Conditions, list[tuple[Commit, Values]]]] = defaultdict(lambda: defaultdict(list))
    cells = align([cells_of(side.records) for side in sides])
    labels = labels_of({key: cell for side in cells for key, cell in side.items()})
    for side, sorted_cells in zip(sides, cells, strict=True):
        assert side.commit is not None
        for key, cell in sorted_cells.items():
            for (name, conditions), values in _numbers(cell, own).items():
                found[cell.task, labels[key], name][conditions].append((side.commit, values))
        steady = [run for run in side.runs if run.steady]
        for name in sorted({name for run in steady for name in run.ratios}):
            ratios = {index: run.ratios[name] for index, run in enumerate(steady) if name in run.ratios}
            found["speed", name, TIME.name][()].append((side.commit, ratios))
    return [
        _series((task, f"{label}{_told_apart(conditions, by_conditions)}", name), points, line, own or {}, alpha)
        for (task, label, name), by_conditions in sorted(found.items())
        if not only or name in only
        for conditions, points in by_conditions.items()
    ]


def _numbers(cell: Cell, own: Mapping[str, Effect] | None) -> dict[tuple[str, Conditions], dict[int, float]]:
    """The numbers of a cell by seed, with the conditions under which they make one series from commit to commit."""
    numbers: dict[tuple[str, Conditions], dict[int, float]] = defaultdict(dict)
    for seed, record in cell.ok.items():
        teacher = f"teacher {record.teacher.sha256[:8]}" if record.teacher else ""
        for name, value in numbers_of(record, own).items():
            numbers[name, (teacher, conditions_of(record, name))][seed] = value
    ran = [record for record in cell.records.values() if record.status not in ("unsupported", "missing_data")]
    if ran:
        numbers[FAILURES.name, ()][0] = float(sum(record.status != "ok" for record in ran))
    return numbers


def _told_apart(conditions: Conditions, among: Iterable[Conditions]) -> str:
    """In brackets, in what a series was measured otherwise than others of its name."""
    own = [words for words, *rest in zip(conditions, *among, strict=True) if len(set(rest)) > 1]
    return f" ({'; '.join(words or 'no teacher' for words in own)})" if own else ""


def find_steps(values: Sequence[Values], smallest: float, alpha: float = ALPHA, paired: bool = True) -> list[int]:
    """The indices at which a new level begins.

    Equal neighbours are one draw and not several: they are taken together first. A step is kept if it is at least
    ``smallest``.

    Args:
        values: by commit, oldest first; each by seed.
        smallest: the smallest step that matters.
        alpha: the chance of any step where there is none.
        paired: whether the keys are seeds that all commits share; else the noise is taken from commit to commit.

    Raises:
        UserError: ruptures is not installed.
    """
    starts = [0, *(i for i in range(1, len(values)) if dict(values[i]) != dict(values[i - 1]))]
    draws = [values[start] for start in starts]
    if len(draws) < 2:
        return []
    shared = sorted(set.intersection(*(set(draw) for draw in draws))) if paired else []
    table = [[draw[seed] for seed in shared] if shared else list(draw.values()) for draw in draws]
    means = [statistics.fmean(row) for row in table]
    variance, freedom = _paired_noise(table) if len(shared) > 1 else _noise(means)
    cuts = _pelt(means, max(variance * _quantile(alpha / (len(means) - 1), freedom) ** 2, (smallest / 4) ** 2 or 1e-18))
    return [starts[cut] for cut in _that_hold(table, cuts, smallest, paired=len(shared) > 1)]


def _series(
    names: tuple[str, str, str],
    points: Sequence[tuple[Commit, Values]],
    line: Sequence[Commit],
    own: Mapping[str, Effect],
    alpha: float,
) -> Series:
    metric, effect = metric_named(names[2]), smallest_effect(names[2], own)
    assert metric is not None
    assert effect is not None
    commits, values = tuple(commit for commit, _ in points), tuple(each for _, each in points)
    means = [statistics.fmean(each.values()) for each in values]
    smallest = effect.at(statistics.median(means))
    indices = find_steps(values, smallest, alpha, paired=metric is not TIME)
    places = {commit.sha: place for place, commit in enumerate(line)}
    steps = []
    for start, index, end in zip([0, *indices], indices, [*indices[1:], len(means)], strict=False):
        before, after = statistics.fmean(means[start:index]), statistics.fmean(means[index:end])
        between = line[places[commits[index - 1].sha] + 1 : places[commits[index].sha]]
        verdict: Literal["better", "worse", "changed"] = "changed"
        if metric.higher_is_better is not None:
            verdict = "better" if (after > before) is metric.higher_is_better else "worse"
        steps.append(Step(index, commits[index], before, after, verdict, tuple(between)))
    return Series(*names, metric.unit, metric.higher_is_better, commits, values, tuple(steps))


def _paired_noise(table: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The variance of a commit's mean, and its degrees of freedom: what is left of commits x seeds when the level of
    each commit and the offset of each seed are taken away."""
    rows, columns = len(table), len(table[0])
    row_means = [statistics.fmean(row) for row in table]
    column_means = [statistics.fmean(column) for column in zip(*table, strict=True)]
    grand = statistics.fmean(row_means)
    rest = sum((table[i][j] - row_means[i] - column_means[j] + grand) ** 2 for i in range(rows) for j in range(columns))
    freedom = (rows - 1) * (columns - 1)
    return rest / freedom / columns, freedom


def _noise(means: Sequence[float]) -> tuple[float, int]:
    """The same where there are no pairs: half the squared differences of neighbours, a few large ones left out."""
    squares = sorted((b - a) ** 2 / 2 for a, b in itertools.pairwise(means))
    median_of_chi2 = 0.4549
    return statistics.median(squares) / median_of_chi2, max(1, len(squares) // 2)


def _quantile(tail: float, freedom: int) -> float:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, 1 - tail / 2))


def _pelt(means: Sequence[float], penalty: float) -> list[int]:
    try:
        import numpy as np
        import ruptures
    except ImportError:
        raise UserError("change points need ruptures: pip install 'dfkd-bench[history]'") from None
    centred = np.asarray(means) - statistics.fmean(means)
    search = ruptures.Pelt(model="l2", min_size=1, jump=1).fit(centred.reshape(-1, 1))
    return [int(end) for end in search.predict(pen=penalty)[:-1]]


def _that_hold(table: Sequence[Sequence[float]], cuts: Sequence[int], smallest: float, paired: bool) -> list[int]:
    """The cuts without those whose step is too small, or is the doing of a single seed; the weakest goes first, and its
    neighbours are examined again."""
    kept = list(cuts)
    while kept:
        edges = [0, *kept, len(table)]
        levels = [_level(table[a:b], paired) for a, b in itertools.pairwise(edges)]
        sizes = [abs(statistics.fmean(b) - statistics.fmean(a)) for a, b in itertools.pairwise(levels)]
        weakest = min(range(len(kept)), key=lambda place: sizes[place])
        if sizes[weakest] < smallest * (1 - 1e-9) or math.isclose(sizes[weakest], 0, abs_tol=1e-15):
            del kept[weakest]
            continue
        doubts = [_doubt(a, b) if paired else 0.0 for a, b in itertools.pairwise(levels)]
        doubtful = max(range(len(kept)), key=lambda place: doubts[place])
        if doubts[doubtful] < COMMON:
            break
        del kept[doubtful]
    return kept


def _level(rows: Sequence[Sequence[float]], paired: bool) -> list[float]:
    """The mean of each seed over the commits of a segment, or of all values where there are no pairs."""
    if paired:
        return [statistics.fmean(column) for column in zip(*rows, strict=True)]
    return [statistics.fmean(statistics.fmean(row) for row in rows)]


def _doubt(before: Sequence[float], after: Sequence[float]) -> float:
    """The p-value of a step over the seeds; 0 where it is the same on all."""
    first: dict[Hashable, float] = dict(enumerate(after))
    second: dict[Hashable, float] = dict(enumerate(before))
    return paired_test(first, second).p or 0.0
