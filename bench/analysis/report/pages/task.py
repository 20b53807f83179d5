"""What a task's page shows of a group, in a reader's order: who wins, what it cost, the images, how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.report.figures.curves import first_sheets
from bench.analysis.report.figures.ranking import ends_of, ticks_of
from bench.analysis.report.pages import trial as trial_page
from bench.analysis.report.pages.drawing import Drawn
from bench.analysis.report.pages.links import method_page, sheet_file
from bench.analysis.report.pages.parallel import parallel
from bench.analysis.report.sections import (
    against,
    anytime,
    class_table,
    image_metrics,
    leaderboard,
    pool_text,
    published,
    quality_text,
    sweeps_text,
)
from bench.analysis.report.sections.groups import Group, Row, other_set, tables_of
from bench.analysis.report.sections.sensitivity_text import IMPORTANCE
from bench.analysis.report.sections.study import STUDY, StudyWords, finished, records_of
from bench.analysis.report.sections.verdict import AMONG, LeadVerdict, verdicts
from bench.spec.rerun import imported_teachers

UP = "../"  # from the page to the report's folder
FIRST = 12  # rows of a ranking, and of the costs; the others are folded
SHEETS = 8  # contact sheets; the others are folded
NEEDS = {"none": "Without real data", "pool": "With other real images", "train": "With the training images"}
COSTS = ("seconds", "gmacs", "memory", "teacher_images", "student_images", "real_images")
CHOICE = ("oracle", "gap", "agreement")  # columns on the choice of the student


def section(
    group: Group, results: Path, drawn: Drawn, paged: Collection[str] = (), study: StudyWords | None = None
) -> dict[str, Any]:
    """Everything that the page shows of a group.

    Args:
        group: rows that may be compared.
        results: where they come from.
        drawn: its figures.
        paged: ids of trials that have a page.
        study: what the results keep of their study.
    """
    shown: dict[str, Any] = {
        "name": group.name,
        "task": group.key.task,
        "budget": leaderboard.budget_words(group),
        "facts": leaderboard.facts(group),
        "verdicts": [_verdict(found) for found in verdicts(group)],
        "ranking": _ranking(group, paged),
        "ranking_picture": drawn.ranking.shown(UP) if drawn.ranking else None,
        "notes": leaderboard.notes(group),
        "also": [f"{found.row.label}, {AMONG[found.need]}: {found.sure}." for found in verdicts(group)[1:]],
        "without": trial_page.without_page((*group.rows, *group.left_out), paged),
        "costs": _costs(group),
        **_images(group, results, paged),
        "repeat": _repeat(group, study or StudyWords(), paged),
    }
    shown["details"] = [each for each in _details(group, drawn, paged) if each]
    return shown


def _verdict(found: LeadVerdict) -> dict[str, Any]:
    said, _, rest = found.sentence.partition(found.row.label)
    return {
        "before": said,
        "label": found.row.label,
        "after": rest,
        "method_page": f"{UP}{method_page(found.row.method)}",
        "sure": f"{found.sure[:1].upper()}{found.sure[1:]}." if found.known else "",
    }


# ---- who wins --------------------------------------------------------------------------------------------------------


def _ranking(group: Group, paged: Collection[str]) -> dict[str, Any]:
    """Every row once: the methods of each data need with their ranks, then the references, on one scale."""
    values = [100 * row.score.value for row in group.rows if row.score]
    values += [end for row in group.rows for end in ends_of(row) or ()]
    teacher = 100 * group.teacher.score if group.teacher else None
    ticks = ticks_of([*values, *([teacher] if teacher is not None else [])]) if values else []
    scale = (ticks[0], ticks[-1]) if len(ticks) > 1 else (0.0, 100.0)
    tables = tables_of(group)
    ranked = {id(row) for table in tables for _, row in table.ranked}
    bodies: list[tuple[str, list[tuple[int | None, Row]]]] = [
        (NEEDS[table.need], list(table.ranked)) for table in tables
    ]
    others: list[tuple[int | None, Row]] = [(None, row) for row in group.rows if id(row) not in ranked]
    if others:
        bodies.append(("For reference, with the training images", others))
    shown = [
        {
            "title": title,
            "first": [_line(group, rank, row, paged, scale, title.startswith("For")) for rank, row in rows[:FIRST]],
            "rest": [_line(group, rank, row, paged, scale, title.startswith("For")) for rank, row in rows[FIRST:]],
        }
        for title, rows in bodies
    ]
    return {
        "head": leaderboard.columns(group.key.metric)["score"],
        "bodies": shown,
        "ticks": [(_place(tick, scale), f"{tick:g}") for tick in ticks],
        "teacher": None if teacher is None else _place(teacher, scale),
        "teacher_words": group.dashed,
        "other_set": other_set(group.rows[0].records[0].provenance),
        "two": any(len(row.ok) == 2 for row in group.rows),
        "several": any(len(row.ok) > 2 for row in group.rows),
    }


def _line(
    group: Group, rank: int | None, row: Row, paged: Collection[str], scale: tuple[float, float], reference: bool
) -> dict[str, Any]:
    ends = ends_of(row)
    return {
        "rank": "ref" if reference else leaderboard.ABSENT if rank is None else str(rank),
        "label": row.label,
        "pool": row.records[0].trial.pool,
        "method_page": f"{UP}{method_page(row.method)}",
        "score": leaderboard.score_words(row),
        "normalised": leaderboard.normalised_words(group, row),
        "seeds": leaderboard.seeds_words(row),
        "trials": trial_page.seed_links(row.records, paged),
        "at": _place(100 * row.score.value, scale) if row.score else None,
        "ends": [_place(end, scale) for end in ends] if ends else [],
        "two": len(row.ok) == 2,
    }


def _place(value: float, scale: tuple[float, float]) -> str:
    low, high = scale
    return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}"


# ---- what it cost ----------------------------------------------------------------------------------------------------


def _costs(group: Group) -> dict[str, Any]:
    """The cost of every row that finished, in the order of the ranking, some of it with bars."""
    tables = tables_of(group)
    order = [row for table in tables for _, row in table.ranked]
    there = set(map(id, order))
    order += [row for row in group.rows if id(row) not in there]
    found = [(row, {name: row.mean(leaderboard.METER[name]) for name in COSTS}) for row in order if row.ok]
    most = {name: max((costs[name] or 0.0 for _, costs in found), default=0.0) for name in COSTS}
    bars = ("seconds", "gmacs", "memory")
    lines = [
        {
            "label": row.label,
            "method_page": f"{UP}{method_page(row.method)}",
            "cells": [
                (
                    leaderboard.ABSENT if costs[n] is None else f"{costs[n]:,.{leaderboard.DECIMALS.get(n, 0)}f}",
                    f"{100 * (costs[n] or 0.0) / most[n]:.1f}" if n in bars and most[n] else "",
                )
                for n in COSTS
            ],
        }
        for row, costs in found
    ]
    return {
        "said": _cost_sentence(group, [(row, costs["seconds"] or 0.0) for row, costs in found]),
        "heads": [leaderboard.COLUMNS[name] for name in COSTS],
        "first": lines[:FIRST],
        "rest": lines[FIRST:],
    }


def _cost_sentence(group: Group, seconds: Sequence[tuple[Row, float]]) -> str:
    """What the leader took, beside the quickest and the slowest."""
    if not seconds:
        return ""
    parts = [f"Every trial had a budget of {leaderboard.budget_words(group)}."]
    found = verdicts(group)
    best = found[0].row if found else seconds[0][0]
    gmacs, memory = best.mean(leaderboard.METER["gmacs"]), best.mean(leaderboard.METER["memory"])
    own = [f"{next(spent for row, spent in seconds if row is best):,.1f} seconds"]
    own += [f"{gmacs:,.1f} GMACs"] if gmacs is not None else []
    own += [f"{memory:,.0f} MiB"] if memory is not None else []
    parts.append(f"A seed of {best.label} took {', '.join(own)}.")
    by_time = sorted(seconds, key=lambda each: (each[1], each[0].label))
    (quick, least), (slow, most) = by_time[0], by_time[-1]
    if len(seconds) > 1:
        parts.append(f"The quickest was {quick.label} ({least:,.1f} s), the slowest {slow.label} ({most:,.1f} s).")
    return " ".join(parts)


# ---- what the images look like ---------------------------------------------------------------------------------------


def _images(group: Group, results: Path, paged: Collection[str]) -> dict[str, Any]:
    sheets = [
        {
            "source": f"{UP}{sheet_file(record.id, sheet)}",
            "label": row.label,
            "seed": record.trial.seed,
            "page": trial_page.page_of(record, paged),
            "count": f"{record.images.count:,}",
            "clipped": f"{100 * record.images.clipped:.1f}",
        }
        for row, record, sheet in sorted(first_sheets(group, results), key=lambda each: each[0].data != "none")
    ]
    return {"sheets": sheets[:SHEETS], "more_sheets": sheets[SHEETS:], "segmentation": group.key.metric == "miou"}


# ---- how to repeat it ------------------------------------------------------------------------------------------------


def _repeat(group: Group, study: StudyWords, paged: Collection[str]) -> dict[str, Any]:
    """The commands that run the whole study again, and the trial whose page has those for it alone."""
    return repeat_words([group], study, UP) | {"trial": _first_page(group, paged)}


def _first_page(group: Group, paged: Collection[str]) -> tuple[str, str] | None:
    """Words and way to the page of the leader's first trial; None where it has none."""
    for found in verdicts(group):
        for record in found.row.ok:
            if record.id in paged:
                return f"{found.row.label}, seed {record.trial.seed}", trial_page.page_of(record, paged)
    return None


