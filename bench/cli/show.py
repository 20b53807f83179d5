"""``dfkd show`` and ``dfkd report``: from records to something to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.analysis.record_text import sections
from bench.cli import out
from bench.cli.places import Unfinished, latest, searched, unfinished
from bench.cli.settings import Json, Sources
from bench.records import Record, as_json, is_archive, load_records, locate, open_results, place_of, trial_ids
from bench.records.folder import ARCHIVE
from bench.records.foreign import is_there
from bench.utils.text import cut

LONGEST = 2_000  # characters of a reason
TRIAL_PAGES = 200  # a report of thousands of trials stays small


def show(
    trial: Annotated[str, typer.Argument(metavar="TRIAL_ID", help="A trial's id or its beginning.")],
    results: Sources = None,
    as_json_: Json = False,
) -> None:
    """Show everything about a trial: identity, scores, cost and provenance."""
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
        (record,), where = load_records(root, [name]), f"{folder}"
        files = [(file.name, file.stat().st_size) for file in sorted(folder.iterdir())]
    if as_json_:
        return out.print_json([json.loads(as_json(record))])
    _print_record(record, where, files)
    return _print_repeat(record, root)


def report(
    results: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Results folder or archive.  [default: the latest in ./runs]")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to write.  [default: RESULTS/report; for an archive NAME.parquet: NAME-report]",
        ),
    ] = None,
    trial_pages: Annotated[
        int, typer.Option(min=0, metavar="N", help="Maximum number of trial pages; 0 for none.")
    ] = TRIAL_PAGES,
    single_file: Annotated[
        bool,
        typer.Option("--single-file", help="Also write report.html, one page with everything in it, to send by mail."),
    ] = False,
) -> None:
    """Write the leaderboard, figures and pages of a results folder or an archive."""
    chosen = place_of(results) if results else latest()

    from bench.analysis.report import render
    from bench.utils.hardware import usable_cores

    folder = chosen.parent if chosen.name == ARCHIVE else chosen
    beside = chosen.with_name(f"{chosen.stem}-report") if is_archive(folder) else folder / "report"
    open_results(chosen)
    files = render(chosen, target or beside, trial_pages, usable_cores(), single_file)
    many = {name: [file for file in files if file.parent.name == name] for name in ("figures", "images", "trials")}
    for file in files:
        if file.parent.name not in many:
            out.say(str(file))
    for name, those in many.items():
        if those:
            out.say(f"{those[0].parent}: {out.count(len(those), 'page' if name == 'trials' else 'file')}")
    page = next((file for file in files if file.name == "index.html"), files[0])
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
    out.say(f"{trial.id}: unfinished: running now, or interrupted; the same `dfkd run` continues it")
    progress = trial.progress
    rows = [("folder", str(trial.folder)), ("checkpoint", "yes" if trial.saved else "none yet")]
    if progress is not None:
        score = f", score {out.percent(progress.score)}" if progress.score is not None else ""
        rows.append(("last seen", f"{progress.state}, {100 * progress.share:.0f} % of the budget{score}"))
    if is_there(log := trial.folder / "log.txt"):
        rows.append(("log", str(log)))
    out.pairs(rows)


def _print_record(record: Record, where: str, files: Sequence[tuple[str, int]]) -> None:
    trial = record.trial
    out.say(f"{record.id}: {trial.method} on {trial.task}, seed {trial.seed}: {record.status.replace('_', ' ')}")
    if record.reason:
        out.say(f"  {cut(record.reason, LONGEST)}")
    for section in sections(record).values():
        _section(section.title, [(name, f"{value}  {remark}") for name, value, remark in section.rows])
    _section(f"files in {where}", [(name, out.size(size)) for name, size in files])


def _print_repeat(record: Record, results: Path) -> None:
    """The commands without an indent, ready to copy."""
    from bench.spec.custom_tasks import kept_task
    from bench.spec.method_registry import find_methods
    from bench.spec.rerun import how_to_repeat

    commands, caveats = how_to_repeat(record, find_methods(), partial(kept_task, results))
    out.say("\nrun it again")
    for text in (*caveats, *([commands] if commands else [])):
        out.say(text)


def _section(title: str, rows: list[tuple[str, str]]) -> None:
    out.say(f"\n{title}")
    out.pairs(rows)
