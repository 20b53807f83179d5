"""Every number along the commits of a branch, and the commits at which it stepped to another level.

The steps are found by ruptures' PELT (Killick, Fearnhead and Eckley, 2012) with squared deviations from the mean of a
segment. What is ours is the noise that a step has to rise above: not the scatter from commit to commit, which is zero
as long as the same code gives the same bits, but the part of the scatter over seeds that is redrawn when bits change.
Where there are enough commits to see that they scatter by more than their seeds tell (another machine for each), that
scatter is the noise.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from bench.analysis.regression.cells import (
    Cell,
    OpenQuestion,
    Renamed,
    align,
    cells_of,
    changed_options,
    conditions_of,
    labels_of,
    numbers_of,
    questions_of,
)
from bench.analysis.regression.effects import FAILURES, TIME, Effect, metric_named, smallest_effect
from bench.analysis.regression.filing import Filed, read_filed, tracked_commits
from bench.analysis.regression.verdicts import ALPHA, LEVEL
from bench.analysis.stats import paired_test
from bench.errors import UserError
from bench.records.comparable import teacher_weights
from bench.utils.git import Commit, line_of, resolve

COMMON = 0.05  # of a step's p-value over seeds: above, it is not common to them
DRAWS = 12  # different neighbours, from which on their own scatter says something
TOGETHER = 3  # series that make one event if at least SHARE of their kind step at one commit, all up or all down
SHARE = 0.75
UNLIKE = 0.001  # p-value of Fisher's F below which a commit's seeds differ by more than those of the others
KEPT = 0.8  # of the squared differences of neighbours: the largest may be steps
Values = Mapping[int, float]  # by seed, or by run of a benchmark
Names = tuple[str, str, str]  # task, method, metric
Conditions = tuple[str, ...]  # what a number was measured with, in words: under others it is another series


Way = Literal["better", "worse", "changed"]


@dataclass(frozen=True)
class Step:
    """A change of level, with the interval of its size.

    ``untracked``: commits since the one before on the line, which may have made it as well. ``options``: defaults that
    changed with it. ``together``: it is part of an event of several series.
    """

    index: int  # of the first point on the new level
    last: Commit  # on the old level
    commit: Commit  # on the new level
    before: float
    after: float
    low: float
    high: float
    commits: tuple[int, int]  # tracked ones on the old and on the new level
    verdict: Way
    untracked: tuple[Commit, ...]
    options: str = ""
    together: bool = False


@dataclass(frozen=True)
class Drift:
    """A change that is better described by a straight line than by steps; ``before`` and ``after`` are its ends."""

    first: Commit
    last: Commit
    before: float
    after: float
    low: float  # of the whole change
    high: float
    verdict: Way


@dataclass(frozen=True)
class Series:
    """One number of one cell, oldest commit first.

    ``levels``: the mean over seeds at each commit; where seeds are missing, corrected for those that are. ``changes``:
    the commits at which options changed that the study leaves to their defaults, in words.
    """

    task: str
    method: str
    metric: str
    unit: str
    higher_is_better: bool | None
    commits: tuple[Commit, ...]
    values: tuple[Values, ...]
    levels: tuple[float, ...]
    steps: tuple[Step, ...]
    drift: Drift | None = None
    changes: tuple[tuple[Commit, str], ...] = ()

    @property
    def means(self) -> list[float]:
        return list(self.levels)

    @property
    def own_steps(self) -> list[Step]:
        return [step for step in self.steps if not step.together]


@dataclass(frozen=True)
class Event:
    """Nearly all series of a number stepped at one commit: shared code, another library or another machine."""

    task: str
    metric: str
    commit: Commit
    last: Commit
    methods: tuple[str, ...]
    sizes: tuple[float, ...]
    unit: str
    verdict: Way
    why: str  # which libraries or processors changed as well; empty if none is known to have


class History(NamedTuple):
    """All series of a branch, what they did together, and what the reader is asked."""

    series: list[Series]
    events: list[Event]
    questions: list[OpenQuestion]


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
    renamed: Renamed | None = None,
    rule: str | None = None,
) -> History:
    """All series of the sides with their steps. Other weights of the teacher make another series, and so do, for an
    image metric, other numbers of images or another extractor; another default of an option does not.

    Args:
        line: all commits, oldest first.
        sides: those of them that are tracked, in the same order.
        own: smallest effects by metric, in place of the suite's.
        only: the numbers that are wanted; all, if none is named.
        alpha: the chance of any step in a series that has none.
        renamed: older names of methods and options, and their names now.
        rule: the selection rule of the scores; by default the study's first.
    """
    found: dict[Names, dict[Conditions, list[tuple[Commit, Values]]]] = defaultdict(lambda: defaultdict(list))
    changes: dict[tuple[str, str], list[tuple[Commit, str]]] = defaultdict(list)
    cells = align([cells_of(side.records, renamed) for side in sides])
    labels = labels_of({key: cell for side in cells for key, cell in side.items()})
    latest: dict[str, Cell] = {}
    for side, sorted_cells in zip(sides, cells, strict=True):
        assert side.commit is not None
        for key, cell in sorted_cells.items():
            for (name, conditions), values in _numbers(cell, own, rule).items():
                found[cell.task, labels[key], name][conditions].append((side.commit, values))
            if key in latest and (words := changed_options(latest[key], cell)):
                changes[cell.task, labels[key]].append((side.commit, words))
            latest[key] = cell
        steady = [run for run in side.runs if run.steady]
        for name in sorted({name for run in steady for name in run.ratios}):
            ratios = {index: run.ratios[name] for index, run in enumerate(steady) if name in run.ratios}
            found["speed", name, TIME.name][()].append((side.commit, ratios))
    series = [
        _series(
            (task, f"{label}{_told_apart(conditions, by_conditions)}", name),
            points,
            line,
            own or {},
            alpha,
            changes[task, label] if name != TIME.name else [],
        )
        for (task, label, name), by_conditions in sorted(found.items())
        if not only or name in only
        for conditions, points in by_conditions.items()
    ]
    events = _events(series, sides)
    apart = {(event.task, event.metric, event.commit.sha) for event in events}
    return History([_marked(each, apart) for each in series], events, _questions(cells))


def _questions(cells: Sequence[Mapping[str, Cell]]) -> list[OpenQuestion]:
    """What may have been renamed: cells that end for good, and cells that begin where they do."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for place, side in enumerate(cells):
        for key in side:
            first.setdefault(key, place)
            last[key] = place
    found: list[OpenQuestion] = []
    for place, (earlier, later) in enumerate(itertools.pairwise(cells)):
        before = {key: cell for key, cell in earlier.items() if key in later or last[key] == place}
        after = {key: cell for key, cell in later.items() if key in earlier or first[key] == place + 1}
        found += questions_of(before, after)
    return list(dict.fromkeys(found))


