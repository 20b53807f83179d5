"""How sensitive the scores are, in words: tables and sentences that Markdown and the page share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean

from bench.analysis.report.sections.groups import FLOOR, Group, metric_word
from bench.analysis.report.sections.sensitivity_cells import Grid, Sensitivity
from bench.analysis.report.sections.sensitivity_numbers import (
    FEWEST,
    NEAR_CHANCE,
    Robustness,
    chance_level,
    effects_of,
    mean_of,
    robustness,
    unchanged,
)
from bench.analysis.stats import Effects, Importance

TITLE = "How much the score depends on the options"
IMPORTANCE = "How much each option matters"
ABSENT = "—"
ALPHA = 0.05


def robustness_table(of: Sensitivity, group: Group) -> list[list[str]]:
    """A head and one line per method."""
    head = [
        "Method",
        "Cells",
        "Mean over the cells, %",
        "Spread over the cells",
        "Spread over seeds",
        "Best cell, %",
        "Within 1 point of best",
        "Worst cell, %",
        "Diverging trials",
    ]
    chance = chance_level(group)
    measured = [(grid, robustness(grid, group.floor, chance)) for grid in of.grids]
    lines = [_line(grid, numbers) for grid, numbers in measured]
    if group.floor is None:
        return [head, *lines]
    floored = [_below(numbers) for _, numbers in measured]
    return [[*head, f"Not above {FLOOR}"], *([*line, below] for line, below in zip(lines, floored, strict=True))]


Importances = Sequence[Importance | None]  # one per method


def importance_table(of: Sensitivity, importances: Importances) -> list[list[str]]:
    """A head and one line per method that has an importance; empty if none has one."""
    lines = [
        [
            grid.name,
            _at_all(grid),
            *_shares(grid, of, found),
            "exact" if found.fit is None else f"estimated (R² {found.fit:.2f})",
        ]
        for grid, found in zip(of.grids, importances, strict=True)
        if found
    ]
    together = [f"{x} with {y}" for x, y in of.pairs]
    more = ["Three and more together"] if len(of.options) > 2 else []
    return [["Method", "Any effect", *of.options, *together, *more, "How"], *lines] if lines else []


def sensitivity_notes(of: Sensitivity, group: Group, importances: Importances) -> list[str]:
    """What changed nothing, how the tables are to be read, and what is not in them."""
    found = [
        f"Warning: {name} changed nothing in {grid.name}: {count} trials have the same scores and agreement, to the "
        "last bit, as another trial that differs only in this option. Is it used?"
        for grid in of.grids
        for name, count in unchanged(grid.cells, of.options)
    ]
    if any(unlike(grid, of.grids[0]) for grid in of.grids):
        found.append("The methods have different values here: their spreads are not comparable.")
    chance = chance_level(group)
    level = "" if chance is None else f", or at most {100 * chance:g} % ({100 * NEAR_CHANCE:g} points above guessing)"
    found += [
        "Spread: standard deviation in percentage points, of the cells' means and over the seeds within a "
        "cell (all cells pooled). The best of many cells looks better than it is.",
        f"A trial diverges if it has no score, for any reason{level}. The share is the chance that a random cell "
        "and seed diverge. Trials without a score are excluded from all means.",
        *_importance_notes(of, importances),
    ]
    for grid in of.grids:
        if grid.aside:
            found.append(f"Not among the cells: {', '.join(row.label for row in grid.aside)}.")
    return found


def _importance_notes(of: Sensitivity, importances: Importances) -> list[str]:
    known = [(grid, found) for grid, found in zip(of.grids, importances, strict=True) if found]
    if not known:
        return []
    notes = [
        "Importance: functional ANOVA, the share of the variance over the cells' means that is due to one option "
        "alone, or to two together beyond that."
    ]
    if any(found.fit is None and _by_seeds(grid) is not None for grid, found in known):
        notes.append(
            "By chance: the importance that the spread over seeds alone would give if all cells were equally good; "
            "an importance near it means nothing."
        )
    if any(found.fit is None and _effects(grid) is not None for grid, found in known):
        notes.append(
            "p: how often scores that change places between cells, seed by seed, would vary as much (permutation "
            "test; that of single options after Holm's correction). Any effect: whether the options matter at all. "
            "Where p is not below 0.05, no effect is shown, and a share of the variance is a share of noise."
        )
    if any(found.fit is not None for _, found in known):
        notes.append(
            f"Estimated: from {FEWEST} or more cells that are not a full grid, by a random forest whose mean "
            "prediction is decomposed; R² on cells that its trees had not seen. Near 0 or below, ignore the estimate."
        )
    return notes


def heat_caption(of: Sensitivity, pair: tuple[str, str]) -> str:
    """What the squares show; only what this figure really shows."""
    records = [record for grid in of.grids for row in grid.cells for record in row.records]
    others = [name for name in of.options if name not in pair]
    over = f"seeds and {', '.join(others)}" if others else "seeds"
    several = others or any(len(row.ok) > 1 for grid in of.grids for row in grid.cells)
    parts = [f"Mean over {over}, with ± the standard deviation below." if several else "One seed per cell."]
    if any(of.axis(name).edges for name in pair):
        parts = ["Mean over all cells in a square, with ± the standard deviation below over them and their seeds."]
    if len(of.grids) > 1:
        parts.append("One colour scale for all.")
    if any(record.status != "ok" for record in records):
        parts.append("✗: trials without a score; hatched: no trial has one.")
    places = [{pair[0]: x, pair[1]: y} for x in of.axis(pair[0]).places for y in of.axis(pair[1]).places]
    if any(not grid.where(**place) for grid in of.grids for place in places):
        parts.append("A dot: not run.")
    return " ".join(parts)


def heat_alt(of: Sensitivity, pair: tuple[str, str], group: Group) -> str:
    """The picture in a sentence."""
    who = ", ".join(grid.name for grid in of.grids)
    return f"Test {metric_word(group.key.metric)} of {who} on {group.key.task} by {pair[0]} and {pair[1]}: heat maps"


def lines_caption(of: Sensitivity) -> str:
    """What lines, bands and crosses show; only what this figure really shows."""
    several = len(of.options) > 1
    what = "all cells and seeds" if several else "seeds"
    values = "in an interval" if any(of.axis(name).edges for name in of.options) else "with that value"
    band = "Band" if all(of.axis(name).numbers for name in of.options) else "Band or bar"
    one = all(len(row.ok) < 2 for grid in of.grids for row in grid.cells)
    parts = (
        ["One seed per value: no band."]
        if one and not several
        else [f"Mean over {what} {values}. {band}: ± the standard deviation over them."]
    )
    if any(record.status != "ok" for grid in of.grids for row in grid.cells for record in row.records):
        parts.append("✗: a trial has no score.")
    return " ".join(parts)


def lines_alt(of: Sensitivity, titles: list[str], group: Group) -> str:
    """The picture in a sentence."""
    who = ", ".join(grid.name for grid in of.grids)
    return f"{', '.join(dict.fromkeys(titles))} of {who} on {group.key.task} along {', '.join(of.options)}"


def unlike(one: Grid, other: Grid) -> bool:
    """Whether two methods have other values of an option."""
    return any(one.values(name) != other.values(name) for name in one.options)


def _line(grid: Grid, numbers: Robustness | None) -> list[str]:
    if numbers is None:
        failed = sum(len(row.records) for row in grid.cells)
        return [grid.name, str(len(grid.cells)), *[ABSENT] * 6, f"100 % ({failed} of {failed})"]
    return [
        grid.name,
        str(numbers.cells),
        f"{100 * numbers.mean:.1f}",
        f"{100 * numbers.spread:.1f}",
        ABSENT if numbers.seeds is None else f"{100 * numbers.seeds:.1f}",
        f"{100 * mean_of([numbers.best]):.1f} ({grid.words(numbers.best)})",
        f"{100 * numbers.near / numbers.cells:.0f} % ({numbers.near} of {numbers.cells})",
        f"{100 * mean_of([numbers.worst]):.1f} ({grid.words(numbers.worst)})",
        f"{100 * numbers.diverged / numbers.trials:.0f} % ({_diverged(numbers)})",
    ]


def _below(numbers: Robustness | None) -> str:
    if numbers is None or numbers.below_noise is None:
        return ABSENT
    return f"{100 * numbers.below_noise / numbers.cells:.0f} % ({numbers.below_noise} of {numbers.cells})"


def _diverged(numbers: Robustness) -> str:
    failed = f", {numbers.failed} without a score" if numbers.failed else ""
    return f"{numbers.diverged} of {numbers.trials}{failed}"


def _shares(grid: Grid, of: Sensitivity, found: Importance) -> list[str]:
    """The importances in the order of ``of``'s options and pairs; of an exact one, what chance would give it."""
    index = [grid.options.index(name) for name in of.options]
    sets = [(a,) for a in index] + [(min(a, b), max(a, b)) for a, b in itertools.combinations(index, 2)]
    values = [found.main[each[0]] if len(each) == 1 else found.pairs[each] for each in sets]
    noise = _by_seeds(grid) if found.fit is None else None
    texts = [f"{100 * value:.0f} %" for value in values]
    effects = _effects(grid)
    tested = ["" if effects is None or len(each) > 1 else _of_option(effects.each[each[0]]) for each in sets]
    by_chance = [""] * len(sets)
    if noise is not None:
        counts = [len(grid.values(name)) for name in grid.options]
        freedom = [math.prod(counts[a] - 1 for a in each) / (len(grid.cells) - 1) for each in sets]
        by_chance = [f"by chance {100 * noise * part:.0f} %" for part in freedom]
    said = [[*filter(None, both)] for both in zip(by_chance, tested, strict=True)]
    texts = [f"{text} ({', '.join(more)})" if more else text for text, more in zip(texts, said, strict=True)]
    return texts + ([f"{100 * found.rest:.0f} %"] if len(index) > 2 else [])


def p_words(p: float) -> str:
    """A p-value with two digits that matter, and what it means where it is not small."""
    said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    return said if p < ALPHA else f"{said}: no effect shown"


def _of_option(p: float | None) -> str:
    return "too few seeds to test" if p is None else p_words(p)


def _at_all(grid: Grid) -> str:
    """Whether the options matter at all."""
    effects = _effects(grid)
    return ABSENT if effects is None or effects.together is None else p_words(effects.together)


@cache
def _effects(grid: Grid) -> Effects | None:
    return effects_of(grid)


def _by_seeds(grid: Grid) -> float | None:
    """The share of the variance over the cells' means that seeds explain, at most 1; None where cells have one seed."""
    numbers = robustness(grid, None, None)
    if numbers is None or numbers.seeds is None or not numbers.spread:
        return None
    of_means = fmean(numbers.seeds**2 / len(row.ok) for row in grid.scored)
    return min(1.0, of_means / numbers.spread**2)
