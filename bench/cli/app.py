"""The command tree. A verb's module is imported when the verb is used: help and completion need none of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

import bench
from bench.cli.plain import PLAIN

if TYPE_CHECKING:
    from typer._click.core import Command  # typer's own copy of click

HELP = {
    "run": "Run a study, or continue one.",
    "distill": "Distil your own teacher into a student.",
    "plan": "Show a study's trials, their time, and how many seeds a comparison needs.",
    "status": "Show how far a study has come.",
    "cancel": "Ask a running study to save itself and stop.",
    "retry": "Run the failed trials of a study again.",
    "reproduce": "Run what a paper's numbers need, and compare.",
    "search": "Search a study's ranges, without the test set.",
    "list": "List tasks, methods, metrics and studies.",
    "show": "Show everything about one trial.",
    "score": "Measure image metrics of finished trials.",
    "verify": "Run trials again, isolated, and compare.",
    "submit": "Pack a finished study for others to verify, and for the leaderboard.",
    "report": "Write the leaderboard, figures and pages.",
    "site": "Write one site of several studies, with a front page.",
    "track": "Run a study and store its numbers under the commit.",
    "compare": "Compare the numbers of two commits.",
    "history": "Show the numbers of all tracked commits, and where they changed.",
    "query": "Query the records in SQL.",
    "pack": "Pack a study, with unfinished trials, to continue elsewhere.",
    "unpack": "Unpack a study that `dfkd pack` packed.",
    "archive": "Pack a results folder into one Parquet file.",
    "merge": "Join the results of several machines.",
    "bisect": "Find the commit that changed a number.",
    "new": "Write the start of a method, task or study of your own.",
    "check": "Test a method against the contract.",
    "teacher": "Train, import and inspect teachers.",
    "data": "Inspect and download data sets.",
    "weights": "Inspect and download the metrics' weights files.",
    "doctor": "Show what is broken, what is missing, and what is available.",
}
_MODULES = {  # where it is not the verb's own
    **dict.fromkeys(("status", "cancel", "retry"), "runs"),
    **dict.fromkeys(("pack", "unpack"), "carry"),
    **dict.fromkeys(("archive", "merge"), "query"),
    **{"list": "lists", "report": "show"},
}
_GROUPS = ("list", "new", "teacher", "data", "weights")


class _Verbs(MutableMapping[str, "Command"]):
    """The verbs by name, in the order in which a user meets them; a verb is imported when it is asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._loaded:
            if name not in HELP:
                raise KeyError(name)
            self._loaded[name] = _load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(HELP)

    def __len__(self) -> int:
        return len(HELP)

    def __setitem__(self, name: str, command: Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]


def _load(name: str) -> Command:
    module = importlib.import_module(f"bench.cli.{_MODULES.get(name, name)}")
    if name in _GROUPS:
        command: Command = get_group(module.app)
        for inner in getattr(command, "commands", {}).values():
            inner.short_help = " ".join((inner.help or "").partition("\n\n")[0].split())  # whole, not its first words
    else:
        alone = typer.Typer(add_completion=False, **PLAIN)
        alone.command(name, short_help=HELP[name])(getattr(module, name))
        command = get_command(alone)
    command.name, command.short_help = name, HELP[name]
    return command


class _InOrder(TyperGroup):
    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = _Verbs()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(HELP.items()))


app = typer.Typer(
    cls=_InOrder,
    help="Benchmark data-free knowledge distillation: one harness, fixed budgets, real images.",
    epilog="First steps: `dfkd doctor`, then `dfkd run demo`, then `dfkd report`.",
    no_args_is_help=True,
    add_completion=True,
    **PLAIN,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dfkd {bench.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version