def _events(series: Sequence[Series], sides: Sequence[Filed]) -> list[Event]:
    """Steps of nearly all series of a number at one commit, all up or all down."""
    kinds: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for each in series:
        kinds[each.task, each.metric].append(each)
    known = {side.commit.sha: side for side in sides if side.commit is not None}
    found = []
    for (task, metric), group in kinds.items():
        at: dict[tuple[str, bool], list[tuple[Series, Step]]] = defaultdict(list)
        for each in group:
            for step in each.steps:
                at[step.commit.sha, step.after > step.before].append((each, step))
        for (sha, _), members in at.items():
            there = [each for each in group if any(commit.sha == sha for commit in each.commits[1:])]
            if len(members) >= max(TOGETHER, SHARE * len(there)):
                step = members[0][1]
                why = _conditions_changed(known[step.last.sha], known[sha])
                names = tuple(each.method for each, _ in members)
                sizes = tuple(step.after - step.before for _, step in members)
                found.append(
                    Event(task, metric, step.commit, step.last, names, sizes, group[0].unit, step.verdict, why)
                )
    return found


def _conditions_changed(before: Filed, after: Filed) -> str:
    """Which libraries and processors differ between two commits' records, in words."""
    words = []
    for name, what in (("versions", ""), ("device", "processor "), ("python", "Python ")):
        a, b = ([record.provenance.get(name) for record in side.records] for side in (before, after))
        if not a or not b or a[-1] == b[-1]:
            continue
        if isinstance(a[-1], Mapping) and isinstance(b[-1], Mapping):
            both = sorted({*a[-1], *b[-1]})
            differing = [each for each in both if a[-1].get(each) != b[-1].get(each)]
            words += [f"{each} {a[-1].get(each, 'none')} -> {b[-1].get(each, 'none')}" for each in differing]
        else:
            words.append(f"{what}{a[-1]} -> {b[-1]}")
    return ", ".join(words)