def repeat_words(groups: Sequence[Group], study: StudyWords, up: str = "") -> dict[str, Any]:
    """The commands for a whole study, if it was kept, and what they do not bring back."""
    records = records_of(groups)
    commits = list(dict.fromkeys(str(c) for record in records if (c := record.provenance.get("commit"))))
    run = ["dfkd", "run", STUDY, "--results", "again"]
    devices = sorted({record.trial.device.partition(":")[0] for record in records})
    run += ["--device", devices[0]] if len(devices) == 1 else []
    run += ["--allow-altered"] if any(record.trial.altered_data for record in records) else []
    lines = [f"git checkout {shlex.quote(commits[-1])}"] if commits else []
    caveats = []
    if len(commits) > 1:
        caveats.append(
            f"The trials were run at {len(commits)} commits; this is the last. A trial's page names its own."
        )
    if any(record.provenance.get("dirty") for record in records):
        caveats.append("Some trials were run with uncommitted changes, which were not recorded.")
    if imported := ", ".join(sorted({key for record in records for key in imported_teachers(record)})):
        caveats.append(f"Teachers that were imported: {imported}. Import the same weights first.")
    return {
        "study": f"{up}{STUDY}" if study.text else "",
        "commands": "\n".join([*lines, shlex.join(run), "dfkd report --results again"]) if study.text else "",
        "caveats": caveats,
        "last": max((finished(record)[:10] for record in records), default=""),
    }


