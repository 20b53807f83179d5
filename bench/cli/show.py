"""``dfkd show`` and ``dfkd report``: from records to something to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.budget import in_words
from bench.cli import out
from bench.cli.places import Unfinished, latest, searched, unfinished
from bench.cli.settings import Json, Sources
from bench.options import value_words
from bench.records import Record, as_json, is_archive, load_record, load_records, locate, trial_ids
from bench.selection import RULES


def show(
    trial: Annotated[str, typer.Argument(metavar="TRIAL_ID", help="A trial's id, or how it begins.")],
    results: Sources = None,
    as_json_: Json = False,
) -> None:
    """Show all that is known of a trial: its identity, scores, what it spent and where it comes from."""
    folders = searched(results or [])
    started = unfinished(folders, trial)
    if len(started) == 1 and not any(name.startswith(trial) for root in folders for name in trial_ids(root)):
        return out.print_json([_unfinished(started[0])]) if as_json_ else _print_unfinished(started[0])
    root, name = locate(folders, trial)
    if is_archive(root):
        from bench.records.archive import archive_left_out

        (record,) = load_records(root, [name])
        where, files = f"the folder, not in the archive {root}", archive_left_out(root, name)
    else:
        folder = root / "trials" / name
        record, where = load_record(folder), f"{folder}"
        files = [(file.name, file.stat().st_size) for file in sorted(folder.iterdir())]
    if as_json_:
        return out.print_json([json.loads(as_json(record))])
    return _print_record(record, where, files)


def report(
    results: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Results folder or archive.  [default: the latest in ./runs]")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where to.  [default: RESULTS/report, beside an archive ARCHIVE-report]"
        ),
    ] = None,
) -> None:
    """Write the leaderboard, its figures and a page for all records of a results folder."""
    chosen = results or latest()

    from bench.report import render

    beside = chosen.with_name(f"{chosen.stem}-report") if is_archive(chosen) else chosen / "report"
    files = render(chosen, target or beside)
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
    if (log := trial.folder / "log.txt").is_file():
        rows.append(("log", str(log)))
    out.pairs(rows)


def _print_record(record: Record, where: str, files: Sequence[tuple[str, int]]) -> None:
    trial, facts = record.trial, record.method
    out.say(f"{record.id}: {trial.method} on {trial.task}, seed {trial.seed}: {record.status.replace('_', ' ')}")
    if record.reason:
        out.say(f"  {record.reason}")
    method = [("title", facts.title), ("paper", facts.paper), ("real data", facts.data)]
    _section("method", [*method, ("teacher access", facts.access)])
    _section("options", [(name, value_words(value)) for name, value in trial.options.items()])
    rest = trial.model_dump(exclude={"options", "method", "task", "seed", "budget"})
    identity = [(name.replace("_", " "), value_words(value)) for name, value in rest.items()]
    _section("identity", [("study", record.study), ("budget", in_words(trial.budget)), *identity])
    if record.teacher is not None:
        teacher = record.teacher
        network = f"{teacher.network}, recipe {teacher.recipe}, seed {teacher.seed}"
        score = f"{out.percent(teacher.score)} {record.metric}"
        _section("teacher", [("network", network), ("test score", score), ("sha256", teacher.sha256)])
    _section(f"scores ({record.metric} on the test images)", _scores(record))
    images = [("kept", str(record.images.count)), ("clipped", out.percent(record.images.clipped))]
    for name, metric in record.image_metrics.items():
        images.append((name, metric.note if metric.value is None else f"{metric.value:.4f}"))
    _section("images that the student was trained on", images)
    meter = [(name.replace("_", " "), _number(value)) for name, value in record.meter.model_dump().items()]
    ends = [("stopped by", record.stopped_by), ("resumed", out.count(record.resumed, "time"))]
    _section("spent", [*meter, *ends])
    _section("provenance", [(name, _flat(value)) for name, value in record.provenance.items()])
    _section(f"files in {where}", [(name, out.size(size)) for name, size in files])


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


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items() if item not in (None, [], ""))
    return str(value)
