"""How each method stands in a group of a study: found, and made plain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.analysis.report.figures.curves import line_of
from bench.analysis.report.figures.ranking import ends_of
from bench.analysis.report.sections import leaderboard
from bench.analysis.report.sections.anytime import never_asks, score_key
from bench.analysis.report.sections.groups import CurvesOf, Group, Row, metric_word, ranks_of
from bench.analysis.report.sections.sensitivity_numbers import chance_level
from bench.analysis.report.sections.standings import Standing, usual_row
from bench.records import trial_id
from bench.spec.budget import UNITS
from bench.spec.method_card import MethodCard

DIGITS = 2  # of percent


def standings(study: str, group: Group, curves: CurvesOf, cards: Mapping[str, MethodCard]) -> list[Standing]:
    """One for each method of a group that has a score.

    A method with several rows is shown by the one that departs from the fewest of its defaults, as installed here: the
    row is not chosen by its score.

    Args:
        study: its name in the site.
        group: rows that may be compared.
        curves: of the group.
        cards: of the installed methods.
    """
    rows: dict[str, list[Row]] = {}
    for row in group.rows:
        if row.score:
            rows.setdefault(row.method, []).append(row)
    ranks = ranks_of(group)
    return [
        _standing(study, group, usual_row(found, cards.get(method)), len(found) - 1, ranks, curves)
        for method, found in sorted(rows.items())
    ]


def _standing(
    study: str, group: Group, row: Row, others: int, ranks: Mapping[int, tuple[int, int]], curves: CurvesOf
) -> Standing:
    assert row.score is not None
    first, rank = row.records[0], ranks.get(id(row))
    ends = ends_of(row)
    verified, not_the_same = leaderboard.verified_of(row)
    return Standing(
        study=study,
        task=group.key.task,
        group=group.name,
        conditions=trial_id(group.key._replace(budget="")._asdict())[:8],
        budget={unit: float(first.trial.budget[unit]) for unit in UNITS if unit in first.trial.budget},
        budget_words=leaderboard.budget_words(group),
        teacher=leaderboard.teacher_line(group),
        metric=metric_word(group.key.metric),
        method=row.method,
        title=first.method.title,
        paper=first.method.paper,
        need=row.data,
        label=row.label,
        others=others,
        score=round(100 * row.score.value, DIGITS),
        ends=[round(end, DIGITS) for end in ends] if ends else [],
        score_words=leaderboard.named_score(row),
        normalised=leaderboard.normalised_words(group, row),
        rank=f"{rank[0]} of {rank[1]}" if rank else "",
        seeds=len(row.ok),
        verified=verified,
        not_the_same=not_the_same,
        known=(chance := chance_level(group)) is None or row.score.value > chance,
        curve=_curve(group, row, curves),
        asked=_asked(group, row, curves),
    )


def _curve(group: Group, row: Row, curves: CurvesOf) -> dict[str, list[list[float]]]:
    """The mean score on the way over what had been spent of each limit of the budget."""
    found: dict[str, list[list[float]]] = {}
    read: list[Mapping[str, Any]] = [curves[record.id] for record in row.ok if record.id in curves]
    for unit in row.records[0].trial.budget:
        counted = "student_images" if unit == "teacher_images" and never_asks(row) else unit
        line = line_of(read, counted, score_key(group.key.headline)) if read else None
        if line is not None:
            found[unit] = [[round(float(value), DIGITS) for value in axis] for axis in (line.x, line.y)]
    return found


def _asked(group: Group, row: Row, curves: CurvesOf) -> list[list[float]]:
    """The mean score on the way over the teacher images that were asked for, with its interval; without the start."""
    read: list[Mapping[str, Any]] = [curves[record.id] for record in row.ok if record.id in curves]
    line = line_of(read, "teacher_images", score_key(group.key.headline)) if read and not never_asks(row) else None
    if line is None:
        return []
    begun = line.x > 0
    return [[round(float(value), DIGITS) for value in axis[begun]] for axis in (line.x, line.y, line.low, line.high)]
