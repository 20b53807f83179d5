"""What the page of a trial shows, which trials have one, and how the other pages lead there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.analysis.record_text import sections
from bench.analysis.report.figures import trial_curve
from bench.analysis.report.pages.links import INDEX, method_page, sheet_file, task_page, trial_page
from bench.analysis.report.sections import leaderboard
from bench.analysis.report.sections.groups import Group, Row, measured_on, metric_word
from bench.records import Record, log_end, read_curves, read_sheets
from bench.records.selection import RULES
from bench.spec.custom_tasks import kept_task
from bench.spec.rerun import how_to_repeat

LISTED = 100  # trials without a page that a page names; the others are counted
LOG_LINES = 40

Place = tuple[Group, Row, Record]


def chosen(groups: Sequence[Group], limit: int | None = None) -> dict[str, Place]:
    """The trials that get a page, at most ``limit``, by id: of each row its first, then of each its second, and so on.

    In a row, those that failed come before the others, and lower seeds before higher ones.
    """
    turns = [
        (turn, group, row, record)
        for group in groups
        for row in (*group.rows, *group.left_out)
        for turn, record in enumerate(sorted(row.records, key=lambda record: record.status == "ok"))
    ]
    found: dict[str, Place] = {}
    for _, group, row, record in sorted(turns, key=lambda each: each[0]):
        if len(found) == limit:
            break
        found.setdefault(record.id, (group, row, record))
    return found


def shares(limit: int | None, wanted: Mapping[str, int]) -> dict[str, int]:
    """How many pages each task gets of ``limit``: equally many, and what one does not want, the others get.

    >>> shares(10, {"a": 2, "b": 90, "c": 90})
    {'a': 2, 'b': 4, 'c': 4}
    """
    found: dict[str, int] = {}
    for name, count in sorted(wanted.items(), key=lambda each: (each[1], each[0])):
        fair = count if limit is None else (limit - sum(found.values())) // (len(wanted) - len(found))
        found[name] = min(count, fair)
    return found


def page_of(record: Record, paged: Collection[str], up: str = "../") -> str:
    """The way to the page of a trial, empty where it has none; ``up`` leads to the report's folder."""
    return f"{up}{trial_page(record.id)}" if record.id in paged else ""


def seed_links(records: Iterable[Record], paged: Collection[str], up: str = "../") -> list[tuple[int, str]]:
    """The seed of each record, and the way to its page."""
    return [(record.trial.seed, page_of(record, paged, up)) for record in records]


def without_page(rows: Iterable[Row], paged: Collection[str]) -> dict[str, Any]:
    """How many trials of these rows have no page, and label, seed and id of the first of them."""
    found = {
        record.id: (row.label, record.trial.seed, record.id)
        for row in rows
        for record in row.records
        if record.id not in paged
    }
    return {"count": len(found), "listed": list(found.values())[:LISTED], "more": max(0, len(found) - LISTED)}


def trial_pages(
    places: Mapping[str, Place], results: Path, installed: Collection[str], study: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The id and what its page shows, for every trial of ``places``.

    Args:
        places: the trials that have a page.
        results: where they come from.
        installed: the names of the methods that are.
        study: the study's name.
    """
    curves, sheets = read_curves(results, places), read_sheets(results, places)
    own = cache(partial(kept_task, results))  # a look into an archive takes longer than all else of a page
    for name, place in places.items():
        repeat = how_to_repeat(place[2], installed, own)
        yield name, _page(place, places, curves.get(name, []), sheets.get(name), results, repeat, study)


def sheet_files(places: Collection[str], results: Path) -> dict[str, bytes]:
    """The contact sheets that the pages of these trials show, by their path in the report."""
    return {sheet_file(name, sheet): sheet for name, sheet in read_sheets(results, places).items()}


def _page(
    place: Place,
    paged: Collection[str],
    curve: trial_curve.Curve,
    sheet: bytes | None,
    results: Path,
    repeat: tuple[str, list[str]],
    study: str,
) -> dict[str, Any]:
    group, row, record = place
    trial = record.trial
    commands, caveats = repeat
    task, method = f"../{task_page(trial.task)}#{group.name}", f"../{method_page(trial.method)}"
    return {
        "nav": [
            (f"{study}: all results" if study else "All results", f"../{INDEX}"),
            (trial.task, task),
            (trial.method, method),
        ],
        "study": study,
        "id": record.id,
        "method": trial.method,
        "title": record.method.title,
        "label": row.label,
        "task": trial.task,
        "task_page": task,
        "method_page": method,
        "seed": trial.seed,
        "budget": leaderboard.budget_words(group),
        "ok": record.status == "ok",
        "status": record.status.replace("_", " "),
        "reason": record.reason,
        "metric": metric_word(record.metric),
        "measured_on": measured_on(record.metric, record.provenance),
        "score": f"{100 * record.scores[record.headline]:.1f} %" if record.scores else "",
        "rule": f"{record.headline}: {RULES.get(record.headline, '')}",
        "row_score": leaderboard.score_words(row),
        "seeds_words": leaderboard.seeds_words(row),
        "others": seed_links((each for each in row.records if each.id != record.id and each.id in paged), paged),
        "plots": trial_curve.plots(record, curve),
        "points": trial_curve.points(curve, leaderboard.columns(record.metric)["score"]),
        "teacher": group.dashed if leaderboard.teacher_words(group) else "",
        "size": (trial_curve.WIDTH, trial_curve.HEIGHT),
        "axes": (trial_curve.LEFT, trial_curve.RIGHT, trial_curve.TOP, trial_curve.BOTTOM),
        "sections": list(sections(record).values()),
        "sheet": f"../{sheet_file(record.id, sheet)}" if sheet else "",
        "segmentation": record.metric == "miou",
        "log": "\n".join(log_end(results, record.id, LOG_LINES)),
        "commands": commands,
        "caveats": caveats,
    }
