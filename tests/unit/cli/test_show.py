"""``dfkd show`` and ``dfkd report`` over synthetic records."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from record_builder import add, make_demo, make_record

from bench.cli import answer
from bench.execution.progress import Progress, work_folder, write_progress
from bench.records import open_results
from bench.records.selection import RULES


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def results(name: str) -> Path:
    return open_results(Path(name), create=True)


def test_a_record_is_found_below_runs_and_results(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make_record("dafl"), make_record("kd")
    add(results("runs/mine"), first)
    add(results("results/published/small"), second)
    for record in (first, second):
        assert answer(["show", record.id[:7], "--json"]) == 0
        (shown,) = json.loads(capsys.readouterr().out)
        assert shown["id"] == record.id
        assert shown["schema"] == 1


def test_a_record_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    record = make_record("dafl", title="[bold]DAFL[/bold]")
    folder = add(results("runs/mine"), record)
    assert answer(["show", record.id]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{record.id}: dafl on digits/lenet5-half, seed 0: ok\n")
    assert "[bold]DAFL[/bold]" in text
    assert all(RULES[rule] in text for rule in record.scores)
    headline = next(line for line in text.splitlines() if ", the headline" in line)
    assert headline.split()[0] == "last"
    assert "40,000 teacher images" in text
    assert str(folder) in text
    assert "record.json" in text


def test_a_failure_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    record = make_record("dafl", status="diverged", reason="the loss became NaN at step 12")
    add(results("runs/mine"), record)
    assert answer(["show", record.id]) == 0
    text = capsys.readouterr().out
    assert "diverged\n  the loss became NaN at step 12" in text
    assert "the trial did not succeed" in text


def test_an_unfinished_trial_is_reported_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    work = work_folder(results("runs/mine"), "0123456789abcdef")
    write_progress(work, Progress("running", 0.25, 0.5, 3.0))
    (work / "checkpoint.pt").touch()
    assert answer(["show", "0123"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("0123456789abcdef: unfinished")
    assert "running, 25 % of the budget, score 50.0 %" in text
    assert answer(["show", "0123", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["share"], shown["checkpoint"]) == ("unfinished", 0.25, True)


def test_a_finished_trial_goes_before_what_a_kill_left_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    record = make_record("dafl")
    folder = results("runs/mine")
    add(folder, record)
    work_folder(folder, record.id)
    assert answer(["show", record.id]) == 0
    assert "unfinished" not in capsys.readouterr().out


def test_no_such_trial_and_no_such_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["show", "abc"]) == 2
    assert "no results folder below ./runs or ./results" in capsys.readouterr().err
    add(results("runs/mine"), make_record("dafl"))
    assert answer(["show", "xyz"]) == 2
    assert "no trial 'xyz'" in capsys.readouterr().err
    assert answer(["show", "abc", "--results", "nowhere"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_results_of_a_newer_schema_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    (results("runs/mine") / "results.json").write_text('{"schema": 99}', encoding="utf-8")
    for command in (["show", "abc"], ["report"], ["run", "demo", "--results", "runs/mine"]):
        assert answer(command) == 2
        assert "has schema 99, this version of dfkd reads up to 1; update dfkd" in capsys.readouterr().err


def test_the_report_is_of_the_latest_run_and_lies_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("old", "new"):
        make_demo(Path("runs") / name, seeds=1)
    os.utime("runs/old/trials", (1, 1))
    assert answer(["report"]) == 0
    text = capsys.readouterr().out
    assert Path("runs/new/report/leaderboard.md").is_file()
    assert "report of runs/new: open file://" in text
    assert not Path("runs/old/report").exists()


def test_the_report_goes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_demo(Path("elsewhere"), seeds=1)
    target = tmp_path / "out [1]"
    assert answer(["report", "--results", "elsewhere", "--out", str(target)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert str(target / "leaderboard.csv") in printed
    assert (target / "leaderboard.csv").is_file()


def test_nothing_to_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["report"]) == 2
    assert "no results folder below ./runs" in capsys.readouterr().err
    results("runs/empty")
    assert answer(["report"]) == 2
    assert "contains no records yet" in capsys.readouterr().err
