"""``dfkd check``: the contract battery over a method."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, out
from bench.cli.settings import Isolation, Json, TaskFiles, know
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods, get_card
from bench.spec.task import get_task

if TYPE_CHECKING:
    from bench.execution.contract import Finding


def check(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD", autocompletion=complete.methods, help="A method file, or a name from `dfkd list methods`."
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(autocompletion=complete.task_names, help="The task to test it on.  [default: a digits task]"),
    ] = None,
    tasks: TaskFiles = None,
    isolation: Isolation = None,
    as_json: Json = False,
) -> None:
    """Test a method against the contract: budgets, repeatability, resuming, data and teacher access, options.

    Exit code: 0 all checks passed, 1 a check failed, 2 the file cannot be used.
    """
    know(tasks)
    if task is not None:
        get_task(task)
    files, cards = _chosen(method)

    from bench.execution.contract import default_task, run_battery

    findings = []
    for card in cards:
        on = task or default_task(card)
        if not as_json:
            out.say(f"{card.name} on {on}")
        report = _silent if as_json else _print
        findings += [
            (card.name, each)
            for each in run_battery(card, task=on, method_files=files, isolation=isolation or "auto", report=report)
        ]
    if as_json:
        out.print_json([{"method": name, **dataclasses.asdict(each)} for name, each in findings])
    else:
        _print_end([finding for _, finding in findings])
    if not all(finding.ok for _, finding in findings):
        raise typer.Exit(1)


def _chosen(method: str) -> tuple[tuple[Path, ...], list[MethodCard]]:
    """The methods of a file, or the one of a name."""
    if not method.endswith(".py"):
        return (), [get_card(method, find_methods())]
    file = Path(method).resolve()
    return (file,), [card for card in find_methods([file]).values() if card.file == file]


def _print(finding: Finding) -> None:
    out.say(f"  {'✓' if finding.ok else '✗'} {finding.name}: {finding.message} ({finding.seconds:.1f} s)")


def _silent(finding: Finding) -> None:
    del finding


def _print_end(findings: list[Finding]) -> None:
    wrong = sum(not finding.ok for finding in findings)
    out.say(f"{wrong} of {len(findings)} checks failed" if wrong else f"all {len(findings)} checks passed")
