"""What a running study shows: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.cli import out
from bench.execution.plan import Plan, idle_sweeps
from bench.execution.progress import Progress
from bench.records import Record
from bench.spec.budget import in_words
from bench.spec.options import value_words
from bench.spec.trial import Trial
from bench.utils.text import cut

if TYPE_CHECKING:
    from bench.harness.teachers.progress import TrainingProgress

REDRAW_SECONDS = 0.2
COLUMNS = ("method", "task", "seed", "state", "", "spent", "score", "left")  # the one without a name is a bar
DISPENSABLE = ("", "spent", "left")  # on a narrow terminal, in this order
AROUND = 8  # lines of the terminal that the trials' rows leave free


def name_of(trial: Trial) -> str:
    return f"{trial.label}, seed {trial.seed}, {trial.task}"


def training_words(progress: TrainingProgress) -> str:
    """``epoch 1.3 of 9, loss 0.412, about 6 min left``"""
    epoch = f"epoch {min(progress.epoch, progress.epochs):.1f} of {progress.epochs}"
    if not progress.epoch or math.isnan(progress.loss):
        return epoch
    left = progress.seconds * (progress.epochs - progress.epoch) / progress.epoch
    return f"{epoch}, loss {progress.loss:.3f}" + (f", about {out.duration(left)} left" if not progress.done else "")


class TeacherLines:
    """Reports a teacher's training in plain lines: soon after the start, then less and less often, and at the end."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def __call__(self, task: str, progress: TrainingProgress) -> None:
        if task not in self._next:
            self._next[task] = progress.seconds + 5
            out.say(f"training the teacher of {task}: {out.count(progress.epochs, 'epoch')}")
        elif progress.done:
            out.say(f"the teacher of {task} is trained ({out.duration(progress.seconds)}, loss {progress.loss:.3f})")
        elif progress.seconds >= self._next[task]:
            self._next[task] = progress.seconds + min(max(progress.seconds, 5), 60)
            out.say(f"  {training_words(progress)}")


class PlainLines:
    """One line when a trial starts and one when it ends; no control characters."""

    def __init__(self, total: int = 0) -> None:
        """``total``: the number of trials, where no plan tells it."""
        self.ended_count = 0
        self._total = total
        self._running: set[str] = set()
        self._teacher = TeacherLines()

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def planned(self, plan: Plan, workers: int) -> None:
        self._total = len(plan.waiting)
        out.say(f"{_headline(plan, workers)}; results in {plan.results}")
        say_idle(plan)

    def teacher(self, task: str, progress: TrainingProgress) -> None:
        self._teacher(task, progress)

    def update(self, trial: Trial, progress: Progress) -> None:
        if progress.state == "running" and trial.id not in self._running:
            self._running.add(trial.id)
            out.say(f"running  {name_of(trial)} ({trial.id})")

    def ended(self, trial: Trial, record: Record) -> None:
        self.ended_count += 1
        score = out.percent(record.scores.get(record.headline))
        what = score if record.status == "ok" else cut(" ".join(record.reason.split()), 100)
        status = record.status.replace("_", " ")
        place = f"{self.ended_count} of {self._total}"
        spent = out.duration(record.meter.seconds)
        out.say(f"{status:<8} {name_of(trial)}: {what} (after {spent}; {place})")


@dataclass
class _Row:
    trial: Trial
    progress: Progress = field(default_factory=lambda: Progress("waiting"))
    ended: bool = False


