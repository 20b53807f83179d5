"""The index page: who leads where and how sure that is, and one table of all rows to sort and filter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bench.analysis.report.pages.links import INDEX, method_page, task_page
from bench.analysis.report.pages.task import repeat_words
from bench.analysis.report.pages.trial import seed_links
from bench.analysis.report.sections import leaderboard
from bench.analysis.report.sections.groups import Group, Row, ranks_of
from bench.analysis.report.sections.study import StudyWords, commits_of, finished, records_of, study_name
from bench.analysis.report.sections.verdict import AMONG, leading
from bench.analysis.stats import Interval
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
FEW = 4  # commits, budgets and teachers that are named
WORDS = ("task", "budget", "method", "data", "access", "outcome")
FILTERS = {
    "task": "Task",
    "data": "Real data",
    "access": "Access",
    "kind": "Kind of budget",
    "method": "Method",
    "outcome": "Outcome",
}


def board(groups: Sequence[Group], paged: Collection[str] = (), study: StudyWords | None = None) -> dict[str, Any]:
    """Everything that the index page shows.

    Args:
        groups: all of the report.
        paged: the ids of trials that have a page.
        study: what the results keep of their study.
    """
    words = study or StudyWords()
    name = study_name(words, groups)
    lines = [line for group in groups for line in _lines(group, paged)]
    names = dict.fromkeys(group.key.task for group in groups)
    return {
        "nav": [(f"{name}: all results" if name else "All results", INDEX)],
        "study": name,
        "question": words.description,
        "about": _about(groups),
        "repeat": repeat_words(groups, words),
        "leaders": [found for group in groups if (found := leader(group)) is not None],
        "heads": HEADS,
        "words": WORDS,
        "filters": [(name, title, _choices(lines, name)) for name, title in FILTERS.items()],
        "lines": lines,
        "tasks": [(task, task_page(task)) for task in names],
        "methods": [(method_page(name), name, facts) for name, facts in leaderboard.method_facts(groups)],
    }


def leader(group: Group) -> dict[str, Any] | None:
    """The best data-free row of a group and how sure it is that no other is better; None where there is none."""
    found = leading(group)
    if found is None:
        return None
    best = found.row
    return {
        "task": group.key.task,
        "budget": leaderboard.budget_words(group),
        "page": f"{task_page(group.key.task)}#{group.name}",
        "label": best.label if found.known else f"none: {best.label} is best, at chance level",
        "method_page": method_page(best.method),
        "among": "" if found.need == "none" else AMONG[found.need],
        "score": leaderboard.named_score(best),
        "lead": found.lead,
        "sure": found.sure,
    }


def _about(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """What a reader asks of a study before its numbers: when, with which code, budget and teacher."""
    records = records_of(groups)
    dates = sorted({day for record in records if (day := finished(record)[:10])})
    seeds = sorted({len(row.records) for group in groups for row in group.rows})
    failed = sum(record.status not in ("ok", "unsupported") for record in records)
    teachers = dict.fromkeys(filter(None, map(leaderboard.teacher_line, groups)))
    return [
        ("Run", f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else "".join(dates) or "date unknown"),
        ("Commit", _few(commits_of(records)) or "unknown"),
        ("Budget", _few(list(dict.fromkeys(map(leaderboard.budget_words, groups))))),
        ("Teacher" if len(teachers) < 2 else "Teachers", _few(list(teachers)) or "never loaded"),
        ("Trials", f"{len(records):,}{f', {failed:,} failed' if failed else ''}"),
        ("Seeds", str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "0"),
    ]


def _few(texts: Sequence[str]) -> str:
    return "; ".join(texts[:FEW]) + (f" and {len(texts) - FEW} more" if len(texts) > FEW else "")


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
        "score": leaderboard.named_score(row),
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
