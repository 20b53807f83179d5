"""``dfkd status``, ``dfkd cancel`` and ``dfkd retry``: a study that runs, here or elsewhere."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import complete, out
from bench.cli.places import latest
from bench.cli.run import (
    CheckpointSeconds,
    Device,
    Executor,
    FolderOfResults,
    Of,
    Quiet,
    StopAfter,
    StopAt,
    Workers,
    run_and_print,
)
from bench.cli.settings import AllowAltered, DataFolder, Isolation, Json, MethodFiles, Weights
from bench.errors import UserError, nearest_folder
from bench.execution.parts import StudyPart
from bench.execution.plan import RUNS, failed_of, plan_study
from bench.execution.run_study import CHECKPOINT_SECONDS
from bench.execution.slurm_queue import queue_words
from bench.records import is_archive, open_results
from bench.spec.study import find_study
from bench.utils.stopping import stop_time

SHOWN = 5  # failed trials and running ones that are named
Where = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY|RESULTS]",
        autocompletion=complete.studies,
        help="A study, or a results folder.  [default: the folder below ./runs that changed last]",
    ),
]


def status(where: Where = None, as_json: Json = False) -> None:
    """Show how far a study has come: trials done, running, failed and waiting, and the time left.

    Reads the results folder only, and works from any machine that sees it.
    """
    from bench.execution.overview import Overview, overview

    found = [overview(folder) for folder in _folders(where)]
    if as_json:
        return out.print_json([_plain(each) for each in found])

    def show(each: Overview) -> None:
        driver = each.driver
        name = f"{driver.study}{f', part {driver.part}' if driver.part else ''}" if driver else "study"
        out.say(f"{name} in {each.results}: {out.count(each.trials, 'trial')}")
        counts = [("done", each.done), ("running", len(each.running)), ("failed", len(each.failed))]
        counts += [("stopped and saved", each.saved), ("waiting", each.waiting)]
        out.pairs((what, f"{count:,}") for what, count in counts if count or what in ("done", "waiting"))
        for one in each.running[:SHOWN]:
            spent = f", {100 * one.progress.share:.0f} % spent" if one.progress else ""
            state = one.progress.state if one.progress else "starting"
            out.say(f"  {state}  {one.trial.label}, seed {one.trial.seed}, {one.trial.task} ({one.trial.id}){spent}")
        for record in each.failed[:SHOWN]:
            out.say(
                f"  {record.status.replace('_', ' ')}: {record.trial.method}, seed {record.trial.seed} ({record.id})"
            )
        if len(each.failed) > SHOWN:
            out.say(f"  ... and {len(each.failed) - SHOWN} more")
        for sentence in queue_words(each.results):
            out.say(sentence)
        out.say(_driver_words(each))

    for place, each in enumerate(found):
        if place:
            out.say()
        show(each)
    return None


def _driver_words(each: Any) -> str:
    driver = each.driver
    if driver is None:
        return "an earlier version ran it: trials that have not begun are not known"
    left = f"about {out.duration(each.seconds_left)} left" if each.seconds_left else ""
    if driver.running:
        many = f"{out.count(driver.workers, 'trial')} at a time"
        return f"running on {driver.host} ({many})" + (f"; {left}" if left else "; the time left is not known yet")
    seen = datetime.datetime.fromtimestamp(driver.seen).strftime("%Y-%m-%d %H:%M")
    nothing = f"nothing runs; the last run, on {driver.host}, was seen at {seen}"
    if not each.failed and each.done == each.trials:
        return nothing
    if each.saved + each.waiting + len(each.running) == 0:
        return f"{nothing}; `dfkd retry --failed` runs what failed again"
    return f"{nothing}; `dfkd run` continues" + (f", {left}" if left else "")


def _plain(each: Any) -> dict[str, Any]:
    driver = each.driver
    return {
        "results": str(each.results),
        "study": driver.study if driver else None,
        "part": (driver.part or None) if driver else None,
        "trials": each.trials,
        "done": each.done,
        "running": [{"id": one.trial.id, "share": one.progress.share if one.progress else 0.0} for one in each.running],
        "failed": [{"id": record.id, "status": record.status, "reason": record.reason} for record in each.failed],
        "saved": each.saved,
        "waiting": each.waiting,
        "seconds_left": each.seconds_left,
        "alive": bool(driver and driver.running),
        "host": driver.host if driver else None,
        "executor": driver.executor if driver else None,
    }


def _folders(where: str | None) -> list[Path]:
    """The results folder that is meant, or those of a study and its parts."""
    if where is None:
        return [latest()]
    if is_archive(Path(where)):
        raise UserError(f"{where} is an archive, and nothing runs in one; name a study or a results folder")
    if Path(where).is_dir():
        return [open_results(Path(where))]
    from bench.spec.study import load_study

    try:
        file = find_study(where)
    except UserError:
        if near := nearest_folder(Path(where)):
            raise UserError(f"there is no study or results folder {where}{near}") from None
        raise
    name = load_study(file).study.name
    found = [RUNS / name, *sorted(RUNS.glob(f"{name}.part-*-of-*"))]
    there = [folder for folder in found if (folder / "results.json").exists()]
    if not there:
        raise UserError(f"nothing of {name} has run in {RUNS / name}; name its results folder")
    return [open_results(folder) for folder in there]


def cancel(
    where: Where = None,
    wait: Annotated[
        float, typer.Option(min=0.0, metavar="S", help="Seconds to wait until the trials are saved.")
    ] = 60.0,
) -> None:
    """Ask a running study to save its trials and stop, also on another machine that shares the folder.

    The command that ran it ends with exit code 75, and continues when it is given again.

    Exit code: 0 it has stopped, or nothing was running; 75 it has been asked, and is still saving.
    """
    from bench.cli import GO_ON_LATER
    from bench.execution.driver import cancel as ask

    late = False
    for folder in _folders(where):
        stopped = ask(folder, wait)
        late |= stopped is False
        words = {None: "nothing is running", True: "saved and stopped", False: "was asked to stop, and is still saving"}
        out.say(f"{folder}: {words[stopped]}")
    if late:
        raise typer.Exit(GO_ON_LATER)


def retry(
    study: Of,
    failed: Annotated[bool, typer.Option("--failed", help="The trials that failed.")] = False,
    results: FolderOfResults = None,
    part: Annotated[str | None, typer.Option(metavar="N/M", help="Of this part of the study.")] = None,
    executor: Executor = "processes",
    workers: Workers = None,
    device: Device = "auto",
    quiet: Quiet = False,
    method: MethodFiles = None,
    data: DataFolder = None,
    weights: Weights = None,
    allow_altered: AllowAltered = False,
    checkpoint_seconds: CheckpointSeconds = CHECKPOINT_SECONDS,
    isolation: Isolation = None,
    stop_after: StopAfter = None,
    stop_at: StopAt = None,
) -> None:
    """Run the failed trials of a study again, and no others. `dfkd run` runs them and those that have not run.

    Exit codes are those of `dfkd run`.
    """
    from dataclasses import replace

    if not failed:
        raise UserError("say which trials to run again: --failed")
    ends = stop_time(stop_after, stop_at)
    file = find_study(study)
    plan = plan_study(
        file,
        results=results,
        device=device,
        method_files=method or [],
        allow_altered=allow_altered,
        data_folder=data,
        part=StudyPart.parse(part) if part else None,
    )
    if results is not None:
        open_results(plan.results)
    again = failed_of(plan)
    if not again:
        ran = len(plan.finished)
        return out.say(
            f"no trial of {plan.study.name} has failed ({ran} of {out.count(len(plan.trials), 'trial')} done)"
        )
    return run_and_print(
        replace(plan, trials=tuple(again)),
        file,
        ends,
        quiet,
        executor=executor,
        workers=workers,
        data_folder=data,
        weights=weights,
        allow_altered=allow_altered,
        checkpoint_seconds=checkpoint_seconds,
        isolation=isolation,
    )