# ---- the details -----------------------------------------------------------------------------------------------------


def _details(group: Group, drawn: Drawn, paged: Collection[str]) -> list[dict[str, Any]]:
    """Each with a title, an anchor, and what its parts are; what has none is left out."""

    def detail(anchor: str, title: str, *parts: Mapping[str, Any] | None) -> dict[str, Any]:
        there = [part for part in parts if part]
        return {"id": f"{group.name}-{anchor}", "title": title, "parts": there} if there else {}

    found = [
        detail("curves", "Score against the budget", _picture(drawn.curves, curves=drawn.curve_data)),
        detail(
            "anytime",
            anytime.TITLE,
            _table(anytime.anytime_table(group, drawn.measured)),
            _notes(anytime.anytime_notes(group, drawn.measured)),
        ),
        detail("choice", "How the student was chosen", _table(_choices(group)), _notes(_choice_notes())),
        detail("classes", class_table.TITLE, _table(class_table.class_table(group))),
        detail(
            "images",
            image_metrics.TITLE,
            _table(image_metrics.image_table(group)),
            _notes(image_metrics.image_notes(group)) if image_metrics.image_table(group) else None,
        ),
        detail(
            "pools",
            pool_text.TITLE,
            _table(pool_text.pool_table(group)),
            _notes([pool_text.NOTE]) if pool_text.pool_table(group) else None,
            _picture(drawn.kept),
        ),
    ]
    for number, each in enumerate(drawn.sections):
        found.append(
            detail(
                f"options-{number}",
                each.title,
                *(_picture(picture) for picture in each.heat),
                _picture(each.lines),
                parallel(each.of, group, f"{group.name}-parallel-{number}"),
                _table(each.robustness),
                _table(each.importance, IMPORTANCE),
                _notes(each.notes),
            )
        )
    for number, sweep in enumerate(drawn.sweeps):
        found.append(
            detail(
                f"option-{number}",
                f"{sweeps_text.TITLE}: {sweep.title}",
                _picture(sweep.picture),
                _table(sweep.table),
                _notes(sweep.notes),
            )
        )
    found.append(
        detail(
            "quality",
            quality_text.TITLE,
            _picture(drawn.scatter),
            _table(quality_text.quality_table(group)),
            _notes(quality_text.sentences(group)),
        )
    )
    if failures := [
        (leaderboard.failure(row, record), trial_page.page_of(record, paged)) for row, record in group.failures
    ]:
        found.append(detail("failures", f"Failures: {len(failures)}", {"kind": "failures", "lines": failures}))
    if compared := against.against_table(group):
        found.append(detail("against", against.TITLE, _table(compared), _notes(against.NOTES)))
    if quotes := published.published(group):
        part = {"kind": "quotes", "warning": published.WARNING, "head": published.HEAD, "lines": quotes}
        found.append(detail("published", published.TITLE, part))
    return found


def _picture(picture: Any, curves: str = "") -> dict[str, Any] | None:
    return {"kind": "picture", "curves": curves, **picture.shown(UP)} if picture else None


def _table(table: Sequence[Sequence[str]], title: str = "") -> dict[str, Any] | None:
    return {"kind": "table", "title": title, "head": table[0], "lines": table[1:]} if table else None


def _notes(notes: Sequence[str]) -> dict[str, Any] | None:
    return {"kind": "notes", "notes": notes} if notes else None


def _choices(group: Group) -> list[list[str]]:
    rows = [row for row in group.rows if row.ok]
    heads = leaderboard.columns(group.key.metric)
    names = [name for name in CHOICE if name in heads]
    lines = [[row.label, *(leaderboard.cells(group, None, row, False)[name] for name in names)] for row in rows]
    return [["Method", *(heads[name] for name in names)], *lines] if lines else []


def _choice_notes() -> list[str]:
    return [f"{name}: {leaderboard.MEANINGS[name]}." for name in ("Oracle", "Gap", "Agreement")]
