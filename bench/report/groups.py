"""Which records may stand in one ranking: from a heap of records to groups, rows and tables. Pure, without files."""

from __future__ import annotations

import gc
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from bench.budget import UNITS
from bench.records import (
    Comparable,
    ImageFacts,
    Loaded,
    Record,
    TeacherFacts,
    comparable,
    load_records,
    loaded,
    open_results,
    read_columns,
    short_text,
    trial_id,
)
from bench.stats import CLEARLY, mean_and_half, normalised
from bench.task import Published, tasks

T = TypeVar("T")
CurvesOf = Mapping[str, Mapping[str, Sequence[Any]]]  # by the trial's id, as ``read_columns`` has them
CURVE = ("progress", *UNITS, "score", "score_ema", "logs")  # what a report says of the evaluations on the way
FLOOR, CEILING = "noise", "kd"  # the baselines that every task is run with
BASELINES = ("scratch", "kd")  # on the training images: what others are measured by
NEEDS = ("none", "pool", "train")
UNSENT: dict[str, Any] = {  # the parts of records that ``light`` leaves out
    "image_metrics": {},
    "test_metrics": {},
    "pool": None,
    "images": ImageFacts(count=0, clipped=0),
    "provenance": {},
}


def metric_word(metric: str) -> str:
    """What a score is, as a reader says it."""
    return {"miou": "mean IoU"}.get(metric, metric)


@dataclass(frozen=True)
class Row:
    """The trials that differ in nothing but their seed."""

    method: str
    label: str
    data: str
    records: tuple[Record, ...]  # in the order of their seeds, failures included

    @cached_property
    def ok(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.status == "ok")

    @cached_property
    def score(self) -> tuple[float, float | None] | None:
        """Mean of the headline score, a share, and half of its interval; None when every seed failed."""
        return mean_and_half([record.scores[record.headline] for record in self.ok]) if self.ok else None

    def mean(self, get: Callable[[Record], float | None]) -> float | None:
        """The mean of a number over the seeds that went well; None when one of them does not have it."""
        values = [get(record) for record in self.ok]
        present = [value for value in values if value is not None]
        return statistics.fmean(present) if present and len(present) == len(values) else None


