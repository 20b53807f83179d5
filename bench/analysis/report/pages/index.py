"""The index page: who leads where and how sure that is, and one table of all rows to sort and filter."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any

from bench.analysis.report.pages.links import INDEX, method_page, task_page
from bench.analysis.report.pages.trial import seed_links
from bench.analysis.report.sections import leaderboard
from bench.analysis.report.sections.groups import Group, Row, ranks_of, tables_of
from bench.analysis.report.sections.sensitivity_numbers import chance_level
from bench.analysis.stats import Interval, compare_all
from bench.utils.text import cut

HEADS = {
    "task": "Task",
    "budget": "Budget",
    "method": "Method",
    "data": "Real data",
    "access": "Access",
    "rank": "Rank",
    "score": "Score, %",
    "normalised": "Normalised",
    "seeds": "Seeds",
    "outcome": "Outcome",
}
WORDS = ("task", "budget", "method", "data", "access", "outcome")
FILTERS = {
    "task": "Task",
    "data": "Real data",
    "access": "Access",
    "kind": "Kind of budget",
    "method": "Method",
    "outcome": "Outcome",
}
ALPHA = 0.05
NAMED = 6  # methods of a verdict; pairs.csv has all


def board(groups: Sequence[Group], paged: Collection[str] = ()) -> dict[str, Any]:
    """Everything that the index page shows; ``paged``: the ids of trials that have a page."""
    lines = [line for group in groups for line in _lines(group, paged)]
    names = dict.fromkeys(group.key.task for group in groups)
    return {
        "nav": [("Leaderboard", INDEX)],
        "leaders": [found for group in groups if (found := leader(group)) is not None],
        "heads": HEADS,
        "words": WORDS,
        "filters": [(name, title, _choices(lines, name)) for name, title in FILTERS.items()],
        "lines": lines,
        "tasks": [(task, task_page(task)) for task in names],
        "methods": [(method_page(name), name, facts) for name, facts in leaderboard.method_facts(groups)],
    }


def leader(group: Group) -> dict[str, str] | None:
    """The best data-free row of a group and how sure it is that no other is better; None where there is none."""
    ranking = [row for table in tables_of(group) if table.need == "none" for _, row in table.ranked if row.ok]
    if not ranking:
        return None
    best, chance = ranking[0], chance_level(group)
    known = best.score is not None and (chance is None or best.score.value > chance)
    return {
        "task": group.key.task,
        "budget": leaderboard.budget_words(group),
        "page": f"{task_page(group.key.task)}#{group.name}",
        "label": best.label if known else f"none: {best.label} is best, at chance level",
        "method_page": method_page(best.method),
        "score": leaderboard.score_words(best),
        "sure": _sure(ranking) if known else "no method has learnt more than guessing gives",
    }


def _sure(ranking: Sequence[Row]) -> str:
    """Against how many of the others the first is better, beyond chance."""
    best, others = ranking[0], ranking[1:]
    if not others:
        return "no other data-free method to compare with"
    if len(best.ok) == 1:
        return "one seed: chance cannot be assessed"
    scores: dict[str, dict[Hashable, float]] = {
        row.label: {record.trial.seed: record.scores[record.headline] for record in row.ok} for row in ranking
    }
    compared = compare_all(scores, against=best.label, level=None)
    clear = [
        name
        for (name, _), each in compared.items()
        if each.adjusted is not None and each.adjusted < ALPHA and each.difference < 0
    ]
    unclear = [row.label for row in others if row.label not in clear]
    said = f"better than {len(clear)} of {len(others)} others beyond chance, {len(best.ok)} seeds"
    named = f": {_few(clear)}" if clear else ""
    return f"{said}{named}" + (f"; not distinguishable from {_few(unclear)}" if unclear else "")


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''}"


def _lines(group: Group, paged: Collection[str]) -> list[dict[str, Any]]:
    ranks = ranks_of(group)
    return [_line(group, row, ranks.get(id(row), (None, 0))[0], paged) for row in (*group.rows, *group.left_out)]


def _line(group: Group, row: Row, rank: int | None, paged: Collection[str]) -> dict[str, Any]:
    first = row.records[0]
    normalised = group.normalised(row)
    bad = sorted({record.status for record in row.records if record.status != "ok"})
    outcome = "unsupported" if bad == ["unsupported"] else "some failed" if row.ok and bad else "failed" if bad else ""
    reasons = sorted({cut(record.reason) for record in row.records if record.status != "ok"})
    return {
        "filters": {
            "task": group.key.task,
            "data": leaderboard.DATA[row.data],
            "access": first.method.access,
            "kind": "|".join(unit.replace("_", " ") for unit in first.trial.budget),
            "method": row.method,
            "outcome": outcome or "finished",
        },
        "page": f"{task_page(group.key.task)}#{group.name}",
        "task": group.key.task,
        "budget": leaderboard.budget_words(group),
        "label": row.label,
        "method_page": method_page(row.method),
        "data": leaderboard.real_data(row),
        "access": first.method.access,
        "rank": rank,
        "mean": f"{row.score[0]:.9g}" if row.score else "",
        "score": leaderboard.score_words(row),
        "normalised_value": "" if normalised is None else f"{normalised:.9g}",
        "normalised": leaderboard.normalised_words(group, row),
        "span": _span(normalised, group.normalised_interval(row)),
        "ok": len(row.ok),
        "seeds": f"{len(row.ok)}/{len(row.records)}",
        "failed": _failed_pages(row, paged),
        "outcome": f"{', '.join(bad).replace('_', ' ')}: {'; '.join(reasons)}" if bad else "finished",
    }


def _failed_pages(row: Row, paged: Collection[str]) -> list[tuple[int, str]]:
    """Seed and page of those trials of a row that failed and have a page."""
    failed = [record for record in row.records if record.status != "ok" and record.id in paged]
    return seed_links(failed, paged, up="")


def _span(value: float | None, found: Interval | None) -> dict[str, str | None] | None:
    """Where dot and interval lie on a line from 0 to 100, cut off at its ends."""
    if value is None:
        return None
    low, high = (None, None) if found is None or found.low is None else (_place(found.low), _place(found.high or 0.0))
    return {"at": _place(value), "low": low, "high": high}


def _place(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.1f}"


def _choices(lines: Sequence[dict[str, Any]], name: str) -> list[str]:
    return sorted({choice for line in lines for choice in line["filters"][name].split("|")})