def _marked(series: Series, events: set[tuple[str, str, str]]) -> Series:
    """The series with those of its steps marked that are part of an event."""
    steps = [replace(step, together=(series.task, series.metric, step.commit.sha) in events) for step in series.steps]
    return replace(series, steps=tuple(steps))


def _numbers(
    cell: Cell, own: Mapping[str, Effect] | None, rule: str | None
) -> dict[tuple[str, Conditions], dict[int, float]]:
    """The numbers of a cell by seed, with the conditions under which they make one series from commit to commit."""
    numbers: dict[tuple[str, Conditions], dict[int, float]] = defaultdict(dict)
    for seed, record in cell.ok.items():
        teacher = f"teacher {teacher_weights(record)[:8]}" if record.teacher else ""
        for name, value in numbers_of(record, own, rule).items():
            numbers[name, (teacher, conditions_of(record, name))][seed] = value
    ran = [record for record in cell.records.values() if record.status not in ("unsupported", "missing_data")]
    if ran:
        numbers[FAILURES.name, ()][0] = float(sum(record.status != "ok" for record in ran))
    return numbers


def _told_apart(conditions: Conditions, among: Iterable[Conditions]) -> str:
    """In brackets, in what a series was measured otherwise than others of its name."""
    own = [words for words, *rest in zip(conditions, *among, strict=True) if len(set(rest)) > 1]
    return f" ({'; '.join(words or 'no teacher' for words in own)})" if own else ""


class _Fit(NamedTuple):
    """Levels of the draws of a series, and the noise that their differences are seen against."""

    starts: list[int]  # the first commit of each draw
    draws: list[dict[int, float]]
    levels: list[float]
    weights: list[int]  # seeds behind each level
    variance: float  # of a level with one seed behind it
    freedom: int
    paired: bool


def find_steps(values: Sequence[Values], smallest: float, alpha: float = ALPHA, paired: bool = True) -> list[int]:
    """The indices at which a new level begins.

    Equal neighbours are one draw and not several: they are taken together first. A step is kept if it is at least
    ``smallest``. Seeds that are missing at a commit weaken that commit.

    Args:
        values: by commit, oldest first; each by seed.
        smallest: the smallest step that matters.
        alpha: the chance of any step where there is none.
        paired: whether the keys are seeds that commits share; else the noise is taken from commit to commit.

    Raises:
        UserError: ruptures is not installed.
    """
    fit = _fit(values, paired)
    return [] if fit is None else [fit.starts[cut] for cut in _cuts(fit, smallest, alpha)]


def _cuts(fit: _Fit, smallest: float, alpha: float) -> list[int]:
    return _that_hold(fit, _pelt(fit, _penalty(fit, smallest, alpha)), smallest)


def _penalty(fit: _Fit, smallest: float, alpha: float) -> float:
    """What a step must lower the sum of squares by."""
    usual = statistics.median(fit.weights)
    quantile = _quantile(alpha / (len(fit.levels) - 1), fit.freedom)
    return max(fit.variance * quantile**2, usual * (smallest / 4) ** 2 or 1e-18)