@dataclass(frozen=True)
class Table:
    """One ranking: the rows of one data need, then the others for reference."""

    need: str
    ranked: tuple[tuple[int | None, Row], ...]  # no rank: every seed failed
    reference: tuple[Row, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """All rows that had the same task, teacher and budget, under the same rules."""

    key: Comparable
    teacher: TeacherFacts | None
    rows: tuple[Row, ...]  # the best first, those that failed last
    unsupported: tuple[str, ...] = ()  # why methods were left out by plan
    published: Published = field(default_factory=Published)  # what papers say of this task
    left_out: tuple[Row, ...] = ()  # the unsupported, where others are not

    @property
    def name(self) -> str:
        """A file name that stays the same as long as the group does."""
        return f"{self.key.task.replace('/', '-')}-{trial_id(self.key._asdict())[:8]}"

    @cached_property
    def floor(self) -> float | None:
        return self._best(FLOOR)

    @cached_property
    def ceiling(self) -> float | None:
        return self._best(CEILING)

    def normalised(self, row: Row) -> float | None:
        if row.score is None or self.floor is None or self.ceiling is None:
            return None
        return normalised(row.score[0], self.floor, self.ceiling)

    def normalised_half(self, row: Row) -> float | None:
        """Half of the 95 % interval of a row's normalised score; noise and kd are taken as they are."""
        if self.normalised(row) is None or row.score is None or self.floor is None or self.ceiling is None:
            return None
        return None if row.score[1] is None else row.score[1] / (self.ceiling - self.floor)

    @property
    def why_not_normalised(self) -> str:
        """Why no row of this group has a normalised score; empty when they have."""
        missing = [name for name, value in ((FLOOR, self.floor), (CEILING, self.ceiling)) if value is None]
        if missing:
            return f"No normalised scores: {' and '.join(missing)} did not finish here."
        if all(self.normalised(row) is None for row in self.rows):
            return (
                f"No normalised scores: {CEILING} is less than {100 * CLEARLY:g} percentage point above {FLOOR} here."
            )
        return ""

    @property
    def failures(self) -> list[tuple[Row, Record]]:
        return [(row, record) for row in self.rows for record in row.records if record.status != "ok"]

    def _best(self, method: str) -> float | None:
        return max((row.score[0] for row in self.rows if row.method == method and row.score), default=None)


def light(group: Group) -> Group:
    """A group with no more of its records than is said of all groups together: quickly sent to another process.

    What the trials of a row share is there once, which is then sent once.
    """
    return replace(group, rows=tuple(map(_light, group.rows)), left_out=tuple(map(_light, group.left_out)))


def _light(row: Row) -> Row:
    first = row.records[0]
    found = replace(
        row,
        records=tuple(
            record.model_copy(
                update=UNSENT
                | {
                    "trial": first.trial.model_copy(update={"seed": record.trial.seed}),
                    "method": first.method,
                    "teacher": first.teacher if record.teacher == first.teacher else record.teacher,
                }
            )
            for record in row.records
        ),
    )
    vars(found)["score"] = row.score  # the cached property: its bootstrap takes longer than all else here
    return found


def once(find: Callable[[Group], T]) -> Callable[[Group], T]:
    """Find something of a group once: several tables, figures and pages ask for it."""
    found: WeakKeyDictionary[Group, T] = WeakKeyDictionary()

    @wraps(find)
    def known(group: Group) -> T:
        if group not in found:
            found[group] = find(group)
        return found[group]

    return known


def curves_of(group: Group, results: Path) -> CurvesOf:
    """The curves of all trials that went well: read once for all that is said and drawn of a group."""
    return read_columns(results, [record.id for row in group.rows for record in row.ok], CURVE)


def read_groups(
    results: Path, own: Mapping[str, Published] | None = None, ids: Collection[str] | None = None
) -> list[Group]:
    """The groups of all records of a results folder or an archive, or of those of ``ids``.

    Until ``gc.unfreeze()`` the search for cycles leaves them out.

    Raises:
        UserError: a record is damaged.
    """
    with no_cycles():
        groups = group_records(load_records(open_results(results), ids), own)
        gc.freeze()
    return groups


@contextmanager
def no_cycles() -> Iterator[None]:
    """Python's search for cycles is off while millions of objects are made in which there are none.

    It would go through all of them again and again.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def group_records(records: Iterable[Record], own: Mapping[str, Published] | None = None) -> list[Group]:
    """Sort records into groups that may be compared, in a stable order.

    ``own``: published numbers of a user's own tasks, by the task's name; those of the built-in ones are known.
    """
    quoted = {**(own or {}), **{name: task.published for name, task in tasks().items() if task.built_in}}
    records = sorted(records, key=lambda record: record.id)
    given: dict[tuple[Any, ...], set[Loaded]] = defaultdict(set)
    for record in records:
        if record.teacher:
            given[(comparable(record, Loaded()), record.trial.teacher)].add(loaded(record))
    groups: dict[Comparable, list[Record]] = defaultdict(list)
    for record in records:
        # A trial that ended before its teacher was loaded belongs with those of the same recipe.
        recipe = (comparable(record, Loaded()), record.trial.teacher)
        for found in [loaded(record)] if record.teacher else sorted(given.get(recipe, {Loaded()})):
            groups[comparable(record, found)].append(record)
    return [_group(key, group, quoted.get(key.task, Published())) for key, group in sorted(groups.items())]


def _group(key: Comparable, records: list[Record], published: Published) -> Group:
    able = [record for record in records if record.status != "unsupported"] or records
    reasons = sorted({record.reason for record in records if record.status == "unsupported"})
    left_out = [record for record in records if record.status == "unsupported"] if len(able) < len(records) else []
    teacher = next((record.teacher for record in able if record.teacher), None)
    return Group(key, teacher, tuple(_rows(able)), tuple(reasons), published, tuple(_rows(left_out)))


@once
def tables_of(group: Group) -> list[Table]:
    """One ranking for each data need; the training images have none where only the baselines use them."""
    present = [need for need in NEEDS if any(row.data == need for row in group.rows)]
    compared = any(row.data == "train" and row.method not in BASELINES for row in group.rows)
    ranked = [need for need in present if need != "train" or compared] or present
    return [
        Table(
            need,
            tuple(_ranks([row for row in group.rows if row.data == need])),
            tuple(row for row in group.rows if row.data != need),
        )
        for need in ranked
    ]


def ranks_of(group: Group) -> dict[int, tuple[int, int]]:
    """Rank and number of ranked rows with the same need of data, by a row's ``id()``; of the baselines none."""
    found: dict[int, tuple[int, int]] = {}
    for table in tables_of(group):
        ranked = [(rank, row) for rank, row in table.ranked if rank is not None]
        found |= {id(row): (rank, len(ranked)) for rank, row in ranked if row.method not in BASELINES}
    return found


def _rows(records: Sequence[Record]) -> list[Row]:
    same: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        same[json.dumps({**vars(record.trial), "seed": None}, sort_keys=True)].append(record)
    settings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for group in same.values():
        settings[group[0].trial.method].append(_settings(group[0]))
    differing = {method: _differing(found) for method, found in settings.items()}
    rows = [
        Row(
            method=group[0].trial.method,
            label=_label(group[0], differing[group[0].trial.method]),
            data=group[0].method.data,
            records=tuple(sorted(group, key=lambda record: record.trial.seed)),
        )
        for group in same.values()
    ]
    return sorted(rows, key=lambda row: (-row.score[0] if row.score else 1.0, row.label))


def _settings(record: Record) -> dict[str, Any]:
    """What may tell two rows of one method apart: the options first of all."""
    return record.trial.options | beside_options(record)


def beside_options(record: Record) -> dict[str, Any]:
    """What may tell two rows of one method apart although their options are the same."""
    trial = record.trial
    return {
        "code": trial.method_sha[:7],
        "teacher": trial.teacher[:7],
        "threads": trial.threads,
        "deterministic": trial.deterministic,
        "altered data": trial.altered_data,
        "pool": trial.pool,
        "selection": "+".join(trial.selection),
    }


def _differing(settings: Sequence[dict[str, Any]]) -> set[str]:
    """The settings that are not the same in all rows of a method."""
    names = {name for each in settings for name in each}
    return {name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)}


def _label(record: Record, differing: set[str]) -> str:
    """The method's name, and those of its settings that are not the same in all its rows."""
    shown = {name: value for name, value in _settings(record).items() if name in differing}
    return f"{record.trial.method} ({short_text(shown)})" if shown else record.trial.method


def _ranks(rows: Sequence[Row]) -> Iterable[tuple[int | None, Row]]:
    """Ranks of rows that are sorted, the best first; equal scores share a rank."""
    rank, before = 0, None
    for place, row in enumerate(rows, start=1):
        if row.score is None:
            yield None, row
        else:
            rank = rank if row.score[0] == before else place
            before = row.score[0]
            yield rank, row
