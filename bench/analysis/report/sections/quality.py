"""Does image quality matter? How each image metric goes with the students' scores. Pure, without files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal, NamedTuple

from bench.analysis.report.sections.groups import Group, Row, once
from bench.analysis.report.sections.image_metrics import Column, columns_of, measured_of
from bench.analysis.stats import rank_correlation

FEWEST = 4  # different values that a correlation takes
Agreement = Literal["yes", "no", "unclear"]


@dataclass(frozen=True)
class Point:
    """One trial: the metric of its images, and its headline score."""

    row: Row
    value: float
    score: float  # share
    reliable: bool


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho of a metric's value against the score, with its 95 % interval.

    ``rho`` is None where too little was measured: fewer than ``FEWEST`` different values, or one score for all.
    """

    trials: int
    rho: float | None
    low: float | None
    high: float | None

    def better_with_better(self, higher_is_better: bool | None) -> Agreement | None:
        """Whether a better value goes with a better score; None where no direction is better, or rho is not known.

        Unclear as long as the interval holds 0. A rho of exactly 1 or -1 has no interval; over five pairs or more,
        chance alone gives one in less than 2 % of all cases (2 of 5! orders).
        """
        if higher_is_better is None or self.rho is None:
            return None
        if self.low is None or self.high is None:
            sure = abs(self.rho) == 1 and self.trials > FEWEST
        else:
            sure = self.low > 0 or self.high < 0
        if not sure:
            return "unclear"
        return "yes" if (self.rho > 0) is higher_is_better else "no"


@dataclass(frozen=True)
class Quality:
    """One metric through one extractor against the headline score."""

    column: Column
    points: tuple[Point, ...]

    @cached_property
    def all_trials(self) -> Correlation:
        return _correlation(self.points)

    @cached_property
    def data_free(self) -> Correlation:
        return _correlation([point for point in self.points if point.row.data == "none"])

    @property
    def unreliable(self) -> int:
        """How many of the points are flagged."""
        return sum(not point.reliable for point in self.points)


@dataclass(frozen=True)
class BestImages:
    """RDSKD's observation, asked of one metric: has the data-free method with the best value the best student?"""

    column: Column
    winner: Row  # of the best mean value
    value: float  # its mean over seeds
    reliable: bool
    student: Row  # of the best mean score; the winner itself where no other is better

    @property
    def same(self) -> bool:
        return self.student is self.winner

    @property
    def points(self) -> float:
        """By how many percentage points the best student is better than that of the best value."""
        return 100 * (_mean_score(self.student) - _mean_score(self.winner))

    @property
    def within_intervals(self) -> bool:
        """Whether the two scores' 95 % intervals over seeds overlap, so that the difference may be chance."""
        better, other = self.student.score, self.winner.score
        if self.same or better is None or other is None or better.low is None or other.high is None:
            return False
        return better.low <= other.high


@once
def qualities(group: Group) -> list[Quality]:
    """Every metric that at least one finished trial has a value of, in the order of the table's columns."""
    found = [Quality(column, tuple(_points(group, group.rows, column))) for column in columns_of(group)]
    return [quality for quality in found if quality.points]


@once
def best_is_best(group: Group) -> list[BestImages]:
    """For each metric with a direction: the data-free method with the best mean value, and that with the best score.

    A method counts for a metric when at least one of its seeds has a value of it. Metrics that fewer than two methods
    have are left out. Of equal values the one with the better student is taken; of equal scores the one with the best
    value: RDSKD's observation is never made by a tie.
    """
    found = []
    for column in columns_of(group):
        better = column.metric.higher_is_better if column.metric else None
        measured = [(row, list(_points(group, [row], column))) for row in group.rows if row.data == "none"]
        entered = [_Entered(row, fmean(point.value for point in points), points) for row, points in measured if points]
        if better is None or len(entered) < 2:
            continue
        winner = max(entered, key=_by_value if better else _by_low_value)
        first = max(entered, key=_by_score)
        student = winner if _mean_score(winner.row) == _mean_score(first.row) else first
        reliable = all(point.reliable for point in winner.points)
        found.append(BestImages(column, winner.row, winner.mean, reliable, student.row))
    return found


class _Entered(NamedTuple):
    row: Row
    mean: float
    points: list[Point]


def _by_value(entered: _Entered) -> tuple[float, float]:
    return entered.mean, _mean_score(entered.row)


def _by_low_value(entered: _Entered) -> tuple[float, float]:
    return -entered.mean, _mean_score(entered.row)


def _by_score(entered: _Entered) -> float:
    return _mean_score(entered.row)


def _points(group: Group, rows: Iterable[Row], column: Column) -> Iterable[Point]:
    of_rows = measured_of(group)[column]
    for row in rows:
        for record, entry in of_rows.get(id(row), ()):
            if entry.value is not None and entry.status in ("ok", "unreliable"):
                yield Point(row, entry.value, record.scores[record.headline], entry.status == "ok")


def _correlation(points: Sequence[Point]) -> Correlation:
    values = [point.value for point in points]
    if len(set(values)) < FEWEST:
        return Correlation(len(points), None, None, None)
    return Correlation(len(points), *rank_correlation(values, [point.score for point in points]))


def _mean_score(row: Row) -> float:
    return row.score[0] if row.score else 0.0
