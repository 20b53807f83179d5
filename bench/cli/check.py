"""``dfkd check``: the contract battery over a method."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, out
from bench.cli.settings import IsolationAlone, Json, TaskFiles, know
from bench.cli.watch import TeacherLines, training_words
from bench.execution.isolation import isolated
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods, get_card
from bench.spec.requirements import default_task
from bench.spec.task import get_task
from bench.utils.text import shown

if TYPE_CHECKING:
    from bench.execution.contract import Finding
    from bench.harness.teachers.progress import TrainingProgress


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
    isolation: IsolationAlone = "auto",
    as_json: Json = False,
) -> None:
    """Test a method against the contract: budgets, repeatability, resuming, data and teacher access, options.

    Exit code: 0 all checks passed, 1 a check failed, 2 the file cannot be used.
    """
    know(tasks)
    isolated(isolation, "cpu")  # refuses an unknown one before anything is shown
    if task is not None:
        get_task(task)
    files, cards = _chosen(method)

    started = time.perf_counter()
    show = _Silent() if as_json else _Lines()
    findings = []
    for card in cards:
        on = task or default_task(card)
        show.method(card.name, on)

        from bench.execution.contract import run_battery  # takes seconds: not before something is shown

        found = run_battery(
            card,
            task=on,
            method_files=files,
            isolation=isolation,
            report=show.finding,
            doing=show.doing,
            training=lambda progress, on=on: show.training(on, progress),  # type: ignore[misc]
        )
        findings += [(card.name, each) for each in found]
    if as_json:
        out.print_json([{"method": name, **dataclasses.asdict(each)} for name, each in findings])
    else:
        _print_end([finding for _, finding in findings], time.perf_counter() - started)
    if not all(finding.ok for _, finding in findings):
        raise typer.Exit(1)


def _chosen(method: str) -> tuple[tuple[Path, ...], list[MethodCard]]:
    """The methods of a file, or the one of a name."""
    if not method.endswith(".py"):
        return (), [get_card(method, find_methods())]
    file = Path(method).resolve()
    return (file,), [card for card in find_methods([file]).values() if card.file == file]


class _Silent:
    """What is shown beside JSON: nothing."""

    def method(self, name: str, task: str) -> None:
        pass

    def finding(self, finding: Finding) -> None:
        pass

    def doing(self, what: str) -> None:
        pass

    def training(self, task: str, progress: TrainingProgress) -> None:
        pass


class _Lines(_Silent):
    """A line for each check; on a terminal, a last line with what is being done, which the next one replaces."""

    def __init__(self) -> None:
        self._redraws = out.redraws()
        self._teacher = TeacherLines()
        self._found = 0

    def method(self, name: str, task: str) -> None:
        self._found = 0
        out.say(f"{name} on {task}")
        self._show("loading torch")

    def finding(self, finding: Finding) -> None:
        self._found += 1
        self._clear()
        out.say(f"  {'✓' if finding.ok else '✗'} {finding.name}: {finding.message} ({finding.seconds:.1f} s)")

    def doing(self, what: str) -> None:
        from bench.execution.contract import CHECKS

        self._show(f"{self._found + 1} of {len(CHECKS)}: {what}" if what.partition(":")[0] in CHECKS else what)

    def training(self, task: str, progress: TrainingProgress) -> None:
        if self._redraws:
            self._show(f"training the teacher of {task}: {training_words(progress)}")
        else:
            self._teacher(task, progress)

    def _show(self, what: str) -> None:
        if self._redraws:
            self._clear()
            line = f"  … {shown(what)}"
            print(line[: out.console().width - 1], end="", flush=True)

    def _clear(self) -> None:
        if self._redraws:
            print("\r\x1b[K", end="", flush=True)


def _print_end(findings: list[Finding], seconds: float) -> None:
    wrong = sum(not finding.ok for finding in findings)
    said = f"{wrong} of {len(findings)} checks failed" if wrong else f"all {len(findings)} checks passed"
    out.say(f"{said} ({out.duration(seconds)} in all)")
