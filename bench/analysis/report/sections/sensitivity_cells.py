"""Which rows are cells of one space of options: a method's grid, its sample of ranges, or its line along one option."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bench.analysis.report.sections.grouping import beside_options
from bench.analysis.report.sections.groups import Group, Row
from bench.analysis.report.sections.option_axis import OptionAxis, Place, axis_of, is_number
from bench.analysis.report.sections.sweeps import value_order, value_text
from bench.records import short_text

SAMPLE = 8  # fewer cells are no sample
DRAWN = 0.6  # a sampled option has at least this share of the cells' number as values
VALUES = 3  # of one option make a line


@dataclass(frozen=True, eq=False)
class Grid:
    """One method's cells: its rows over one or more options. Rows whose seeds all failed belong to it."""

    name: str  # of the method; with what else tells it apart where it has several grids
    method: str
    options: tuple[str, ...]  # those that vary, in the order of the method's file
    cells: tuple[Row, ...]
    aside: tuple[Row, ...] = ()  # rows of the method that are no part of it
    sampled: bool = False  # drawn from ranges: cells share next to no value

    def values(self, option: str) -> list[Any]:
        """The values of an option, in their order."""
        return _sorted({value_of(row, option) for row in self.cells})

    def where(self, **places: Place) -> list[Row]:
        """The cells at these places of options."""
        return [row for row in self.cells if all(value_of(row, name) in at.values for name, at in places.items())]

    def words(self, row: Row) -> str:
        """A cell's place: ``temperature=4, lr_generator=0.01``."""
        return ", ".join(f"{name}={value_text(value_of(row, name))}" for name in self.options)

    @property
    def full(self) -> bool:
        """Whether every combination of the values is there and has a score."""
        return math.prod(len(self.values(name)) for name in self.options) == len(self.scored) == len(self.cells)

    @cached_property
    def scored(self) -> tuple[Row, ...]:
        return tuple(row for row in self.cells if row.ok)


@dataclass(frozen=True)
class Sensitivity:
    """Cells of several methods over the same options, to be looked at side by side."""

    options: tuple[str, ...]
    grids: tuple[Grid, ...]

    @property
    def title(self) -> str:
        return " by ".join(self.options)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(itertools.combinations(self.options, 2))

    @property
    def sampled(self) -> bool:
        return any(grid.sampled for grid in self.grids)

    def axis(self, option: str) -> OptionAxis:
        """The values that any of the methods has."""
        return axis_of(option, {value for grid in self.grids for value in grid.values(option)}, self.sampled)


def sensitivities_of(group: Group) -> list[Sensitivity]:
    """What can be said of options; empty where no method has a grid, a sample, or three values of one option.

    Methods with the same options come together where on every axis one has all values of the other, and where both
    were sampled.
    """
    found: list[Sensitivity] = []
    for grid in grids_of(group):
        for place, other in enumerate(found):
            if set(other.options) == set(grid.options) and _alike(other, grid):
                found[place] = Sensitivity(other.options, (*other.grids, replace(grid, options=other.options)))
                break
        else:
            found.append(Sensitivity(grid.options, (grid,)))
    return found


def grids_of(group: Group) -> list[Grid]:
    """The cells of a group's methods, in the order of their names; versions of the code each have their own."""
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in group.rows:
        alike[row.method, short_text(beside_options(row.records[0]))].append(row)
    found = []
    for (method, _), rows in sorted(alike.items()):
        sample = _sample_rows(rows)
        together = sample or _grid_rows(rows)
        for cells in [together] if together else _lines(rows):
            ids = {row.records[0].id for row in cells}
            aside = tuple(row for row in rows if row.records[0].id not in ids) if together else ()
            found.append(Grid(method, method, _varying(cells), tuple(cells), aside, bool(sample)))
    return [_named(grid, [other for other in found if other.method == grid.method]) for grid in found]


def value_of(row: Row, option: str) -> Hashable:
    """A row's value of an option; lists as tuples."""
    value = row.records[0].trial.options.get(option)
    return tuple(value) if isinstance(value, list) else value


def _grid_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that share each of their values with another one: a grid without what stands beside it.

    Entries that vary one option at a time, and a method's row from another study, have their own value.
    """
    kept = list(rows)
    while True:
        options = _varying(kept)
        counts = Counter((name, value_of(row, name)) for row in kept for name in options)
        shared = [row for row in kept if all(counts[name, value_of(row, name)] > 1 for name in options)]
        if len(shared) == len(kept):
            return kept if len(options) > 1 else []
        kept = shared


def _sample_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that look like a sample of ranges; none where they do not.

    They are ``SAMPLE`` or more and vary in two or more options, at least one of which has nearly as many numbers as
    there are rows; and no row stands in their middle, from which the others depart in one option each.
    """
    kept = list(rows)
    while True:
        options = _varying(kept)
        counts = {name: Counter(value_of(row, name) for row in kept) for name in options}
        drawn = [n for n in options if len(counts[n]) >= DRAWN * len(kept) and all(map(is_number, counts[n]))]
        if len(kept) < SAMPLE or not drawn or len(options) < 2:
            return []
        listed = [name for name in options if name not in drawn]
        usual = [row for row in kept if all(counts[name][value_of(row, name)] > 1 for name in listed)]
        if len(usual) == len(kept):
            return [] if any(_in_the_middle(row, kept, options) for row in kept) else kept
        kept = usual


def _in_the_middle(row: Row, rows: Sequence[Row], options: Sequence[str]) -> bool:
    """Whether all others differ from a row in one option at most."""
    return all(sum(value_of(other, name) != value_of(row, name) for name in options) < 2 for other in rows)


def _lines(rows: Sequence[Row]) -> list[list[Row]]:
    """For each option the rows that differ in it alone and have ``VALUES`` or more numbers: the longest such line."""
    found = []
    for option in (options := _varying(rows)):
        along: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if is_number(value_of(row, option)):
                along[short_text({name: value_of(row, name) for name in options if name != option})].append(row)
        if len(longest := max(along.values(), key=len, default=[])) >= VALUES:
            found.append(longest)
    return found


def _varying(rows: Sequence[Row]) -> tuple[str, ...]:
    names = rows[0].records[0].trial.options if rows else {}
    return tuple(name for name in names if len({value_of(row, name) for row in rows}) > 1)


def _named(grid: Grid, versions: Sequence[Grid]) -> Grid:
    """The grid, named so that it can be told from others of the same method."""
    beside = [beside_options(version.cells[0].records[0]) for version in versions]
    own = beside_options(grid.cells[0].records[0])
    differing = {key: own[key] for key in own if any(other[key] != own[key] for other in beside)}
    return replace(grid, name=f"{grid.method} ({short_text(differing)})") if differing else grid


def _alike(one: Sensitivity, other: Grid) -> bool:
    """Whether their cells are drawn alike: both sampled, or on every axis one has all values of the other."""
    if one.sampled or other.sampled:
        return one.sampled and other.sampled
    values = [({v for grid in one.grids for v in grid.values(name)}, set(other.values(name))) for name in one.options]
    return all(ours <= theirs or theirs <= ours for ours, theirs in values)


def _sorted(values: Iterable[Any]) -> list[Any]:
    return sorted(values, key=value_order)
