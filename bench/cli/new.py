"""``dfkd new``: a working start of a method, a task or a study."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import out
from bench.cli.plain import PLAIN, VerbGroup
from bench.cli.settings import MethodFiles, TaskFiles
from bench.spec.starts import new_method, new_study, new_task

app = typer.Typer(
    help="Write the start of a method, task or study of your own, into the current folder.",
    no_args_is_help=True,
    cls=VerbGroup,
    **PLAIN,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name, and that of its file; nothing is overwritten.")]


@app.command()
def method(name: Name) -> None:
    """Write NAME.py, a method that passes `dfkd check`: options, a generator and a student."""
    file = new_method(name, Path())
    quoted = shlex.quote(str(file))
    _say(
        f"{file}: a method that works; make it yours",
        ("test it against the contract", f"dfkd check {quoted}"),
        ("rank it beside others", f"dfkd run demo --method {quoted}"),
        ("or in a study of its own", f"dfkd new study {name}_study --method {quoted}"),
    )


@app.command()
def task(name: Name) -> None:
    """Write NAME.yaml, a task: data set, images, teacher and student."""
    file = new_task(name, Path())
    quoted = shlex.quote(str(file))
    _say(
        f"{file}: a task that works; make it yours",
        ("see it in the list", f"dfkd list tasks --tasks {quoted}"),
        ("train its teacher", f"dfkd teacher train {name} --tasks {quoted}"),
        ("run methods on it", f"dfkd new study {name}_study --tasks {quoted}"),
    )


@app.command()
def study(name: Name, method: MethodFiles = None, tasks: TaskFiles = None) -> None:
    """Write NAME.yaml, a study: your methods on your tasks, or one of the suite's on digits, with floor and ceiling."""
    file = new_study(name, Path(), method or [], tasks or [])
    quoted = shlex.quote(str(file))
    _say(
        f"{file}: a study that runs; make it yours",
        ("see its trials", f"dfkd run {quoted} --dry-run"),
        ("run it, or continue it", f"dfkd run {quoted}"),
        ("read the results", f"dfkd report --results runs/{name}"),
    )


def _say(first: str, *next_steps: tuple[str, str]) -> None:
    out.say(first)
    out.say("next:")
    out.pairs([(command, f"# {what}") for what, command in next_steps], indent="  ")
