"""``dfkd reproduce``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.analysis.report.sections.against import HEAD, against, cells
from bench.analysis.report.sections.grouping import read_groups
from bench.cli import complete, out
from bench.cli.run import audience_for, print_summary, stopped
from bench.cli.settings import AllowAltered, DataFolder, Isolation
from bench.errors import UserError
from bench.execution.estimate import estimate
from bench.execution.plan import RUNS, Plan, plan_study
from bench.execution.run_study import Summary, run_plan
from bench.spec.budget import in_words
from bench.spec.custom_tasks import published_of_kept
from bench.spec.reproduction import reproduction, written
from bench.spec.trial import Trial
from bench.utils.stopping import listening


def reproduce(
    paper: Annotated[
        str,
        typer.Argument(
            metavar="PAPER",
            autocompletion=complete.papers,
            help="A source of quoted numbers (`dfad`), or a study below studies/reproduce (`mnist`).",
        ),
    ],
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="NAME", help="Only rows of this method or task; may be repeated."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Seeds, from 0 on.  [default: the paper's runs; 3 if not known]"),
    ] = None,
    budget_share: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of every budget, above 0 and at most 1.")
    ] = 1.0,
    quick_teacher: Annotated[
        bool, typer.Option("--quick-teacher", help="With the teachers for small machines, not the papers'.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results folder.  [default: runs/<name of the study>]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rows and write nothing.")] = False,
    try_seconds: Annotated[
        float | None,
        typer.Option("--try", metavar="S", help="With --dry-run: run each row for so long, and estimate its time."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Trials to run in parallel.  [default: as for `dfkd run`]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print plain lines instead of the live table.")] = False,
    data: DataFolder = None,
    allow_altered: AllowAltered = False,
    isolation: Isolation = None,
) -> None:
    """Run what a paper's numbers need, and compare. The same command continues an interrupted run.

    Exit code: 0 all trials are ok, 1 some failed, 2 there is something to fix first, 75 stopped by a signal and saved,
    130 stopped at once by a second Ctrl-C.
    """
    studies = reproduction(paper, rows or [], seeds, budget_share, quick_teacher)
    folder = results or RUNS / studies[0]["name"]
    with tempfile.TemporaryDirectory(prefix="dfkd-reproduce-") as made:
        files = [written(study, Path(made) / f"{place}.yaml") for place, study in enumerate(studies)]
        plans = [
            plan_study(file, results=folder, device=device, allow_altered=allow_altered, data_folder=data)
            for file in files
        ]
        if try_seconds is not None and not try_seconds > 0:
            raise UserError(f"--try must be above 0 seconds, not {try_seconds:g}")
        if dry_run or try_seconds is not None:
            return _print_rows(paper, plans, try_seconds, data, allow_altered)
        summaries = []
        for file, plan in zip(files, plans, strict=True):
            view = audience_for(quiet)
            try:
                with listening(), view:
                    summaries.append(
                        run_plan(
                            plan,
                            file,
                            workers=workers,
                            data_folder=data,
                            allow_altered=allow_altered,
                            isolation=isolation,
                            audience=view,
                        )
                    )
            except KeyboardInterrupt as stop:
                raise typer.Exit(stopped(stop)) from None
    return _finish(folder, summaries)


def _finish(folder: Path, summaries: Sequence[Summary]) -> None:
    for summary in summaries:
        print_summary(summary)
    print_against(folder)
    if any(summary.failures for summary in summaries):
        raise typer.Exit(1)


def print_against(folder: Path) -> None:
    """Published against measured, of all records of a folder."""
    lines = [
        (group.key.task, line) for group in read_groups(folder, published_of_kept(folder)) for line in against(group)
    ]
    if not lines:
        return
    out.say("\npublished against measured")
    table = out.table("task", *HEAD)
    for task, line in lines:
        table.add_row(task, *cells(line))
    out.show(table)


def _print_rows(
    paper: str,
    plans: Sequence[Plan],
    try_seconds: float | None,
    data: Path | None,
    allow_altered: bool,
) -> None:
    """A line for each task and method: budget, seeds, what is left to run, and how long it takes if it was tried."""
    table = out.table("task", "method", "budget", "seeds", "to run", "a trial", "core-hours", right=["seeds", "to run"])
    hours, unknown, trials = 0.0, 0, 0
    for plan in plans:
        waiting = {trial.id for trial in plan.waiting}
        rows: dict[tuple[str, str], list[Trial]] = {}
        for trial in plan.trials:
            rows.setdefault((trial.task, trial.label), []).append(trial)
        firsts = [found[0] for found in rows.values()]
        found = {}
        if try_seconds is not None:
            out.say(
                f"trying {out.count(len(firsts), 'row')} for {try_seconds:g} s each; missing teachers are trained first"
            )
            estimates = estimate(
                firsts,
                try_seconds,
                data_folder=data,
                allow_altered=allow_altered,
                gpu=plan.gpu,
            )
            found = {each.trial.id: each for each in estimates}
        for (task, label), of_row in rows.items():
            left = sum(trial.id in waiting for trial in of_row)
            guess = found.get(of_row[0].id)
            one, all_of_it = "", ""
            if guess is not None and guess.seconds is not None:
                spent = guess.seconds * left * of_row[0].threads / 3600
                one, all_of_it, hours = out.duration(guess.seconds), f"{spent:.1f}", hours + spent
            elif left:
                one, unknown = guess.why if guess else "", unknown + 1
            trials += left
            table.add_row(task, label, in_words(of_row[0].budget), str(len(of_row)), str(left), one, all_of_it)
    out.show(table)
    out.say(f"\n{paper}: {out.count(trials, 'trial')} to run in {plans[0].results}")
    if try_seconds is None:
        return out.say("time: not known; `--try 10` runs each row for ten seconds and multiplies")
    more = f", and {out.count(unknown, 'row')} of which nothing is known" if unknown else ""
    out.say(f"time: about {hours:.1f} core-hours{more}")
    return out.say(f"each row was tried for {try_seconds:g} s; what else runs on this machine is not counted")
