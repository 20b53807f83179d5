"""``dfkd score``: image metrics of finished trials, from the images that they kept."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import out
from bench.cli.places import searched
from bench.cli.settings import DataFolder, TaskFiles, Weights, know
from bench.errors import UserError
from bench.execution.plan import RUNS
from bench.execution.run_study import locked
from bench.metrics.rescore import DONE, Scored, Wish, score_trials
from bench.records import Record, is_archive, locate, place_of
from bench.records.foreign import is_there
from bench.spec.metric_names import image_metrics
from bench.utils.hardware import choose_device
from bench.utils.yaml import plain, read_yaml


def score(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TRIAL|STUDY", help="A trial's id or its beginning; a study in ./runs by name; a results folder."
        ),
    ],
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Separated by commas, see `dfkd list metrics`.  [default: the study's]"),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Results folder to search for a trial; may be repeated.  [default: ./runs and ./results]",
        ),
    ] = None,
    weights: Weights = None,
    data: DataFolder = None,
    images: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Maximum number of synthetic images.  [default: all stored]")
    ] = None,
    real_images: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Maximum number of training images to compare with.  [default: all]"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Measure again what already has a value.")] = False,
    tasks: TaskFiles = None,
) -> None:
    """Measure image metrics of finished trials and write them into their records, without training.

    Exit code: 0 all were measured, 1 some could not be measured (with the reason), 2 there is something to fix first.
    """
    know(tasks)
    folder, ids = _find(what, results or [])
    names = image_metrics(name.strip() for name in metrics.split(",")) if metrics else _of_study(folder)
    kind, number = choose_device(device)
    place = kind if number is None else f"{kind}:{number}"
    wish = Wish(names, weights, data, images, real_images, place, again)
    with locked(folder):
        found = []
        for scored in score_trials(folder, wish, ids, out.say):
            _print(scored, names)
            found.append(scored)
    if not found:
        raise UserError(f"{folder} has no successful trial")
    out.say(f"\nrecords: {folder / 'trials'}\nnext: dfkd report --results {shlex.quote(str(folder))}")
    if any(scored.reason or _lacking(scored.record, names) for scored in found):
        raise typer.Exit(1)


def _find(what: str, results: list[Path]) -> tuple[Path, list[str]]:
    """The results folder, and the trials' ids; none: all."""
    for folder in (Path(what), RUNS / what):
        if (folder / "results.json").is_file() or is_archive(place_of(folder)):
            return _with_images(searched([folder])[0]), []
    root, name = locate(searched(results), what)
    return _with_images(root), [name]


def _with_images(results: Path) -> Path:
    if is_archive(results):
        raise UserError(
            f"{results} is an archive, and archives do not hold the images that image metrics are measured on; score "
            "the results folder that it was made of, or run the trial again (`dfkd show TRIAL_ID` prints the commands)"
        )
    return results


def _of_study(folder: Path) -> tuple[str, ...]:
    copy = folder / "study.yaml"
    # Only this key of it: the study may be somebody else's, and name method files.
    study = plain(read_yaml(copy)) if is_there(copy) else None
    names = study.get("image_metrics") if isinstance(study, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError("name the metrics with --metrics; `dfkd list metrics` shows them")
    return image_metrics(names)


def _lacking(record: Record, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if record.image_metrics[name].status not in DONE]


def _print(scored: Scored, names: tuple[str, ...]) -> None:
    if scored.reason:
        return out.say(f"{scored.record.id}: not measured: {scored.reason}")
    if not scored.measured:
        return out.say(f"{scored.record.id}: all measured already; --again measures them again")
    table = out.table("metric", "value", "images", "note", right=["value", "images"])
    for name in names:
        metric = scored.record.image_metrics[name]
        value = metric.status if metric.value is None else f"{metric.value:.4g}"
        mark = " !" if metric.status == "unreliable" else ""
        table.add_row(name, f"{value}{mark}", f"{metric.images:,}", metric.note)
    return out.show(table)
