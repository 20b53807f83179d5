"""What the curves say of a row: its mean score over the budget, and what it had spent when it came near kd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.report.sections.groups import CEILING, CurvesOf, Group, Row
from bench.analysis.report.sections.spread import share_words, spread_note
from bench.analysis.stats import Interval, Reach, area_under, first_reach, median_reach, share_interval
from bench.records import Record
from bench.spec.budget import UNITS

TITLE = "How fast the score is reached"
SHARES = (90, 95, 99)  # percent of kd's score
SPENT = ("seconds", "teacher_images")
ABSENT, NEVER = "—", "not reached"


@dataclass(frozen=True)
class Anytime:
    """The numbers of one row."""

    areas: Mapping[str, Interval]  # by the budget's units: mean over seeds with its 95 % interval
    seeds: Mapping[str, Sequence[float]]  # the values of the seeds, likewise
    reached: Mapping[int, Mapping[str, Reach]]  # by the share of kd's score and what was spent; empty without a kd


AnytimeOf = Mapping[str, Anytime]  # by the id of a row's first record


def anytime_of(group: Group, curves: CurvesOf) -> AnytimeOf:
    """The numbers of every row of a group that has a score and a curve."""
    found: dict[str, _OfTrial] = {}
    for row in group.rows:
        for record in row.ok:
            if (measured := _of_trial(record, curves.get(record.id, {}), group.ceiling)) is not None:
                found[record.id] = measured
    return {
        row.records[0].id: _together(of_seeds)
        for row in group.rows
        if (of_seeds := [found[record.id] for record in row.ok if record.id in found])
    }


def score_key(headline: str) -> str:
    """Which score of an evaluation is that of a selection rule; only ``ema`` has one of its own on the way."""
    return "score_ema" if headline == "ema" else "score"


def never_asks(row: Row) -> bool:
    """Whether no finished trial of a row asked the teacher anything: then its budget counts student images."""
    return not any(record.meter.teacher_images for record in row.ok)


def anytime_table(group: Group, measured: AnytimeOf) -> list[list[str]]:
    """A head and one line per row that has a score; empty where no curve was read."""
    units = _units(group)
    lines = [
        list(_cells(row, measured[row.records[0].id], units)) for row in group.rows if row.records[0].id in measured
    ]
    if not lines:
        return []
    heads = [f"Mean over {_word(unit)}, %" for unit in units]
    near = [f"{_word(spent).capitalize()} to {share} % of {CEILING}" for spent in SPENT for share in SHARES]
    return [["Method", *heads, *near], *lines]


def anytime_notes(group: Group, measured: AnytimeOf) -> list[str]:
    """How the table is to be read; empty where there is none."""
    if not measured:
        return []
    found = [
        "Mean over the budget: the score averaged over the whole budget, from 0 on (the area under "
        "the curve); a method that ended early keeps its last student."
    ]
    if said := spread_note(len(each) for of_row in measured.values() for each in of_row.seeds.values()):
        found.append(said)
    if group.ceiling is not None:
        found.append(
            f"To a share of {CEILING}'s score here, {100 * group.ceiling:.1f} %: what had been spent at the first "
            "evaluation that reaches it; median of the seeds that do, and their number if not all do."
        )
    else:
        found.append(f"Nothing is reported for {CEILING}'s score: {CEILING} did not finish here.")
    if "teacher_images" in _units(group) and any(never_asks(row) for row in group.rows if row.ok):
        found.append(
            "† never queries the teacher: its budget and its mean count student images instead of teacher images."
        )
    if group.key.headline not in ("last", "ema"):
        found.append("The curve shows the last student, not the selected one.")
    return found


COLUMNS = (
    *(f"area_{unit}" for unit in UNITS),
    *(f"{spent}_to_{share}" for spent in SPENT for share in SHARES),
    *(f"reached_{share}" for share in SHARES),
)


def anytime_numbers(measured: Anytime | None) -> dict[str, float | None]:
    """The plain numbers by column of the CSV; ``reached_90`` counts seeds, all else is as in the table."""
    if measured is None:
        return dict.fromkeys(COLUMNS)
    near = measured.reached
    return {
        **{f"area_{unit}": measured.areas[unit][0] if unit in measured.areas else None for unit in UNITS},
        **{
            f"{spent}_to_{share}": near[share][spent].median if share in near else None
            for spent in SPENT
            for share in SHARES
        },
        **{f"reached_{share}": near[share]["seconds"].reached if share in near else None for share in SHARES},
    }


@dataclass(frozen=True)
class _OfTrial:
    areas: dict[str, float]
    reached: dict[int, dict[str, float | None]]


def _of_trial(record: Record, curve: Mapping[str, Sequence[Any]], kd: float | None) -> _OfTrial | None:
    every = curve.get(score_key(record.headline), ())
    scores = [score for score in every if score is not None]
    if not scores:
        return None

    def scored(name: str) -> list[float]:
        return [value for value, score in zip(curve[name], every, strict=True) if score is not None]

    asks = bool(record.meter.teacher_images)
    areas: dict[str, float] = {}
    for unit, limit in record.trial.budget.items():
        counted = "student_images" if unit == "teacher_images" and not asks else unit
        areas[unit] = area_under(scored(counted), scores, float(limit))
    reached: dict[int, dict[str, float | None]] = {}
    if kd is not None:
        spending = {spent: scored(spent) for spent in SPENT}
        for share in SHARES:
            place = first_reach(scores, share / 100 * kd)
            reached[share] = {spent: None if place is None else values[place] for spent, values in spending.items()}
    return _OfTrial(areas, reached)


def _together(seeds: Sequence[_OfTrial]) -> Anytime:
    first = seeds[0]
    return Anytime(
        areas={unit: share_interval([seed.areas[unit] for seed in seeds]) for unit in first.areas},
        seeds={unit: [seed.areas[unit] for seed in seeds] for unit in first.areas},
        reached={
            share: {spent: median_reach([seed.reached[share][spent] for seed in seeds]) for spent in SPENT}
            for share in first.reached
        },
    )


def _units(group: Group) -> list[str]:
    return list(group.rows[0].records[0].trial.budget)


def _word(unit: str) -> str:
    return "GMACs" if unit == "gmacs" else unit.replace("_", " ")


def _cells(row: Row, measured: Anytime, units: Sequence[str]) -> Iterator[str]:
    yield f"{row.label} †" if "teacher_images" in units and never_asks(row) else row.label
    for unit in units:
        yield share_words(measured.areas[unit], measured.seeds[unit])
    for spent in SPENT:
        for share in SHARES:
            yield _reach(measured.reached[share][spent], spent) if share in measured.reached else ABSENT


def _reach(reach: Reach, spent: str) -> str:
    if reach.median is None:
        return NEVER
    said = f"{reach.median:,.1f}" if spent == "seconds" else f"{reach.median:,.0f}"
    return said if reach.reached == reach.curves else f"{said} ({reach.reached} of {reach.curves} seeds)"
