"""``dfkd pack`` and ``dfkd unpack``: a study on its way to another machine."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, out
from bench.cli.settings import DataFolder, MethodFiles
from bench.spec.study import find_study, load_study


def pack(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", autocompletion=complete.studies, help="A YAML file, or a name from `dfkd list studies`."
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="The package to write; it must not exist.")],
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results folder.  [default: runs/<name of the study>]")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Pack unfinished trials, too, with what they have saved.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N: as the study was run.")] = "auto",
    method: MethodFiles = None,
    data: DataFolder = None,
) -> None:
    """Pack a study to continue it elsewhere: its files, records, checkpoints and teachers, in one tar file.

    Data sets, pools and installed packages are not packed. `dfkd unpack` unpacks it and says how to continue.
    """
    from bench.execution.carry import pack as write
    from bench.execution.plan import plan_loaded

    place, files = find_study(study), method or []
    loaded = load_study(place, files)
    plan = plan_loaded(loaded, results=results, device=device, data_folder=data)
    packed = write(loaded, place, plan, file, method_files=files, unfinished=unfinished)
    out.say(f"{file}: {out.size(file.stat().st_size)}")
    out.pairs(_counts(packed.finished, packed.unfinished, packed.saved, packed.teachers, packed.training))
    for each in packed.absent:
        out.say(f"not packed, and needed there: {each}")
    out.say(f"next: dfkd unpack {shlex.quote(str(file))} FOLDER")


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="What `dfkd pack` wrote.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
) -> None:
    """Unpack a study of `dfkd pack` into a new folder, its teachers into the cache, and say how to continue.

    Unpack what you trust: continuing runs the method files in it, and its teachers are used by other studies.
    """
    from bench.execution.carry import unpack as read

    unpacked = read(file, folder)
    found = _counts(unpacked.finished, unpacked.unfinished, unpacked.saved, unpacked.teachers, unpacked.training)
    out.pairs(found)
    out.say(f"next: cd {os.path.relpath(unpacked.folder)} && {unpacked.command}")


def _counts(
    finished: tuple[str, ...],
    unfinished: tuple[str, ...],
    saved: tuple[str, ...],
    teachers: tuple[str, ...],
    training: tuple[str, ...],
) -> list[tuple[str, str]]:
    counts = (
        ("finished trials", len(finished)),
        ("unfinished trials", len(unfinished)),
        ("of them with a checkpoint", len(saved)),
        ("teachers", len(teachers)),
        ("teachers in training", len(training)),
    )
    return [(name, f"{count:,}") for name, count in counts if count]
