"""``dfkd show`` and ``dfkd report``: from records to something to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import out
from bench.cli.places import Unfinished, latest, searched, unfinished
from bench.cli.settings import Json
from bench.errors import UserError
from bench.records import Record, as_json, find_trial, load_record
from bench.selection import RULES


def show(
    trial: Annotated[str, typer.Argument(metavar="TRIAL_ID", help="A trial's id, or how it begins.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="A results folder; may be repeated.  [default: all below ./runs and ./results]"
        ),
    ] = None,
    as_json_: Json = False,
) -> None:
    """Show all that is known of a trial: its identity, scores, what it spent and where it comes from."""
    folders = searched(results or [])
    try:
        folder = find_trial(folders, trial)
    except UserError:
        waiting = unfinished(folders, trial)
        if len(waiting) != 1:
            raise
        return out.print_json([_unfinished(waiting[0])]) if as_json_ else _print_unfinished(waiting[0])
    record = load_record(folder)
    if as_json_:
        return out.print_json([json.loads(as_json(record))])
    return _print_record(record, folder)


def report(
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results folder.  [default: the latest in ./runs]")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to.  [default: RESULTS/report]")
    ] = None,
) -> None:
    """Write the leaderboard, its figures and a page for all records of a results folder."""
    chosen = results or latest()

    from bench.report import render

    files = render(chosen, target or chosen / "report")
    for file in files:
        out.say(str(file))
    page = next((file for file in files if file.suffix == ".html"), files[0])
    out.say(f"\nreport of {chosen}: open {page.resolve().as_uri()}")


def _unfinished(trial: Unfinished) -> dict[str, Any]:
    progress = trial.progress
    return {
        "id": trial.id,
        "status": "unfinished",
        "folder": str(trial.folder),
        "state": progress.state if progress else None,
        "share": progress.share if progress else None,
        "score": progress.score if progress else None,
        "seconds": progress.seconds if progress else None,
        "checkpoint": trial.saved,
    }


def _print_unfinished(trial: Unfinished) -> None:
    out.say(f"{trial.id}: unfinished; running now, or stopped: the same `dfkd run` goes on with it")
    progress = trial.progress
    rows = [("folder", str(trial.folder)), ("checkpoint", "yes" if trial.saved else "none yet")]
    if progress is not None:
        score = f", score {out.percent(progress.score)}" if progress.score is not None else ""
        rows.append(("last seen", f"{progress.state}, {100 * progress.share:.0f} % of the budget{score}"))
    log = trial.folder / "log.txt"
    out.pairs([*rows, ("log", str(log) if log.is_file() else "")])


def _print_record(record: Record, folder: Path) -> None:
    trial = record.trial
    out.say(f"{record.id}: {trial.method} on {trial.task}, seed {trial.seed}: {record.status.replace('_', ' ')}")
    if record.reason:
        out.say(f"  {record.reason}")
    _section("method", [("title", record.method.title), ("paper", record.method.paper)])
    out.pairs([("real data", record.method.data), ("teacher access", record.method.access)])
    _section("options", [(name, str(value)) for name, value in trial.options.items()])
    rows = [
        (name, str(value)) for name, value in trial.model_dump(exclude={"options", "method", "task", "seed"}).items()
    ]
    _section("identity", [("study", record.study), *rows])
    if record.teacher is not None:
        teacher = record.teacher
        score = f"{record.metric} {out.percent(teacher.score)}"
        network = f"{teacher.network}, recipe {teacher.recipe}, seed {teacher.seed}"
        _section("teacher", [("network", network), ("test score", score), ("sha256", teacher.sha256)])
    _section(f"scores ({record.metric} on the test images)", _scores(record))
    metrics = record.image_metrics.items()
    _section("images", [("kept", str(record.images.count)), ("clipped", out.percent(record.images.clipped))])
    out.pairs([(name, f"{metric.value:.4f}" if metric.value is not None else metric.note) for name, metric in metrics])
    meter = record.meter.model_dump().items()
    _section("spent", [(name, _number(value)) for name, value in meter if value is not None])
    out.pairs([("stopped by", record.stopped_by), ("resumed", f"{out.count(record.resumed, 'time')}")])
    _section("provenance", [(name, _flat(value)) for name, value in record.provenance.items()])
    _section("files", [(file.name, out.size(file.stat().st_size)) for file in sorted(folder.iterdir())])
    out.say(f"  in {folder}")


def _scores(record: Record) -> list[tuple[str, str]]:
    """Every rule's score with what the rule is; the headline is marked."""
    rows = []
    for rule, score in record.scores.items():
        mark = "  <- headline" if rule == record.headline else ""
        rows.append((rule, f"{out.percent(score)}  {RULES.get(rule, '')}{mark}"))
    if record.agreement is not None:
        rows.append(
            ("agreement", f"{out.percent(record.agreement)}  test images on which this student agrees with the teacher")
        )
    return rows or [("none", "the trial did not end well")]


def _section(title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        out.say(f"\n{title}")
        out.pairs(rows)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items() if item not in (None, [], ""))
    return str(value)
