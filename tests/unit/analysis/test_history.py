"""Thirty commits with planted changes: all are found where they were made, and equal commits are left in peace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from axe import needs_axe, violations
from commit_history import BACK, BETTER, COMMITS, NOISE, WORSE, new_repository, planted_levels, run_git
from commit_history import history as make_history
from simulate_history import EFFECT, SHAPES, false_comparisons, false_histories

from bench.analysis.regression.compare import compare
from bench.analysis.regression.filing import open_filed
from bench.analysis.regression.history import find_steps, history, timeline
from bench.cli import answer
from bench.utils.git import Commit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Commit]]:
    root = tmp_path_factory.mktemp("planted")
    return root, make_history(root, planted_levels(), NOISE)


def test_every_planted_change_is_found_at_its_commit_and_no_other(planted: tuple[Path, list[Commit]]) -> None:
    root, commits = planted
    found = history(*timeline(root, root / "results" / "tracked"), only=["accuracy"]).series
    steps = {each.method: [(step.index, step.commit, step.verdict) for step in each.steps] for each in found}
    assert steps == {
        "dafl": [(WORSE, commits[WORSE], "worse"), (BACK, commits[BACK], "better")],
        "zskd": [(BETTER, commits[BETTER], "better")],
        "kd": [],
        "noise": [],
    }
    (dafl,) = [each for each in found if each.method == "dafl"]
    assert dafl.steps[0].after - dafl.steps[0].before == pytest.approx(-0.04, abs=0.004)


def test_neighbours_are_compared_rightly_at_each_of_the_thirty_commits(planted: tuple[Path, list[Commit]]) -> None:
    root, commits = planted
    sides = [open_filed(commit.sha, root) for commit in commits]
    called = {}
    for index in range(1, COMMITS):
        found = compare(sides[index - 1], sides[index], only=["accuracy"])
        called[index] = {number.method: number.verdict for number in found.with_verdict("better", "worse")}
    moved = {index: verdicts for index, verdicts in called.items() if verdicts}
    assert moved == {WORSE: {"dafl": "worse"}, BETTER: {"zskd": "better"}, BACK: {"dafl": "better"}}


def test_the_same_bits_again_and_again_are_one_draw() -> None:
    random = np.random.default_rng(3)
    draws = [dict(enumerate(0.7 + random.normal(0, 0.02, 5))) for _ in range(3)]
    values = [draw for draw in draws for _ in range(10)]
    assert find_steps(values, EFFECT.size) == []
    moved = [{seed: value - 0.3 for seed, value in draw.items()} for draw in values]
    assert find_steps([*values, *moved], EFFECT.size) == [30]
    assert find_steps([*values, moved[0]], EFFECT.size) == [30]


def test_a_step_below_what_matters_and_one_of_a_single_seed_are_none() -> None:
    flat = {seed: 0.7 + seed / 50 for seed in range(5)}
    assert find_steps([flat] * 9 + [{seed: value - 0.005 for seed, value in flat.items()}] * 9, EFFECT.size) == []
    assert find_steps([flat] * 9 + [{seed: value - 0.02 for seed, value in flat.items()}] * 9, EFFECT.size) == [9]
    assert find_steps([flat] * 9 + [{**flat, 3: 0.1}] + [flat] * 9, EFFECT.size) == []


def test_a_speed_without_pairs_steps_too() -> None:
    random = np.random.default_rng(0)
    values = [{0: level * float(np.exp(random.normal(0, 0.01)))} for level in [5.0] * 12 + [7.0] * 8]
    assert find_steps(values, 0.5, paired=False) == [12]
    assert find_steps(values[:12], 0.5, paired=False) == []


@pytest.mark.parametrize(
    ("shape", "times"),
    [
        pytest.param(shape, times, marks=[pytest.mark.slow] * ((shape, times) != ("normal", 40)))
        for shape in SHAPES
        for times in (40, 120)
    ],
)
def test_equal_commits_are_seldom_called_different(shape: str, times: int) -> None:
    """The measured rates, from more rounds, are in docs/continuous-integration.md."""
    comparisons, wrong = false_comparisons(SHAPES[shape], times)
    assert wrong <= times * 8 / 100
    assert comparisons <= times / 24
    assert false_histories(SHAPES[shape], times) <= times / 24


@pytest.mark.slow
def test_false_alarms_are_at_most_one_in_a_hundred() -> None:
    comparisons, wrong = false_comparisons(SHAPES["normal"], 1500, number=1)
    assert comparisons <= 15
    assert wrong <= 15
    assert false_histories(SHAPES["normal"], 1500, number=1) <= 15


def test_the_simulation_prints_its_table() -> None:
    program = Path(__file__).parents[2] / "support" / "simulate_history.py"
    done = subprocess.run([sys.executable, program, "2"], capture_output=True, text=True, check=True)
    assert [line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines()] == list(SHAPES)


def test_a_step_names_the_untracked_commits_that_may_have_made_it(tmp_path: Path) -> None:
    commits = make_history(tmp_path, planted_levels(), noise=0.003)
    for index in (WORSE - 1, WORSE):
        (tmp_path / "results" / "tracked" / commits[index].sha / "results.json").unlink()
    found = history(*timeline(tmp_path, tmp_path / "results" / "tracked"), only=["accuracy"]).series
    step = next(each for each in found if each.method == "dafl").steps[0]
    assert step.commit == commits[WORSE + 1]
    assert step.untracked == (commits[WORSE - 1], commits[WORSE])


def test_another_teacher_makes_another_series_and_no_step(tmp_path: Path) -> None:
    commits = make_history(tmp_path, [{"dafl": 0.9}] * 3 + [{"dafl": 0.6}] * 3, noise=0.001)
    tracked = tmp_path / "results" / "tracked"
    for commit in commits[3:]:  # trained again, on another processor
        for file in tracked.glob(f"{commit.sha}/trials/*/record.json"):
            record = json.loads(file.read_text())
            record["teacher"]["sha256"] = "f" * 64
            record.pop("checksum", None)
            file.write_text(json.dumps(record))
    found = history(*timeline(tmp_path, tracked), only=["accuracy", "failures"]).series
    accuracy = {each.method: each for each in found if each.metric == "accuracy"}
    assert [[len(each.commits), each.steps] for each in accuracy.values()] == [[3, ()], [3, ()]]
    assert any("teacher ffffffff" in name for name in accuracy)
    (failures,) = [each for each in found if each.metric == "failures"]
    assert (failures.method, len(failures.commits)) == ("dafl", 6)


def test_the_command_prints_a_table_and_writes_a_page_that_needs_nothing(
    planted: tuple[Path, list[Commit]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, commits = planted
    page = tmp_path / "new" / "history.html"
    command = ["history", "--repo", str(root), "--metric", "accuracy", "--out", str(page)]
    assert answer(command) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if commits[WORSE].short in line)
    assert row.split()[:3] == ["digits/lenet5-half", "dafl", "accuracy"]
    assert "worse" in row
    assert commits[WORSE - 1].short in row
    assert "HEAD: 30 commits, 30 of them tracked" in text
    html = page.read_text(encoding="utf-8")
    assert commits[WORSE].short in html
    assert html.count("data:image/svg+xml;base64,") == 4
    assert "http" not in html.replace("http-equiv", "")
    assert "<script" not in html
    before = page.read_bytes()
    assert answer([*command, "--json"]) == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)}
    assert [step["commit"] for step in rows["dafl"]["steps"]] == [commits[WORSE].sha, commits[BACK].sha]
    assert len(rows["kd"]["points"]) == 30
    assert page.read_bytes() == before


@needs_axe
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_axe_finds_nothing_on_the_page(planted: tuple[Path, list[Commit]], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    page = tmp_path / "history.html"
    assert answer(["history", "--repo", str(planted[0]), "--metric", "accuracy", "--out", str(page)]) == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width in (390, 1280):
                assert violations(browser, page, width, scheme) == []
        browser.close()


def test_a_page_shows_a_subject_as_it_was_written(tmp_path: Path) -> None:
    make_history(tmp_path, [{"dafl": 0.9}, {"dafl": 0.5}], noise=0.001)
    run_git(tmp_path, "commit", "--quiet", "--amend", "--allow-empty", "-m", "<script>alert(1)</script> & more")
    tracked, new = tmp_path / "results" / "tracked", run_git(tmp_path, "rev-parse", "HEAD")
    old = run_git(tmp_path, "rev-parse", "HEAD@{1}")
    (tracked / old).rename(tracked / new)
    assert answer(["history", "--repo", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert "<script" not in html


def test_nothing_tracked_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_repository(tmp_path)
    run_git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "First")
    assert answer(["history", "--repo", str(tmp_path)]) == 2
    assert "no commit of HEAD is stored" in capsys.readouterr().err
    assert answer(["history", "nobody", "--repo", str(tmp_path)]) == 2
    assert "no commit, tag or branch 'nobody'" in capsys.readouterr().err
