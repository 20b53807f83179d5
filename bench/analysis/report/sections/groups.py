"""What may stand in one ranking: groups, their rows and tables, and what all of a report asks of them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from bench.analysis.stats import CLEARLY, Interval, normalised, normalised_interval, share_interval
from bench.records import Comparable, EnsembleFacts, ImageFacts, Record, TeacherFacts, read_columns, trial_id
from bench.records.comparable import AGREEMENT, SYNTHETIC_AGREEMENT
from bench.spec.budget import UNITS
from bench.spec.published import Published

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
}
SENT = ("finished", "commit", "dirty")  # of the provenance: what the index says of a study


def metric_word(metric: str) -> str:
    """What a score is, as a reader says it."""
    return {"miou": "mean IoU", SYNTHETIC_AGREEMENT: "synthetic agreement"}.get(metric, metric)


def measured_on(metric: str, provenance: Mapping[str, Any]) -> str:
    """What a score is measured on, and with what, where it is no score of labels: ``on the test images``.

    Args:
        metric: the score's.
        provenance: of a record, which names another set than the teacher's where the test images are of one.
    """
    if metric == AGREEMENT:
        return "with the teacher on the test images, which have no labels"
    if metric == SYNTHETIC_AGREEMENT:
        return "with the teacher on made images (there are no test images), which proves little"
    return f"on the test images{other_set(provenance)}"


def other_set(provenance: Mapping[str, Any]) -> str:
    """Whose the test images are, where they are of another set than the teacher was trained on; else empty."""
    data = provenance.get("data") or {}
    return f" of {data['test']}, another set than the teacher's" if data.get("test") else ""


def teacher_score_words(teacher: TeacherFacts | None, ensemble: EnsembleFacts | None) -> str:
    """``the teacher, 97.2 %``; of several the first, and what they reach together. Empty where none was loaded."""
    if teacher is None:
        return ""
    score = f"{100 * teacher.score:.1f} %"
    if ensemble is None:
        return f"the teacher, {score}"
    return f"the first teacher, {score}; the {len(ensemble.teachers)} together, {100 * ensemble.score:.1f} %"


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
    def score(self) -> Interval | None:
        """Mean of the headline score, a share, with its interval; None when every seed failed."""
        return share_interval(self.scores) if self.ok else None

    @property
    def scores(self) -> list[float]:
        """The headline score of every finished seed, in the order of the seeds."""
        return [record.scores[record.headline] for record in self.ok]

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
    ensemble: EnsembleFacts | None = None  # the teachers of a task with several, ``teacher`` the first

    @property
    def name(self) -> str:
        """A file name that stays the same as long as the group does."""
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.key.task).strip("-.")[:100]
        return f"{plain or 'task'}-{trial_id(self.key._asdict())[:8]}"

    @property
    def dashed(self) -> str:
        """What the teacher's line in a figure is: ``the teacher, 97.2 %``; empty where none was loaded."""
        return teacher_score_words(self.teacher, self.ensemble)

    @cached_property
    def floor(self) -> float | None:
        return self._floor_row.score.value if self._floor_row and self._floor_row.score else None

    @cached_property
    def ceiling(self) -> float | None:
        return self._ceiling_row.score.value if self._ceiling_row and self._ceiling_row.score else None

    @cached_property
    def _floor_row(self) -> Row | None:
        return self._best(FLOOR)

    @cached_property
    def _ceiling_row(self) -> Row | None:
        return self._best(CEILING)

    def normalised(self, row: Row) -> float | None:
        if row.score is None or self.floor is None or self.ceiling is None:
            return None
        return normalised(row.score[0], self.floor, self.ceiling)

    def normalised_interval(self, row: Row) -> Interval | None:
        """A row's normalised score with its interval, in which noise and kd vary too; they themselves have none."""
        value = self.normalised(row)
        floor, ceiling = self._floor_row, self._ceiling_row
        if value is None or floor is None or ceiling is None:
            return None
        if row is floor or row is ceiling:
            return Interval(value, None, None, "by definition")
        return normalised_interval(row.scores, floor.scores, ceiling.scores)

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

    def _best(self, method: str) -> Row | None:
        """The method's row with the best mean; None where none finished."""
        found = [
            (row.score.value, -place, row) for place, row in enumerate(self.rows) if row.method == method and row.score
        ]
        return max(found)[2] if found else None


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
                    "provenance": {name: record.provenance[name] for name in SENT if name in record.provenance},
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
    """The curves of all successful trials: read once for all text and figures of a group."""
    return read_columns(results, [record.id for row in group.rows for record in row.ok], CURVE)


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
