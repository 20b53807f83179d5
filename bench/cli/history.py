"""``dfkd history``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.analysis.regression.effects import check_name, own_effects
from bench.analysis.regression.filing import TRACKED
from bench.analysis.regression.history import Series, timeline
from bench.analysis.regression.history import history as series_of
from bench.cli import out
from bench.cli.settings import Json, Metric, Repo, Smallest, Tracked
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
        Path | None, typer.Option("--out", metavar="FILE", help="Write an HTML page with a figure per number.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show every number along the tracked commits, and the commits at which it stepped to another level."""
    for name in metric or []:
        check_name(name)
    own = own_effects(smallest or [])
    root = checkout_of(repo or Path())
    line, sides = timeline(root, tracked or root / TRACKED, branch)
    found = series_of(line, sides, own, metric)
    if page is not None:
        from bench.analysis.regression.page import history_page

        with writing(page.parent):
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(history_page(found, line, branch), encoding="utf-8")
    if as_json:
        return out.print_json([_plain(each) for each in found])
    _print(found)
    out.say(f"\n{branch}: {out.count(len(line), 'commit')}, {len(sides)} of them tracked")
    if is_shallow(root):
        out.say(SHALLOW)
    return out.say(f"page: {page.resolve().as_uri()}") if page is not None else None


def _print(found: list[Series]) -> None:
    from bench.analysis.regression.page import step_cells
    from bench.analysis.regression.summary import plain_number

    table = out.table("task", "method", "number", "commits", "now", "steps", right=["commits", "now", "steps"])
    for each in found:
        now = plain_number(each.means[-1], each.unit)
        table.add_row(each.task, each.method, each.metric, str(len(each.commits)), now, str(len(each.steps)))
    out.show(table)
    if not any(each.steps for each in found):
        return out.say("\nNo number has changed by as much as matters.")
    steps = out.table("task", "method", "number", "commit", "date", "before", "after", "verdict", "subject")
    for each in found:
        for place in range(len(each.steps)):
            steps.add_row(each.task, each.method, each.metric, *step_cells(each, place))
    out.say()
    return out.show(steps)


def _plain(series: Series) -> dict[str, Any]:
    return {
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
                "commit": step.commit.sha,
                "subject": step.commit.subject,
                "before": step.before,
                "after": step.after,
                "verdict": step.verdict,
                "untracked": [commit.sha for commit in step.untracked],
            }
            for step in series.steps
        ],
    }
