"""``dfkd track``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
from bench.cli import complete, out
from bench.cli.run import audience_for, print_summary, stopped
from bench.cli.settings import DataFolder, MethodFiles, Repo, Tracked
from bench.execution.executors import EXECUTORS
from bench.execution.run_study import locked, run_study
from bench.spec.study import find_study
from bench.utils.git import checkout_of
from bench.utils.stopping import listening


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
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep students and images.  [default: only a hash of each student]")
    ] = False,
    executor: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {doc}" for name, doc in EXECUTORS.items()) + ".")
    ] = "processes",
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials to run in parallel.  [default: as the cores allow; 1 on a GPU]"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print plain lines instead of the live table.")] = False,
    method: MethodFiles = None,
    data: DataFolder = None,
) -> None:
    """Run a study on the current commit and store its records under it. An interrupted run continues.

    Exit code: 0 all trials are ok, 1 some failed (they are stored too), 2 there is something to fix first, 75 stopped
    by a signal and saved, 130 stopped at once by a second Ctrl-C.
    """
    file = find_study(study)
    root = checkout_of(repo or Path())
    check_code(root)
    folder, head = place_for(root, tracked or root / TRACKED, dirty)
    runs = read_runs(benchmark or [], head, dirty)
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
    with locked(folder):
        label(folder, head)
        file_runs(folder, runs)
        if not keep:
            lighten(folder)
    print_summary(summary)
    out.say(f"stored under {head.short} ({head.subject})")
    if summary.failures:
        raise typer.Exit(1)
