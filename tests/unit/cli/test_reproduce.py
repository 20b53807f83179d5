"""``dfkd reproduce``: what it would run, what it runs, and the comparison at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_builder import add, make_record

from bench.cli import answer
from bench.cli.reproduce import print_against
from bench.records import load_records, open_results
from bench.spec.study import study_files
from bench.utils.stopping import Stopped

QUOTED = """\
  - name: mine/digits
    data: digits
    image: {channels: 1, size: 32, mean: [0.3051], std: [0.3238]}
    teacher: {network: lenet5, recipe: digits}
    student: lenet5-half
    published:
      methods:
        - {method: noise, score: 0.5, source: A paper of ours, teacher_images: 64}
"""
STUDY = f"""\
name: reproduce-mine
tasks:
{QUOTED}
methods: [noise, scratch]
seeds: [0, 1, 2]
budget: {{teacher_images: 128}}
method_budgets: {{noise: {{steps: 2}}}}
points: 2
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of one's own among those that can be reproduced; the working folder is empty."""
    file = tmp_path / "mine.yaml"
    file.write_text(STUDY)
    known = {**study_files(), "reproduce/mine": file}
    monkeypatch.setattr("bench.spec.reproduction.study_files", lambda: known)
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_dry_run_shows_rows_and_writes_nothing(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["reproduce", "dfad", "--rows", "mnist/lenet5-half", "--rows", "dfad", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6,144,000 teacher images" in said
    assert "dfad: 3 trials to run in runs/reproduce-dfad" in said
    assert "time: not known; `--try 10`" in said
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dfda", "--dry-run"], "unknown paper 'dfda'"),
        (["mnits"], "unknown paper 'mnits'; did you mean 'mnist'"),
        (["dfad", "--rows", "dalf"], "no row of it has the task or method 'dalf'; did you mean 'dafl'"),
        (["dfad", "--budget-share", "0"], "--budget-share must be above 0 and at most 1, not 0"),
        (["dfnd"], "no source says how long the methods of 'dfnd' ran on cifar10/resnet18"),
        (["mine", "--try", "0"], "--try must be above 0 seconds, not 0"),
        (["cifar", "--seeds", "1"], "unknown paper 'cifar'"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    words: list[str], message: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(["reproduce", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(mine.iterdir()) == []


def test_a_try_estimates_each_row_and_writes_nothing(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["reproduce", "mine", "--dry-run", "--try", "0.3"]) == 0
    said = capsys.readouterr().out
    assert "trying 2 rows for 0.3 s each" in said
    assert "mine: 6 trials to run in runs/reproduce-mine" in said
    assert "time: about 0.0 core-hours\n" in said
    assert list(mine.iterdir()) == []


def test_it_runs_the_rows_and_compares(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "mine", "--seeds", "2", "--rows", "noise", "--quiet", "--isolation", "none"]
    assert answer(command) == 0
    said = capsys.readouterr().out
    assert "published against measured" in said
    assert "A paper of ours" in said
    records = load_records(open_results(mine / "runs" / "reproduce-mine"))
    assert sorted((record.trial.method, record.trial.seed) for record in records) == [("noise", 0), ("noise", 1)]
    assert {record.meter.steps for record in records} == {2}
    assert answer(command) == 0  # nothing is left to run
    assert "(2 of them before this run)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stop", "code", "words"),
    [
        (Stopped("SIGTERM"), 75, "stopped (SIGTERM); what was running is saved: the same command continues"),
        (KeyboardInterrupt(), 130, "stopped at once; the running ones go back to their last checkpoints"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_it_stops_as_every_run_does(
    stop: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr("bench.cli.reproduce.run_plan", stopped)
    assert answer(["reproduce", "mine"]) == code
    assert words in capsys.readouterr().out


def test_a_folder_without_quoted_numbers_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = open_results(tmp_path, create=True)
    add(results, make_record("kd"))
    print_against(results)
    assert capsys.readouterr().out == ""
