"""``dfkd distill``: somebody's own teacher into a student, by one command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, out
from bench.cli.run import CheckpointSeconds, Device, Executor, Quiet, audience_for, stopped
from bench.cli.settings import IsolationAlone
from bench.errors import UserError
from bench.execution.distill import (
    ONNX,
    RECORD,
    RESULTS,
    STUDENT,
    STUDY,
    DistillationWish,
    collect,
    plan_distillation,
    write_whole,
)
from bench.execution.executors import require_executor
from bench.execution.isolation import isolated
from bench.execution.run_study import CHECKPOINT_SECONDS, run_plan
from bench.records import Record
from bench.records.folder import writing
from bench.spec.study import MOST_THREADS
from bench.utils.stopping import listening

PAGE = "index.html"


def distill(
    teacher: Annotated[
        Path, typer.Argument(metavar="TEACHER", help="Its weights: safetensors, or a torch file with a state_dict.")
    ],
    network: Annotated[
        str, typer.Option(metavar="FILE.py:FUNCTION", help="Its network, called with (image, classes); or a name.")
    ],
    student: Annotated[str, typer.Option(metavar="NETWORK", help="The student's, in the same way: lenet5-half.")],
    method: Annotated[
        str, typer.Option(metavar="NAME", autocompletion=complete.methods, help="A method's name, or a method file.")
    ],
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Such as 30m, 90s or 1h30m; or limits, as teacher_images=40000.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Test images, without labels or in class folders.  [default: none]"),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="How many classes.  [default: as the weights tell]")
    ] = None,
    size: Annotated[int, typer.Option(min=4, metavar="PIXELS", help="Height and width of the teacher's images.")] = 32,
    channels: Annotated[int, typer.Option(min=1, metavar="C", help="1 for grey, 3 for colours.")] = 1,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", help="Networks see (pixel / 255 - mean) / std: one for each channel, with commas."
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="NUMBERS", help="The same.  [default of both: 0.5]")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the method; may be repeated.")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to write.  [default: distilled-TEACHER-STUDENT-METHOD]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the student and of all random draws.")] = 0,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, metavar="N", help="CPU threads.")] = 1,
    device: Device = "auto",
    executor: Executor = "processes",
    isolation: IsolationAlone = "auto",
    quiet: Quiet = False,
    checkpoint_seconds: CheckpointSeconds = CHECKPOINT_SECONDS,
) -> None:
    """Distil your own teacher into a student: a study of one trial, and one page about it.

    It ends with the student (safetensors, and ONNX where torch's exporter is installed), its record, index.html, and
    the task and the study that were run, to continue with `dfkd run`. Where test images have no labels, the score is
    the agreement with the teacher; without images, it is measured on synthetic ones, which proves little.

    The same command continues an interrupted run. Exit code: 0 the student is there, 1 the trial failed, 2 there is
    something to fix first, 75 stopped and saved, 130 stopped at once by a second Ctrl-C.
    """
    require_executor(executor)
    isolated(isolation, "cpu")  # refuses an unknown one before anything is written
    found = plan_distillation(
        DistillationWish(
            teacher=teacher,
            network=network,
            student=student,
            method=method,
            budget=budget,
            images=images,
            classes=classes,
            size=size,
            channels=channels,
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            seed=seed,
            threads=threads,
            options=options or (),
            out=target,
            device=device,
        )
    )
    if not (mean and std):
        out.say(
            f"normalisation: mean {_words(found.task.image.mean)}, std {_words(found.task.image.std)} (--mean, --std)"
        )
    view = audience_for(quiet)
    try:
        with listening(), view:
            summary = run_plan(
                found.plan,
                found.file,
                executor=executor,
                workers=1,
                checkpoint_seconds=checkpoint_seconds,
                isolation=isolation,
                audience=view,
            )
    except KeyboardInterrupt as stop:
        raise typer.Exit(stopped(stop)) from None
    (outcome,) = summary.outcomes
    if outcome.record.status != "ok":
        log = f", log: {outcome.log}" if outcome.log else ""
        out.say(f"\nno student: {outcome.record.status.replace('_', ' ')}: {outcome.record.reason}{log}")
        raise typer.Exit(1)
    lacking = collect(found)

    from bench.analysis.report import trial_alone

    with writing(found.folder):
        write_whole(found.folder / PAGE, trial_alone(found.plan.results, outcome.record.id).encode())
    _print(outcome.record, found.folder, lacking)


def _print(record: Record, folder: Path, lacking: str) -> None:
    out.say(f"\n{out.percent(record.scores[record.headline])} {_said(record.metric)}, after {_spent(record)}")
    names = [STUDENT, *([] if lacking else [ONNX]), RECORD, PAGE]
    out.say(f"in {folder}: {', '.join(names)}")
    if lacking:
        out.say(lacking)
    again = shlex.join(["dfkd", "run", str(folder / STUDY), "--results", str(folder / RESULTS)])
    out.say(f"next: {again}  # after adding methods, seeds or budget to it")
    out.say(f"open {(folder / PAGE).resolve().as_uri()}")


def _said(metric: str) -> str:
    if metric == "agreement":
        return "agreement with the teacher on the test images, which have no labels"
    if metric == "synthetic_agreement":
        return "agreement with the teacher on made images, which proves little: --images names real ones"
    return f"{metric} on the test images"


def _spent(record: Record) -> str:
    meter = record.meter
    return f"{out.duration(meter.seconds)} and {meter.teacher_images:,} images through the teacher"


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in (text or "").split(",") if text)
    except ValueError:
        raise UserError(
            f"{option} must be numbers with commas between them, one for each channel, not {text}"
        ) from None


def _words(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
