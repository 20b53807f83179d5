"""``dfkd search``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import complete, out
from bench.cli.run import stopped
from bench.cli.settings import DataFolder, Isolation, Json, MethodFiles, Weights
from bench.cli.watch import PlainLines
from bench.execution.executors import EXECUTORS
from bench.execution.plan import RUNS, plan_loaded
from bench.execution.run_study import Silence, TrialResult, run_plan
from bench.execution.search import CELLS, Space, Suggestion, best_first, check_optuna, fixed, spaces_of
from bench.execution.search import search as search_space
from bench.records import read_curves
from bench.spec.study import LoadedStudy, find_study, load_study
from bench.utils.stopping import listening

SHOWN = 10  # cells of each space


def search(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", autocompletion=complete.studies, help="A YAML file whose ranges are searched, or a name."
        ),
    ],
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results folder.  [default: runs/<name of the study>]")
    ] = None,
    cells: Annotated[
        int | None,
        typer.Option(
            "--cells", min=1, metavar="N", help=f"Suggestions per method and task.  [default: the sample's, or {CELLS}]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="S", help="Seed of the suggestions.  [default: the sample's, or 0]")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {doc}" for name, doc in EXECUTORS.items()) + ".")
    ] = "processes",
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Seeds of a suggestion to run in parallel.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    method: MethodFiles = None,
    data: DataFolder = None,
    weights: Weights = None,
    allow_altered: Annotated[
        bool, typer.Option("--allow-altered", help="Use data files that are not the official ones, and record which.")
    ] = False,
    isolation: Isolation = None,
    as_json: Json = False,
) -> None:
    """Search a study's ranges with optuna. The same command continues an interrupted search.

    Cells are chosen by the agreement with the teacher on held-out synthetic images, never by the test score.

    Exit code: 0 every method has a cell without failures, 1 a method has none, 2 there is something to fix first, 75
    stopped by a signal and saved, 130 stopped at once by a second Ctrl-C.
    """
    check_optuna()
    file = find_study(study)
    loaded = load_study(file, method or [], searched=True)
    spaces = spaces_of(loaded)
    sample = loaded.study.sample
    count = cells or (sample.count if sample else CELLS)
    start = seed if seed is not None else (sample.seed if sample else 0)
    folder = results or RUNS / loaded.study.name

    def run(narrowed: LoadedStudy) -> Sequence[TrialResult]:
        plan = plan_loaded(narrowed, results=folder, device=device, allow_altered=allow_altered, data_folder=data)
        view = Silence() if as_json or not plan.waiting else PlainLines()
        return run_plan(
            plan,
            file,
            executor=executor,
            workers=workers,
            data_folder=data,
            weights=weights,
            allow_altered=allow_altered,
            isolation=isolation,
            audience=view,
        ).outcomes

    found: list[tuple[Space, list[Suggestion]]] = []
    try:
        with listening():
            if (others := fixed(loaded)).entries:
                run(others)
            for space in spaces:
                seen = []
                for cell in search_space(loaded, space, count, start, run, lambda ids: read_curves(folder, ids)):
                    seen.append(cell)
                    if not as_json:
                        out.say(f"{space.method} on {space.task}, {len(seen)} of {count}: {cell.words}: {_words(cell)}")
                found.append((space, best_first(seen)))
    except KeyboardInterrupt as stop:
        raise typer.Exit(stopped(stop)) from None
    if as_json:
        out.print_json([_plain(space, cell) for space, ranked in found for cell in ranked])
    else:
        _print(found, folder)
    if any(all(cell.score is None for cell in ranked) for _, ranked in found):
        raise typer.Exit(1)


def _print(found: Sequence[tuple[Space, list[Suggestion]]], folder: Path) -> None:
    for space, ranked in found:
        out.say(f"\n{space.method} on {space.task}: {out.count(len(ranked), 'cell')}, best by held-out agreement")
        table = out.table("options", "held-out agreement", "test score", right=["held-out agreement", "test score"])
        for cell in ranked[:SHOWN]:
            table.add_row(cell.words, _words(cell), out.percent(cell.score))
        out.show(table)
    out.say(
        "\nheld-out agreement: with the teacher, on held-out synthetic images; the test score is not used to choose"
    )
    out.say(f"next: dfkd report --results {shlex.quote(str(folder))}")


def _words(cell: Suggestion) -> str:
    return "failed" if cell.score is None else out.percent(cell.agreement)


def _plain(space: Space, cell: Suggestion) -> Mapping[str, Any]:
    return {
        "task": space.task,
        "method": space.method,
        "options": dict(cell.options),
        "held_out_agreement": cell.agreement if cell.score is not None else None,
        "test_score": cell.score,
        "trials": [outcome.trial.id for outcome in cell.outcomes],
    }
