"""What the options change: a method's rows that differ in an option, and everything measured of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.report.sections.grouping import beside_options
from bench.analysis.report.sections.groups import CEILING, FLOOR, CurvesOf, Group, Row, metric_word
from bench.analysis.report.sections.image_metrics import Column, columns_of
from bench.records import Record, short_text

BESIDE = 4  # more other methods than these do not stand beside a sweep: the ranking has them
SEVERAL = "options"  # what is swept where cells differ in several options at a time


@dataclass(frozen=True)
class SweepCell:
    """One row of a sweep: a value of the option, or another method's only row."""

    value: str  # of the option; the name of another method
    rest: str  # the method's other options that its rows differ in, as text
    row: Row
    other: bool = False

    @property
    def label(self) -> str:
        return f"{self.value} ({self.rest})" if self.rest else self.value


@dataclass(frozen=True)
class Reading:
    """One trial's number."""

    seed: int
    value: float
    reliable: bool = True


@dataclass(frozen=True)
class Measure:
    """One property of the trials, for each cell: a reading a seed, and what it was on the way, where that is known."""

    title: str
    readings: tuple[tuple[Reading, ...], ...]
    curves: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] = ()  # cell, seed, (share of the budget, value)
    logged: bool = False  # a method's own scalar, of which the reading is the last value


@dataclass(frozen=True)
class Sweep:
    """One option of one method. Cells are in the order of the values, those of other methods last."""

    method: str
    option: str
    cells: tuple[SweepCell, ...]
    measures: tuple[Measure, ...]  # the score first

    @property
    def values(self) -> list[str]:
        """The places on the axis: each value once, then the other methods."""
        return list(dict.fromkeys(cell.value for cell in self.cells))

    @property
    def rests(self) -> list[str]:
        """The lines through the values: one for each setting of the method's other options."""
        return list(dict.fromkeys(cell.rest for cell in self.cells if not cell.other))

    @property
    def title(self) -> str:
        return f"{self.method} by {self.option}"


def sweeps_of(group: Group, curves: CurvesOf) -> list[Sweep]:
    """Every option in which rows of one method differ, with what was measured; empty where no method has several rows.

    Rows whose seeds all failed, and rows that differ in more than options (another version of the code), are not
    compared with each other. Where a grid varies several options, each has a sweep, with one line for each setting of
    the others. Where rows never differ in one option alone, they are compared as they are.

    Args:
        group: rows that may be compared.
        curves: of the group.
    """
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in group.rows:
        if row.ok:
            alike[row.method, short_text(beside_options(row.records[0]))].append(row)
    found = []
    for (method, _), rows in sorted(alike.items()):
        if len(rows) > 1:
            beside = _beside(group, method)
            for option, cells in _swept(rows):
                found.append(Sweep(method, option, (*cells, *beside), _measures(group, (*cells, *beside), curves)))
    return found


def _swept(rows: Sequence[Row]) -> list[tuple[str, list[SweepCell]]]:
    options = [row.records[0].trial.options for row in rows]
    differing = [name for name in options[0] if any(other.get(name) != options[0][name] for other in options)]
    found = []
    for name in differing:
        lines: dict[str, list[tuple[Row, Mapping[str, Any]]]] = defaultdict(list)
        for row, own in zip(rows, options, strict=True):
            lines[short_text({key: own.get(key) for key in differing if key != name})].append((row, own))
        others = [key for key in differing if key != name]
        along = [
            (_order(own, [name, *others]), SweepCell(value_text(own.get(name)), rest, row))
            for rest, line in lines.items()
            if len(line) > 1
            for row, own in line
        ]
        if along:
            found.append((name, [cell for _, cell in sorted(along, key=lambda each: each[0])]))
    if not found:
        ordered = sorted(zip(options, rows, strict=True), key=lambda each: _order(each[0], differing))
        found.append(
            (
                SEVERAL,
                [SweepCell(short_text({key: own.get(key) for key in differing}), "", row) for own, row in ordered],
            )
        )
    return found


def _order(options: Mapping[str, Any], names: Sequence[str]) -> list[tuple[int, float, str]]:
    return [value_order(options.get(name)) for name in names]


def _beside(group: Group, method: str) -> list[SweepCell]:
    """The only rows of other data-free methods, if they are few; neither floor nor ceiling."""
    others: dict[str, list[Row]] = defaultdict(list)
    for row in group.rows:
        if row.ok and row.data == "none" and row.method not in (method, FLOOR, CEILING):
            others[row.method].append(row)
    single = sorted((rows[0] for rows in others.values() if len(rows) == 1), key=lambda row: row.method)
    return [SweepCell(row.method, "", row, other=True) for row in single] if len(single) <= BESIDE else []


# ---- what was measured -----------------------------------------------------------------------------------------------


def _measures(group: Group, cells: Sequence[SweepCell], curves: CurvesOf) -> tuple[Measure, ...]:
    score = _measure(f"Test {metric_word(group.key.metric)}, %", cells, _score)
    images = [_measure(column.head, cells, _image(column)) for column in columns_of(group)]
    made = _measure("Images synthesised", cells, lambda r, s: Reading(s, float(r.meter.synthesised_images)))
    varied = len({reading.value for readings in made.readings for reading in readings}) > 1
    known = [measure for measure in images if any(measure.readings)]
    return (score, *known, *([made] if varied else []), *_logged(cells, curves))


def _measure(title: str, cells: Sequence[SweepCell], get: Callable[[Record, int], Reading | None]) -> Measure:
    def of(cell: SweepCell) -> Iterable[Reading]:
        return (found for r in cell.row.ok if (found := get(r, r.trial.seed)) is not None)

    return Measure(title, tuple(tuple(of(cell)) for cell in cells))


def _score(record: Record, seed: int) -> Reading:
    return Reading(seed, 100 * record.scores[record.headline])


def _image(column: Column) -> Callable[[Record, int], Reading | None]:
    def get(record: Record, seed: int) -> Reading | None:
        entry = column.entry(record)
        return Reading(seed, entry.value, entry.status == "ok") if entry and entry.value is not None else None

    return get


def _logged(cells: Sequence[SweepCell], curves: CurvesOf) -> Iterable[Measure]:
    """The scalars that the swept method logs, in the order of its logging."""
    found = [[(record.trial.seed, curves[record.id]) for record in cell.row.ok] for cell in cells]
    own = [curve for cell, seeds in zip(cells, found, strict=True) if not cell.other for _, curve in seeds]
    for name in dict.fromkeys(name for curve in own for logs in curve["logs"] for name in logs):
        lines = tuple(tuple((seed, logged(curve, name)) for seed, curve in seeds) for seeds in found)
        if any(line for seeds in lines for _, line in seeds):
            yield Measure(
                name,
                tuple(tuple(Reading(seed, line[-1][1]) for seed, line in seeds if line) for seeds in lines),
                tuple(tuple(line for _, line in seeds if line) for seeds in lines),
                logged=True,
            )


def logged(curve: Mapping[str, Sequence[Any]], name: str) -> tuple[tuple[float, float], ...]:
    """(share of the budget, value); points without the scalar, or at which it was not finite, are left out."""
    points = zip(curve["progress"], curve["logs"], strict=True)
    return tuple((at, value) for at, logs in points if (value := logs.get(name)) is not None and math.isfinite(value))


# ---- values ----------------------------------------------------------------------------------------------------------


def value_text(value: object) -> str:
    """An option's value for the reader."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_order(value: object) -> tuple[int, float, str]:
    """Numbers by size, all else by its text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))  # type: ignore[arg-type]
