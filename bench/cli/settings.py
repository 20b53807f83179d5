"""The options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.execution.isolation import ISOLATIONS
from bench.spec.task import add_tasks, read_tasks

Json = Annotated[bool, typer.Option("--json", help="Print a JSON list of objects, and nothing else.")]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Search this folder for data sets first, then DFKD_DATA, then the cache."
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="PATH", help="A folder or file to search first for the weights of image metrics."
    ),
]
AllowAltered = Annotated[
    bool, typer.Option("--allow-altered", help="Use valid data files that are not the official ones.")
]
Sources = Annotated[
    list[Path] | None,
    typer.Option(
        "--results",
        metavar="PATH",
        help="A results folder or an archive; may be repeated.  [default: all below ./runs and ./results]",
    ),
]
TaskFiles = Annotated[
    list[Path] | None, typer.Option("--tasks", metavar="FILE", help="A YAML file with your own tasks; may be repeated.")
]
MethodFiles = Annotated[
    list[Path] | None, typer.Option("--method", metavar="FILE", help="Your own method file; may be repeated.")
]

_ISOLATIONS = "; ".join(f"{name}: {doc}" for name, doc in ISOLATIONS.items()) + "."
Isolation = Annotated[str | None, typer.Option(help=f"{_ISOLATIONS}  [default: the study's]")]
IsolationAlone = Annotated[str, typer.Option("--isolation", help=_ISOLATIONS)]  # where no study is named
Tracked = Annotated[
    Path | None,
    typer.Option(
        "--tracked",
        metavar="DIR",
        help="Where the records of commits are stored.  [default: results/tracked in the checkout]",
    ),
]
Repo = Annotated[
    Path | None,
    typer.Option(
        "--repo", metavar="DIR", help="The git checkout.  [default: the one that contains the current folder]"
    ),
]
Metric = Annotated[
    list[str] | None, typer.Option("--metric", metavar="NAME", help="Only this number; may be repeated.")
]
Smallest = Annotated[
    list[str] | None,
    typer.Option(
        "--smallest",
        metavar="METRIC=SIZE",
        help="The smallest effect that matters, such as accuracy=0.005 or fd[teacher]=2%; may be repeated.",
    ),
]

Score = Annotated[
    str | None,
    typer.Option(
        "--score",
        metavar="RULE",
        help="The selection rule of the scores, such as ema.  [default: the study's first]",
    ),
]
Renamed = Annotated[
    list[str] | None,
    typer.Option(
        "--renamed",
        metavar="OLD=NEW",
        help="A method that was renamed, or an option: METHOD.OLD=NEW; may be repeated.",
    ),
]


def know(task_files: list[Path] | None) -> None:
    """Make the tasks of a user's own files known."""
    for file in task_files or []:
        add_tasks(read_tasks(file))
