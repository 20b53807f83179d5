"""``dfkd track``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.analysis.regression.compare import Comparison
from bench.analysis.regression.effects import own_effects
from bench.analysis.regression.filing import (
    TRACKED,
    check_code,
    file_runs,
    label,
    lighten,
    place_for,
    read_runs,
    unpack_filed,
)
from bench.analysis.regression.step_times import ROUNDS, Times, file_rounds, time_steps, untimed
from bench.analysis.regression.summary import headline
from bench.analysis.regression.until_decided import StudyCells, plan_looks, until_decided
from bench.analysis.regression.verdicts import SEEDS
from bench.cli import complete, out
from bench.cli.run import audience_for, print_summary, stopped
from bench.cli.settings import DataFolder, MethodFiles, Repo, Smallest, Tracked
from bench.errors import UserError
from bench.execution.executors import EXECUTORS
from bench.execution.run_study import locked, run_study
from bench.spec.study import find_study, load_study
from bench.spec.subset import of_cells
from bench.utils.git import checkout_of
from bench.utils.stopping import listening

MOST = 20  # seeds: looks at 5, 10 and 20 of the suite's own study


def track(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", autocompletion=complete.studies, help="A YAML file, or a name from `dfkd list studies`."
        ),
    ],
    tracked: Tracked = None,
    repo: Repo = None,
    dirty: Annotated[
        bool,
        typer.Option("--dirty", help="Accept a modified tree; its numbers are stored separately from the commit's."),
    ] = False,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A pytest-benchmark JSON file of this commit; may be repeated, one per run."),
    ] = None,
    speed: Annotated[
        bool, typer.Option("--speed", help="Time each method's step too, on the processor, and store the times.")
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(min=SEEDS, metavar="N", help=f"Rounds of --speed.  [default: {ROUNDS}]")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep students and images.  [default: only a hash of each student]")
    ] = False,
    executor: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {doc}" for name, doc in EXECUTORS.items()) + ".")
    ] = "processes",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Trials to run in parallel.  [default: as the cores allow; 1 on each GPU]"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print plain lines instead of the live table.")] = False,
    method: MethodFiles = None,
    data: DataFolder = None,
    decided: Annotated[
        bool,
        typer.Option(
            "--until-decided", help="Then add seeds, here and at an earlier commit, until every score is decided."
        ),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(metavar="COMMIT", help="The earlier commit.  [default: the latest tracked one before this]"),
    ] = None,
    most: Annotated[
        int | None, typer.Option("--max-seeds", min=1, metavar="N", help=f"The bound of the seeds.  [default: {MOST}]")
    ] = None,
    smallest: Smallest = None,
) -> None:
    """Run a study on the current commit and store its records under it. An interrupted run continues.

    With --until-decided, seeds are added at planned looks, to the scores that are undecided. `dfkd compare` of the two
    commits then uses the levels of that plan, so that several looks do not make false alarms.

    Exit code: 0 all trials are ok, 1 some failed (they are stored too), 2 there is something to fix first, 75 stopped
    by a signal and saved, 130 stopped at once by a second Ctrl-C.
    """
    if not decided and (against is not None or most is not None or smallest):
        raise UserError("--against, --max-seeds and --smallest are for --until-decided")
    if rounds is not None and not speed:
        raise UserError("--rounds is for --speed")
    if decided and (dirty or method):
        name = "--dirty" if dirty else "--method"
        raise UserError(f"{name} does not go with --until-decided, which runs commits as they are; commit it")
    own = own_effects(smallest or [])
    file = find_study(study)
    root = checkout_of(repo or Path())
    check_code(root)
    folder, head = place_for(root, tracked or root / TRACKED, dirty)
    runs = read_runs(benchmark or [], head, dirty)
    base = tracked or root / TRACKED
    plan = plan_looks(root, base, cells_of_study(file), against, most or MOST) if decided else None
    unpack_filed(folder)
    audience = audience_for(quiet)
    try:
        with listening(), audience:
            summary = run_study(
                file,
                results=folder,
                executor=executor,
                workers=workers,
                device=device,
                method_files=method or [],
                data_folder=data,
                audience=audience,
            )
    except KeyboardInterrupt as stop:
        raise typer.Exit(stopped(stop)) from None
    times = []
    if speed:
        out.say(f"timing steps: {rounds or ROUNDS} rounds")
        try:
            times = time_steps(root, file, rounds or ROUNDS, data, method or [])
        except KeyboardInterrupt as stop:
            raise typer.Exit(stopped(stop)) from None
    with locked(folder):
        label(folder, head)
        file_rounds(folder, times, head, dirty=folder.name != head.sha)
        file_runs(folder, runs)
        if not keep:
            lighten(folder)
    print_summary(summary)
    _tell_times(times)
    if plan is not None:
        extra = ["--executor", executor, "--device", device]
        extra += ["--workers", str(workers)] if workers else []
        extra += ["--data", str(data.resolve())] if data else []
        seen = " and ".join((plan.base.short, plan.head.short))
        out.say(f"\ncomparing {seen}, at {', '.join(map(str, plan.looks))} seeds until every score is decided")
        try:
            until_decided(root, base, plan, own, tuple(extra), _tell)
        except KeyboardInterrupt as stop:
            raise typer.Exit(stopped(stop)) from None
    out.say(f"stored under {head.short} ({head.subject})")
    if summary.failures:
        raise typer.Exit(1)


def _tell_times(rounds: Sequence[Times]) -> None:
    for name in dict.fromkeys(name for times in rounds for name in times):
        ratios = [each["seconds"] / each["calibration"] for times in rounds if "seconds" in (each := times[name])]
        if ratios:
            steps = [times[name]["seconds"] for times in rounds if "seconds" in times[name]]
            said = f"{1000 * statistics.median(steps):.3g} ms of processor time"
            out.say(f"a step of {name}: {said}, {statistics.median(ratios):.3g} calibrations")
    for name, reason in untimed(rounds).items():
        out.say(f"not timed: {name}: {reason}")


def cells_of_study(file: Path) -> StudyCells:
    """A study's seeds and cells, as they are written."""
    loaded = load_study(file)
    methods = list(dict.fromkeys(name for name, _ in loaded.entries))
    return StudyCells(file, loaded.study.seeds, dict.fromkeys(loaded.tasks, methods), partial(of_cells, file))


def _tell(count: int, found: Comparison) -> None:
    out.say(f"{count} seeds: {headline(found)}")