def _series(
    names: tuple[str, str, str],
    points: Sequence[tuple[Commit, Values]],
    line: Sequence[Commit],
    own: Mapping[str, Effect],
    alpha: float,
    changes: Sequence[tuple[Commit, str]],
) -> Series:
    metric, effect = metric_named(names[2]), smallest_effect(names[2], own)
    assert metric is not None
    assert effect is not None
    better = None if metric.kind == "cost" and metric not in (TIME, FAILURES) else metric.higher_is_better
    commits, values = tuple(commit for commit, _ in points), tuple(each for _, each in points)
    words = {commit.sha: text for commit, text in changes}
    fit = _fit(values, paired=metric is not TIME)
    means = [statistics.fmean(each.values()) for each in values]
    smallest = effect.at(statistics.median(means))
    steps: list[Step] = []
    drift = None
    if fit is not None:
        for start, end, level in zip(fit.starts, [*fit.starts[1:], len(values)], fit.levels, strict=True):
            means[start:end] = [level] * (end - start)
        cuts = _cuts(fit, smallest, alpha)
        drift = _drift(fit, cuts, smallest, alpha, commits, better)
        edges = [0, *cuts, len(fit.levels)]
        places = {commit.sha: place for place, commit in enumerate(line)}
        for start, cut, end in zip(edges, edges[1:], edges[2:], strict=False):
            if drift is not None:
                break
            before, after, half = _sides_of(fit, start, cut, end)
            index = fit.starts[cut]
            counts = (index - fit.starts[start], (fit.starts[end] if end < len(fit.starts) else len(values)) - index)
            last, commit = commits[index - 1], commits[index]
            between = tuple(line[places[last.sha] + 1 : places[commit.sha]])
            size = after - before
            way = _way(size, better)
            options = words.get(commit.sha, "")
            limits = (size - half, size + half)
            steps.append(Step(index, last, commit, before, after, *limits, counts, way, between, options))
    kept = tuple((commit, text) for commit, text in changes if commit in commits)
    return Series(*names, metric.unit, better, commits, values, tuple(means), tuple(steps), drift, kept)


def _way(size: float, higher_is_better: bool | None) -> Way:
    if higher_is_better is None:
        return "changed"
    return "better" if (size > 0) is higher_is_better else "worse"


def _sides_of(fit: _Fit, start: int, cut: int, end: int) -> tuple[float, float, float]:
    """The levels before and after a cut, and half the width of the interval of their difference."""
    before, after = _mean(fit, start, cut), _mean(fit, cut, end)
    error = math.sqrt(fit.variance * (1 / sum(fit.weights[start:cut]) + 1 / sum(fit.weights[cut:end])))
    return before, after, _quantile(1 - LEVEL, fit.freedom) * error


def _mean(fit: _Fit, start: int, end: int) -> float:
    weights = fit.weights[start:end]
    return math.fsum(w * x for w, x in zip(weights, fit.levels[start:end], strict=True)) / sum(weights)


def _drift(
    fit: _Fit, cuts: Sequence[int], smallest: float, alpha: float, commits: Sequence[Commit], better: bool | None
) -> Drift | None:
    """A straight line, where it describes the levels better than the steps and than a constant, at the same price."""
    import numpy as np

    count = len(fit.levels)
    if count < DRAWS:
        return None
    price = _penalty(fit, smallest, alpha)
    places, levels, weights = np.arange(count), np.asarray(fit.levels), np.asarray(fit.weights, dtype=float)
    slope, height = np.polyfit(places, levels, 1, w=np.sqrt(weights))
    by_line = float((weights * (levels - height - slope * places) ** 2).sum()) + price
    edges = [0, *cuts, count]
    by_steps = price * len(cuts)
    for start, end in itertools.pairwise(edges):
        by_steps += float((weights[start:end] * (levels[start:end] - _mean(fit, start, end)) ** 2).sum())
    change = float(slope) * (count - 1)
    if by_line >= by_steps or abs(change) < smallest * (1 - 1e-9):
        return None
    middle = float((weights * places).sum() / weights.sum())
    error = (count - 1) * math.sqrt(fit.variance / float((weights * (places - middle) ** 2).sum()))
    half = _quantile(1 - LEVEL, fit.freedom) * error
    ends = float(height), float(height) + change
    return Drift(commits[0], commits[-1], *ends, change - half, change + half, _way(change, better))


