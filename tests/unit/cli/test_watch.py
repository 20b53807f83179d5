"""The live table and the plain lines, fed by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_record
from rich.console import Console

from bench.cli import run
from bench.cli.watch import LiveTable, PlainLines
from bench.execution.plan import Plan
from bench.execution.progress import Progress
from bench.harness.teachers.progress import TrainingProgress
from bench.spec.expand import expand
from bench.spec.study import load_study
from bench.spec.trial import Trial

STUDY = """
name: seen
tasks: {tasks}
methods: [noise, dafl: {{temperature: [1.0, 2.0]}}]
seeds: [0, 1]
budget: {budget}
"""


def make_plan(folder: Path, tasks: str = "[digits/lenet5-half]", budget: str = "{teacher_images: 40000}") -> Plan:
    file = folder / "study.yaml"
    file.write_text(STUDY.format(tasks=tasks, budget=budget), encoding="utf-8")
    loaded = load_study(file)
    return Plan(loaded.study, tuple(expand(loaded)), frozenset(), folder / "run[1]", None)


def record_of(trial: Trial, status: str = "ok", **changes: Any) -> Any:
    return make_record(trial.method, trial.seed, status, **changes)


class Screen:
    """A terminal of a given size, and what the live table would draw on it."""

    def __init__(self, plan: Plan, height: int = 40, width: int = 200) -> None:
        self.console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, markup=False)
        self.table = LiveTable(self.console)
        self.table.planned(plan, 2)

    def lines(self) -> list[str]:
        plain = Console(file=io.StringIO(), width=self.console.width, markup=False)
        with plain.capture() as text:
            plain.print(self.table.picture())
        return [line.rstrip() for line in text.get().splitlines()]

    def line(self, start: str) -> str:
        return next(line for line in self.lines() if line.startswith(start))


def test_the_table_shows_where_each_trial_stands(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    screen = Screen(plan)
    first, second = plan.trials[:2]
    screen.table.update(first, Progress("running", 0.25, 0.5, 10.0))
    screen.table.ended(second, record_of(second, final=0.9))
    lines = screen.lines()
    assert lines[0] == "seen: 6 trials, 2 at a time, 40,000 teacher images each"
    assert lines[1] == f"task digits/lenet5-half, results in {plan.results}"
    running, ended = (next(line for line in lines if line.split()[:2] == ["noise", seed]) for seed in "01")
    assert "running" in running
    assert running.endswith("10,000  50.0 %  30 s")
    assert " ok " in ended
    assert ended.endswith("40,000  90.0 %")
    assert screen.line("dafl (temperature=1)").split()[3] == "waiting"
    assert screen.line("1 of 6 trials ended, 1 running, about ")


@pytest.mark.parametrize(("width", "gone"), [(200, []), (60, []), (50, ["spent"]), (46, ["spent", "left"])])
def test_a_narrow_terminal_has_fewer_columns(tmp_path: Path, width: int, gone: list[str]) -> None:
    plan = make_plan(tmp_path)
    screen = Screen(plan, width=width)
    screen.table.update(plan.trials[0], Progress("running", 0.25, 0.5, 10.0))
    columns = ["method", "seed", "state", "spent", "score", "left"]
    assert screen.line("method").split() == [name for name in columns if name not in gone]
    row = screen.line("noise")
    assert "running" in row  # no word is broken
    assert "50.0 %" in row
    assert ("━" in row) == (width == 200)


def test_where_no_column_fits_each_trial_is_a_sentence(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "[digits/lenet5-half, mnist/lenet5-half]")
    screen = Screen(plan, width=40)
    screen.table.update(plan.trials[0], Progress("running", 0.25, 0.5, 10.0))
    text = " ".join(screen.lines())
    assert "noise, seed 0, digits/lenet5-half: running, 50.0 %" in text
    assert "noise, seed 1, digits/lenet5-half: waiting" in text


def test_several_tasks_and_limits_have_their_own_columns(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "[digits/lenet5-half, mnist/lenet5-half]", "{steps: 100, seconds: 5}")
    screen = Screen(plan)
    trial = next(trial for trial in plan.trials if trial.task.startswith("mnist"))
    screen.table.update(trial, Progress("running", 0.25))
    shown = next(line for line in screen.lines() if "running" in line and "mnist/lenet5-half" in line)
    assert shown.endswith("25 %")  # in a unit of its own there would be two numbers


def test_a_failure_keeps_its_place_and_is_counted(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    screen = Screen(plan)
    trial = plan.trials[0]
    screen.table.update(trial, Progress("running", 0.5, 0.3, 4.0))
    screen.table.ended(trial, record_of(trial, "out_of_memory"))
    screen.table.update(trial, Progress("running", 0.6))  # what was still on its way changes nothing
    assert "out of memory" in screen.line("noise")
    assert "20,000" in screen.line("noise")
    assert "1 of 6 trials ended, 0 running, 1 failed" in screen.line("1 of 6")


def test_only_as_many_rows_as_the_terminal_has_and_the_running_one_among_them(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    screen = Screen(plan, height=11)
    screen.table.update(plan.trials[5], Progress("running", 0.1))
    rows = [line for line in screen.lines() if line.startswith(("noise", "dafl"))]
    assert len(rows) == 3
    assert "running" in rows[-1]


def test_the_teacher_is_shown_while_it_is_trained(tmp_path: Path) -> None:
    screen = Screen(make_plan(tmp_path))
    screen.table.teacher("digits/lenet5-half", TrainingProgress(10, 40, 0.25, seconds=20))
    last = "training the teacher of digits/lenet5-half: epoch 10.0 of 40, loss 0.250, about 1 min 0 s left"
    assert screen.lines()[-1] == last
    screen.table.teacher("digits/lenet5-half", TrainingProgress(40, 40, 0.1, seconds=80))
    assert "training" not in "".join(screen.lines())


def test_nothing_to_run_is_no_table(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    done = Plan(plan.study, plan.trials, frozenset(trial.id for trial in plan.trials), plan.results, None)
    lines = Screen(done).lines()
    assert lines[0].startswith("seen: 6 trials, 6 of them already finished, 40,000")
    assert not any(line.startswith("method") for line in lines)


def test_the_table_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    screen = Screen(make_plan(tmp_path))
    with pytest.raises(KeyboardInterrupt), screen.table:
        raise KeyboardInterrupt
    written = screen.console.file.getvalue()  # type: ignore[attr-defined]
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is back


def test_plain_lines_tell_of_each_start_and_end_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(tmp_path)
    first, second = plan.trials[:2]
    with PlainLines() as view:
        view.planned(plan, 1)
        for epoch, seconds in ((0, 0), (1, 2), (7, 14), (8, 16), (40, 80)):
            view.teacher("digits/lenet5-half", TrainingProgress(epoch, 40, 0.5, seconds))
        for share in (0.0, 0.5, 0.9):
            view.update(first, Progress("running", share))
        view.ended(first, record_of(first, final=0.5))
        view.ended(second, record_of(second, "crashed", reason="broken [here]"))
    assert capsys.readouterr().out.splitlines() == [
        f"seen: 6 trials, 40,000 teacher images each; results in {plan.results}",
        "training the teacher of digits/lenet5-half: 40 epochs",
        "  epoch 7.0 of 40, loss 0.500, about 1 min 6 s left",
        "the teacher of digits/lenet5-half is trained (1 min 20 s, loss 0.500)",
        f"running  noise, seed 0, digits/lenet5-half ({first.id})",
        "ok       noise, seed 0, digits/lenet5-half: 50.0 % (after 17 s; 1 of 6)",
        "crashed  noise, seed 1, digits/lenet5-half: broken [here] (after 18 s; 2 of 6)",
    ]


@pytest.mark.parametrize(
    ("terminal", "quiet", "live"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_only_a_terminal_gets_the_table(
    terminal: bool, quiet: bool, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert isinstance(run.audience_for(quiet), LiveTable) == live
