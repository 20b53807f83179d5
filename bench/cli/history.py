"""``dfkd history``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.analysis.regression.cells import own_names
from bench.analysis.regression.effects import check_name, check_rule, own_effects
from bench.analysis.regression.filing import TRACKED
from bench.analysis.regression.history import History, Series, timeline
from bench.analysis.regression.history import history as series_of
from bench.cli import out
from bench.cli.settings import Json, Metric, Renamed, Repo, Score, Smallest, Tracked
from bench.records.folder import writing
from bench.utils.git import SHALLOW, checkout_of, is_shallow


def history(
    branch: Annotated[
        str, typer.Argument(metavar="[BRANCH]", help="The branch or commit at which the history ends.")
    ] = "HEAD",
    tracked: Tracked = None,
    repo: Repo = None,
    metric: Metric = None,
    smallest: Smallest = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write an HTML page with a figure per number, and a feed beside it."
        ),
    ] = None,
    rule: Score = None,
    renamed: Renamed = None,
    as_json: Json = False,
) -> None:
    """Show every number along the tracked commits, and the commits at which it stepped to another level."""
    for name in metric or []:
        check_name(name)
    check_rule(rule)
    own, names = own_effects(smallest or []), own_names(renamed or [])
    root = checkout_of(repo or Path())
    line, sides = timeline(root, tracked or root / TRACKED, branch)
    found = series_of(line, sides, own, metric, renamed=names, rule=rule)
    if page is not None:
        from bench.analysis.regression.page import history_feed, history_page

        feed = page.with_suffix(".atom")

        with writing(page.parent):
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(history_page(found, line, branch, feed.name), encoding="utf-8")
            feed.write_text(history_feed(found, branch), encoding="utf-8")
    if as_json:
        return out.print_json(_objects(found))
    _print(found)
    out.say(f"\n{branch}: {out.count(len(line), 'commit')}, {len(sides)} of them tracked")
    if is_shallow(root):
        out.say(SHALLOW)
    return out.say(f"page: {page.resolve().as_uri()}") if page is not None else None


def _print(found: History) -> None:
    from bench.analysis.regression.page import tables
    from bench.analysis.regression.summary import plain_number

    table = out.table("task", "method", "number", "commits", "now", "steps", right=["commits", "now", "steps"])
    for each in found.series:
        now = plain_number(each.means[-1], each.unit)
        steps = "drift" if each.drift else str(len(each.steps))
        table.add_row(each.task, each.method, each.metric, str(len(each.commits)), now, steps)
    out.show(table)
    if not any(each.steps or each.drift for each in found.series):
        out.say("\nNo number has changed by as much as matters.")
    for title, columns, rows in tables(found):
        if rows:
            shown = out.table(*(name.lower() for name in columns))
            for row in rows:
                shown.add_row(*row)
            out.say(f"\n{title.lower()}")
            out.show(shown)


def _objects(found: History) -> list[dict[str, Any]]:
    events = [
        {
            "what": "event",
            "task": event.task,
            "metric": event.metric,
            "commit": event.commit.sha,
            "last": event.last.sha,
            "methods": list(event.methods),
            "sizes": list(event.sizes),
            "verdict": event.verdict,
            "also_changed": event.why,
        }
        for event in found.events
    ]
    questions = [
        {"what": "question", "task": each.task, "text": each.text, "answer": each.answer} for each in found.questions
    ]
    return [*(_plain(each) for each in found.series), *events, *questions]


def _plain(series: Series) -> dict[str, Any]:
    return {
        "what": "series",
        "task": series.task,
        "method": series.method,
        "metric": series.metric,
        "unit": series.unit,
        "points": [
            {"commit": commit.sha, "date": commit.date, "mean": mean, "values": list(values.values())}
            for commit, mean, values in zip(series.commits, series.means, series.values, strict=True)
        ],
        "steps": [
            {
                "last": step.last.sha,
                "commit": step.commit.sha,
                "subject": step.commit.subject,
                "before": step.before,
                "after": step.after,
                "low": step.low,
                "high": step.high,
                "verdict": step.verdict,
                "untracked": [commit.sha for commit in step.untracked],
                "options": step.options,
                "together": step.together,
            }
            for step in series.steps
        ],
        "drift": None
        if series.drift is None
        else {
            "first": series.drift.first.sha,
            "last": series.drift.last.sha,
            "before": series.drift.before,
            "after": series.drift.after,
            "low": series.drift.low,
            "high": series.drift.high,
            "verdict": series.drift.verdict,
        },
        "changes": [{"commit": commit.sha, "options": words} for commit, words in series.changes],
    }