class LiveTable:
    """A table of the trials, redrawn in place. It draws when told something: a separate thread would cost the trials
    of this process their time."""

    def __init__(self, console: Console) -> None:
        self.ended_count = 0
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._rows: dict[str, _Row] = {}
        self._plan: Plan | None = None
        self._workers = 1
        self._note = ""
        self._began = self._drawn = 0.0

    def __enter__(self) -> LiveTable:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._plan is not None:
            self._draw(now=True)
        self._live.__exit__(kind, error, trace)

    def planned(self, plan: Plan, workers: int) -> None:
        say_idle(plan)
        self._plan, self._workers = plan, workers
        self._rows = {trial.id: _Row(trial) for trial in plan.waiting}
        self._began = time.monotonic()
        self._draw(now=True)

    def teacher(self, task: str, progress: TrainingProgress) -> None:
        self._note = "" if progress.done else f"training the teacher of {task}: {training_words(progress)}"
        self._began = time.monotonic()  # the trials' time counts from when they can start
        self._draw(now=True)

    def update(self, trial: Trial, progress: Progress) -> None:
        row = self._rows[trial.id]
        if not row.ended:
            row.progress = progress
            self._draw()

    def ended(self, trial: Trial, record: Record) -> None:
        row = self._rows[trial.id]
        row.ended = True
        share = 1.0 if record.status == "ok" else row.progress.share
        row.progress = Progress(record.status, share, record.scores.get(record.headline), record.meter.seconds)
        self.ended_count += 1
        self._draw(now=True)

    def _draw(self, now: bool = False) -> None:
        if now or time.monotonic() - self._drawn > REDRAW_SECONDS:
            self._live.update(self.picture(), refresh=True)
            self._drawn = time.monotonic()

    def picture(self) -> Group:
        """The table as it is now."""
        assert self._plan is not None
        tasks = {row.trial.task for row in self._rows.values()}
        table = self._table([] if len(tasks) > 1 else ["task"])
        place = f"results in {self._plan.results}"
        second = f"task {next(iter(tasks))}, {place}" if len(tasks) == 1 else place
        parts: list[Text | Table] = [Text(_headline(self._plan, self._workers)), Text(second)]
        if self._rows:
            parts += [Text(), table, Text(), Text(self._total(), style="bold")]
        if self._note:
            parts.append(Text(self._note, style="cyan"))
        return Group(*parts)

    def _table(self, without: list[str]) -> Table | Text:
        """The trials' rows, with as many columns as the terminal has room for; if need be, as one sentence for each."""
        rows = [_cells(row) for row in self._shown()]
        endless = self._console.options.update(width=10_000)
        for more in range(len(DISPENSABLE) + 1):
            columns = [name for name in COLUMNS if name not in {*without, *DISPENSABLE[:more]}]
            table = out.table(*columns, right=[name for name in columns if name in ("seed", "spent", "score")])
            for cells in rows:
                table.add_row(*(cells[name] for name in columns))
            if self._console.measure(table, options=endless).maximum <= self._console.width:
                return table
        named = [name for name in ("method", "seed", "task") if name not in without]
        lines = []
        for cells in rows:
            name = ", ".join(f"seed {cells[name]}" if name == "seed" else str(cells[name]) for name in named)
            lines.append(Text.assemble(name, ": ", cells["state"], f", {cells['score']}" if cells["score"] else ""))
        return Text("\n").join(lines)

    def _shown(self) -> list[_Row]:
        """As many rows as the terminal has lines for: those that run, then the latest to end, then those that wait."""
        room = max(3, self._console.height - AROUND)
        rows = list(self._rows.values())
        if len(rows) <= room:
            return rows
        running = [row for row in rows if not row.ended and row.progress.state != "waiting"]
        ended = [row for row in rows if row.ended]
        waiting = [row for row in rows if row.progress.state == "waiting"]
        chosen = {row.trial.id for row in [*running, *reversed(ended), *waiting][:room]}
        return [row for row in rows if row.trial.id in chosen]

    def _total(self) -> str:
        rows = self._rows.values()
        share = sum(1.0 if row.ended else row.progress.share for row in rows) / max(len(rows), 1)
        elapsed = time.monotonic() - self._began
        running = sum(not row.ended and row.progress.state != "waiting" for row in rows)
        failed = sum(row.ended and row.progress.state != "ok" for row in rows)
        parts = [f"{self.ended_count} of {out.count(len(rows), 'trial')} ended", f"{running} running"]
        if failed:
            parts.append(f"{failed} failed")
        if 0 < share < 1 and self.ended_count:  # before, most of the time was spent on starting
            parts.append(f"about {out.duration(elapsed / share * (1 - share))} left")
        return ", ".join(parts)


def _cells(row: _Row) -> dict[str, Any]:
    trial, progress = row.trial, row.progress
    waits = progress.state == "waiting"
    return {
        "method": trial.label,
        "task": trial.task,
        "seed": str(trial.seed),
        "state": out.state(progress.state),
        "": Text() if waits else ProgressBar(total=1.0, completed=progress.share, width=12),
        "spent": "" if waits else _spent(trial, progress),
        "score": out.percent(progress.score) if progress.score is not None else "",
        "left": "" if row.ended else _left(progress),
    }


def _spent(trial: Trial, progress: Progress) -> str:
    """The spent part of the budget: in its own unit if it has but one limit."""
    if len(trial.budget) != 1:
        return f"{100 * progress.share:.0f} %"
    ((unit, limit),) = trial.budget.items()
    used = progress.share * limit
    return f"{used:,.1f}" if unit in ("seconds", "gmacs") else f"{used:,.0f}"


def _left(progress: Progress) -> str:
    if not 0 < progress.share < 1 or not progress.seconds:
        return ""
    return out.duration(progress.seconds / progress.share * (1 - progress.share))


def _headline(plan: Plan, workers: int) -> str:
    done = f", {len(plan.finished)} of them already finished" if plan.finished else ""
    at_a_time = f", {workers} at a time" if workers > 1 and len(plan.waiting) > 1 else ""
    trials = out.count(len(plan.trials), "trial")
    budget = " or ".join(dict.fromkeys(in_words(trial.budget) for trial in plan.trials))
    return f"{plan.study.name}: {trials}{done}{at_a_time}, {budget} each"


def say_idle(plan: Plan) -> None:
    """Warn of options that a study sweeps although nothing that they are known to act with is switched on."""
    for idle in idle_sweeps(plan.trials):
        live = ", ".join(f"{name}={value_words(value)}" for name, value in idle.live.items())
        out.say(
            f"note: {idle.option} of {idle.method} on {idle.task} may have no effect: it is declared to act only with "
            f"{live}, and no trial has this"
        )
