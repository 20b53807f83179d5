"""Two commits timed in turn: who is first changes, rounds are pairs, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commit_history import commit_file, new_repository, run_git, write_records

from bench.analysis.regression import interleave as module
from bench.analysis.regression.filing import label
from bench.cli import answer
from bench.errors import UserError
from bench.utils.git import resolve
from bench.utils.stopping import Stopped

STUDY = "name: a\ntasks: [digits/lenet5-half]\nmethods: [noise, kd]\nbudget: {steps: 4}\n"
KD, NOISE = "digits/lenet5-half: kd", "digits/lenet5-half: noise"
Clock = Callable[[bool], dict[str, Any]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = new_repository(tmp_path / "repo")
    commit_file(made, "place/study.yaml", STUDY, "A study")
    commit_file(made, "code.txt", "later", "Later")
    monkeypatch.chdir(made)
    return made


def timing(root: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[bool]:
    """Time with ``clock``, which is told whether it is the later commit; returns that of every call."""
    asked: list[bool] = []

    def time_steps(folder: Path, file: Path, rounds: int, data: Path | None) -> list[dict[str, Any]]:
        assert rounds == 1
        assert data is None
        assert json.loads(file.read_text(encoding="utf-8"))["methods"] == ["noise", "kd"]
        assert file.resolve().is_relative_to(folder.resolve())
        later = (folder / "code.txt").is_file()
        asked.append(later)
        return [clock(later)]

    monkeypatch.setattr(module, "time_steps", time_steps)
    return asked


def drifting(slower: float) -> Clock:
    """A machine that becomes slower all the time, by far more than head differs from base."""
    random, pace = np.random.default_rng(0), [1.0]

    def clock(later: bool) -> dict[str, Any]:
        pace[0] *= 1.1
        noise = float(np.exp(random.normal(0, 0.01)))
        return {
            KD: {"seconds": 0.01 * pace[0] * noise * (slower if later else 1.0)},
            NOISE: {"seconds": 0.01 * pace[0]},
        }

    return clock


COMPARE = ["compare", "HEAD~1", "HEAD", "--interleave", "--study", "place/study.yaml"]


def said(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    answer([*COMPARE, "--json", *options])
    rows = json.loads(capsys.readouterr().out)
    return {row["method"]: row for row in rows if row["what"] in ("number", "not compared")}


def test_a_machine_that_changes_its_pace_favours_neither_side(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = timing(root, monkeypatch, drifting(1.5))
    found = said(capsys)
    assert asked == [False, True, True, False] * 4
    assert found[KD]["verdict"] == "worse"
    assert found[KD]["unit"] == "s"
    assert found[KD]["difference"] / found[KD]["base"] == pytest.approx(0.5, abs=0.05)
    assert found[NOISE]["verdict"] != "worse"
    assert answer(COMPARE) == 1
    text = capsys.readouterr().out
    assert "round 8 of 8" in text
    assert "Regression" in text
    assert len(run_git(root, "worktree", "list").splitlines()) == 1
    assert run_git(root, "status", "--porcelain") == ""


def test_stored_numbers_are_compared_with_it_and_their_study_is_timed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HEAD~1", "HEAD"):
        folder = root / "results" / "tracked" / resolve(root, name).sha
        write_records(folder, {"kd": [0.9, 0.91, 0.92]}, {"kd": "same"})
        label(folder, resolve(root, name))
        (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    timing(root, monkeypatch, lambda later: {KD: {"seconds": 0.01 + 0.000001 * later}})
    assert answer(["compare", "HEAD~1", "HEAD", "--interleave", "--rounds", "3"]) == 0
    text = capsys.readouterr().out
    assert "identical bits" in text
    assert "step_seconds" in text
    assert "No regression" in text


def test_a_method_that_one_side_cannot_run_is_undecided(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def clock(later: bool) -> dict[str, Any]:
        return {KD: {"seconds": 0.01}, NOISE: {"reason": "no luck"} if later else {"seconds": 0.01}}

    timing(root, monkeypatch, clock)
    found = said(capsys, "--rounds", "3")
    assert found[NOISE]["why"] == "could not be timed in head: no luck"
    assert answer([*COMPARE, "--rounds", "3"]) == 3


@pytest.mark.parametrize(("error", "code"), [(UserError("no torch"), 2), (Stopped("SIGTERM"), 75)])
def test_no_checkout_is_left_behind(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def clock(later: bool) -> dict[str, Any]:
        if later:
            raise error
        return {KD: {"seconds": 0.01}}

    timing(root, monkeypatch, clock)
    assert answer(COMPARE) == code
    assert len(run_git(root, "worktree", "list").splitlines()) == 1
    assert run_git(root, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["compare", "HEAD~1", "HEAD", "--interleave"], "no study is stored with"),
        (["compare", "HEAD~1", "HEAD", "--study", "a.yaml"], "are for --interleave"),
        (["compare", "HEAD~1", "nobody", "--interleave"], "no commit, tag or branch 'nobody'"),
        (["compare", "HEAD~1", "HEAD", "--interleave", "--study", "none.yaml"], "no such study file"),
        (["compare", "HEAD~1", "HEAD", "--interleave", "--rounds", "2"], "--rounds"),
    ],
)
def test_mistakes_are_told(root: Path, command: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert root == Path.cwd()
    assert answer(command) == 2
    assert reason in capsys.readouterr().err