def _fit(values: Sequence[Values], paired: bool) -> _Fit | None:
    """Draws, levels and noise of a series; None for a single draw."""
    starts, draws = [0], [dict(values[0])]
    for place in range(1, len(values)):
        shared = draws[-1].keys() & values[place].keys()
        if shared and all(draws[-1][key] == values[place][key] for key in shared):
            draws[-1] |= values[place]
        else:
            starts.append(place)
            draws.append(dict(values[place]))
    if len(draws) < 2:
        return None
    weights = [len(draw) for draw in draws]
    means = [statistics.fmean(draw.values()) for draw in draws]
    fitted = _additive(draws) if paired and min(weights) > 0 and max(weights) > 1 else None
    if fitted is None:
        variance, freedom = _noise(means)
        return _Fit(starts, draws, means, [1] * len(draws), variance, freedom, False)
    levels, rests = fitted
    noisy = _noisier(rests)
    weights = [1 if place in noisy else weight for place, weight in enumerate(weights)]
    calm = [(rest, free) for place, (rest, free) in enumerate(rests) if place not in noisy]
    freedom = max(1, round(sum(free for _, free in calm)))
    variance = math.fsum(rest for rest, _ in calm) / freedom
    if len(draws) >= DRAWS:
        between, fewer = _noise(levels)
        usual = statistics.median(weights)
        if between * usual > variance:
            variance, freedom = between * usual, fewer
    return _Fit(starts, draws, levels, weights, variance, freedom, True)


def _additive(draws: Sequence[Values]) -> tuple[list[float], list[tuple[float, float]]] | None:
    """The level of each draw beside an offset of each seed, by least squares, and of each draw the sum of squares that
    is left and its share of the degrees of freedom. None where seeds do not tie the draws together, or nothing is left.
    """
    import numpy as np

    seeds = sorted(set().union(*draws))
    rows = [(place, seeds.index(seed), value) for place, draw in enumerate(draws) for seed, value in draw.items()]
    count = len(draws)
    table = np.zeros((len(rows), count + len(seeds)))
    for row, (place, seed, _) in enumerate(rows):
        table[row, place] = table[row, count + seed] = 1
    observed = np.asarray([value for _, _, value in rows])
    solved, _, rank, _ = np.linalg.lstsq(table, observed, rcond=None)
    freedom = len(rows) - int(rank)
    if int(rank) < count + len(seeds) - 1 or freedom < 1:
        return None
    left = [0.0] * count
    for (place, _, _), rest in zip(rows, observed - table @ solved, strict=True):
        left[place] += float(rest) ** 2
    several = sum(len(draw) - 1 for draw in draws)
    rests = [(rest, freedom * (len(draw) - 1) / several) for rest, draw in zip(left, draws, strict=True)]
    if all(draw.keys() == draws[0].keys() for draw in draws):
        return [statistics.fmean(draw.values()) for draw in draws], rests
    offset = float(solved[count:].mean())
    return [float(level) + offset for level in solved[:count]], rests


def _noisier(rests: Sequence[tuple[float, float]]) -> set[int]:
    """Draws whose seeds differ by clearly more than those of the others: they count as one seed, and for no noise."""
    from scipy.special import fdtrc

    found: set[int] = set()
    while len(rests) - len(found) > 3:
        kept = [place for place, (_, free) in enumerate(rests) if place not in found and free > 0]
        total, freedom = math.fsum(rests[place][0] for place in kept), sum(rests[place][1] for place in kept)
        ratios = {}
        for place in kept:
            rest, free = rests[place]
            if total - rest > 1e-12 * total and freedom - free > 0:
                ratios[place] = (rest / free) / ((total - rest) / (freedom - free))
        worst = max(ratios, key=lambda place: ratios[place], default=None)
        if worst is None:
            break
        free = rests[worst][1]
        if float(fdtrc(free, freedom - free, ratios[worst])) >= UNLIKE / len(rests):
            break
        found.add(worst)
    return found


