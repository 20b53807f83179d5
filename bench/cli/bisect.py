"""``dfkd bisect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.analysis.regression import bisect as search
from bench.analysis.regression.effects import check_name
from bench.analysis.regression.filing import TRACKED
from bench.analysis.regression.stated import as_stated, with_statements
from bench.analysis.regression.summary import plain_number
from bench.cli import complete, out
from bench.cli.places import BASES, results_below
from bench.cli.run import stopped
from bench.cli.settings import DataFolder, Repo, Tracked
from bench.errors import UserError, nearest
from bench.execution.executors import EXECUTORS
from bench.records import load_records, locate, place_of, read_beside
from bench.spec.study import find_study, study_files
from bench.spec.subset import of_study
from bench.utils.git import checkout_of
from bench.utils.stopping import listening


def bisect(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|TRIAL", autocompletion=complete.studies, help="A study, or a trial's id or its beginning."
        ),
    ],
    good: Annotated[str, typer.Option(metavar="COMMIT", help="The last commit known to be good.")],
    number: Annotated[str, typer.Option(metavar="NAME", help="A metric from `dfkd list metrics`, or `failures`.")],
    bad: Annotated[str, typer.Option(metavar="COMMIT", help="A commit known to be bad.")] = "HEAD",
    threshold: Annotated[
        float | None, typer.Option(metavar="X", help="A value between good and bad.  [default: their midpoint]")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", autocompletion=complete.methods, help="One method of a study with several."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", autocompletion=complete.task_names, help="One task of a study with several."),
    ] = None,
    tracked: Tracked = None,
    repo: Repo = None,
    data: DataFolder = None,
    executor: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {doc}" for name, doc in EXECUTORS.items()) + ".")
    ] = "processes",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Find the commit that changed a number, by running one cell of a study at a few commits.

    It runs in a separate checkout. Stored results are reused; commits at which it cannot run are skipped.
    Exit code: 0 the commit was found, 1 it is one of several, 2 there is something to fix first.
    """
    check_name(number)
    root = checkout_of(repo or Path())
    base = tracked or root / TRACKED
    study, place = _cell(what, root, base, task, method)
    if executor not in EXECUTORS:
        raise UserError(f"unknown executor {executor!r}{nearest(executor, EXECUTORS)}")
    extra = ("--executor", executor, "--device", device, *(("--data", str(data.resolve())) if data else ()))
    measure = search.cell_measure(study, place, number, base, extra)
    try:
        with listening():  # a signal ends the search, and the separate checkout with it
            found = search.bisect(root, good, bad, measure, threshold, _tell)
    except KeyboardInterrupt as stop:
        raise typer.Exit(stopped(stop)) from None
    if len(found.commits) > 1:
        out.say(f"\none of {len(found.commits)} commits, of which the rest cannot be measured:")
        out.pairs([(each.short, each.subject) for each in found.commits])
        raise typer.Exit(1)
    (commit,) = found.commits
    out.say(f"\n{commit.sha}\n{commit.subject} ({commit.date[:10]})")
    out.say(f"the first commit at which {number} is on the other side of {found.threshold:.4g}")


def _cell(what: str, root: Path, tracked: Path, task: str | None, method: str | None) -> tuple[dict[str, Any], Path]:
    """The study of one cell, and where its paths start from, relative to the checkout."""
    if Path(what).exists() or what in study_files() or what.endswith((".yaml", ".yml")):
        file = find_study(what)
        inside = file.resolve().parent
        place = inside.relative_to(root.resolve()) if inside.is_relative_to(root.resolve()) else Path()
        return of_study(file, task, method), place
    if task or method:
        raise UserError("--task and --method are for studies; a trial has one task and one method")
    folders = [folder for start in (tracked, *BASES) for folder in results_below(start)]
    results, name = locate(folders, what)
    study = place_of(results)
    text = read_beside(study, "study.yaml")
    (record,) = with_statements(load_records(results, [name]), text, study / "study.yaml")
    return as_stated(record), Path()


def _tell(tried: search.Tried) -> None:
    value = "cannot be measured" if tried.value is None else plain_number(tried.value, "")
    out.say(f"{tried.word:<5} {tried.commit.short}  {value:<18}  {tried.commit.subject}")
