"""``dfkd submit``: a finished study as one archive that others can verify."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, out
from bench.cli.settings import DataFolder, MethodFiles
from bench.records.folder import ARCHIVE
from bench.spec.study import find_study, load_study

SUBMISSIONS = Path("results", "submissions")


def submit(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", autocompletion=complete.studies, help="A YAML file, or a name from `dfkd list studies`."
        ),
    ],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who submits it: a person, a lab.")],
    link: Annotated[str, typer.Option(metavar="URL", help="The paper, or the code.")] = "",
    note: Annotated[str, typer.Option(metavar="TEXT", help="What a reader should know.")] = "",
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results folder.  [default: runs/<name of the study>]")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.parquet",
            help=f"The archive.  [default: {SUBMISSIONS}/<the study's name>/{ARCHIVE}]",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N: as the study was run.")] = "auto",
    method: MethodFiles = None,
    data: DataFolder = None,
) -> None:
    """Pack a finished study into one archive: records, curves, hashes of students, the study, its methods' code.

    Anybody can then run a random sample again and compare, without trusting the code: `dfkd verify FILE`.
    """
    from bench.execution.plan import plan_loaded
    from bench.execution.submit import submit as write

    loaded = load_study(find_study(study), method or [])
    plan = plan_loaded(loaded, results=results, device=device, data_folder=data)
    file = target or SUBMISSIONS / loaded.study.name / ARCHIVE
    packed = write(loaded, plan, file, by=by, link=link, note=note)
    code = f", with the code of {', '.join(packed.methods)}" if packed.methods else ""
    size = out.size(file.stat().st_size)
    out.say(f"{file}: {out.count(packed.trials, 'trial')}, {packed.ok} of them successful, {size}{code}")
    for each in packed.notes:
        out.say(f"note: {each}")
    out.say(f"next: dfkd verify {shlex.quote(str(file))}, then open a pull request with it (docs/submitting.md)")