def _noise(means: Sequence[float]) -> tuple[float, int]:
    """The variance of a commit's mean without pairs, and its degrees of freedom: half the squared differences of
    neighbours, the largest ones left out, since they may be steps."""
    from scipy.special import chdtr, chdtri

    squares = sorted((b - a) ** 2 / 2 for a, b in itertools.pairwise(means))
    kept = max(1, math.floor(KEPT * len(squares)))
    share = float(chdtr(3, chdtri(1, 1 - KEPT))) / KEPT  # of its mean that a chi-square has below its KEPT quantile
    return statistics.fmean(squares[:kept]) / share, max(1, len(squares) // 2)


def _quantile(tail: float, freedom: int) -> float:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, 1 - tail / 2))


def _pelt(fit: _Fit, penalty: float) -> list[int]:
    """Cuts between draws: each level stands in the signal once for each seed behind it, which weighs its squares."""
    try:
        import numpy as np
        import ruptures
    except ImportError:
        raise UserError("change points need ruptures: pip install 'dfkd-bench[history]'") from None
    common = math.gcd(*fit.weights)  # where all commits have the same seeds, each level stands there once
    weights = [weight // common for weight in fit.weights]
    centred = np.repeat(np.asarray(fit.levels) - statistics.fmean(fit.levels), weights)
    edges = list(itertools.accumulate(weights))
    search = ruptures.Pelt(model="l2", min_size=1, jump=1).fit(centred.reshape(-1, 1))
    ends = [int(end) for end in search.predict(pen=penalty / common)[:-1]]
    # Within a level every cut costs the same or more than one at its edge, so ends are edges but for ties.
    nearest = {min(range(len(edges)), key=lambda place: abs(edges[place] - end)) + 1 for end in ends}
    return sorted(nearest - {len(edges)})


def _that_hold(fit: _Fit, cuts: Sequence[int], smallest: float) -> list[int]:
    """The cuts without those whose step is too small, or is the doing of a single seed; the weakest goes first, and its
    neighbours are examined again."""
    kept = list(cuts)
    while kept:
        edges = [0, *kept, len(fit.levels)]
        levels = [_mean(fit, a, b) for a, b in itertools.pairwise(edges)]
        sizes = [abs(b - a) for a, b in itertools.pairwise(levels)]
        weakest = min(range(len(kept)), key=lambda place: sizes[place])
        if sizes[weakest] < smallest * (1 - 1e-9) or math.isclose(sizes[weakest], 0, abs_tol=1e-15):
            del kept[weakest]
            continue
        doubts = [0.0]
        if fit.paired:
            by_seed = [_by_seed(fit.draws[a:b]) for a, b in itertools.pairwise(edges)]
            doubts = [_doubt(a, b) for a, b in itertools.pairwise(by_seed)]
        doubtful = max(range(len(doubts)), key=lambda place: doubts[place])
        if doubts[doubtful] < COMMON:
            break
        del kept[doubtful]
    return kept


def _by_seed(draws: Sequence[Values]) -> dict[Hashable, float]:
    """The mean of each seed over the draws of a segment."""
    seeds = set().union(*draws)
    return {seed: statistics.fmean(draw[seed] for draw in draws if seed in draw) for seed in seeds}


def _doubt(before: Mapping[Hashable, float], after: Mapping[Hashable, float]) -> float:
    """The p-value of a step over the seeds; 0 where it is the same on all, or there is none to ask."""
    if len(before.keys() & after.keys()) < 2:
        return 0.0
    return paired_test(after, before).p or 0.0
