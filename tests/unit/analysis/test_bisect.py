"""The commit that changed a number is found, the user's checkout is left alone, what cannot run is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from commit_history import commit_file, new_repository, run_git

from bench.analysis.regression.bisect import Found, bisect
from bench.cli import answer
from bench.errors import UserError
from bench.spec.expand import expand
from bench.spec.study import load_study
from bench.spec.subset import of_study
from bench.utils.git import Commit

STUDY = """
name: mine
tasks: [digits/lenet5-half]
methods: [noise, kd: {batch: 8}]
seeds: [0]
budget: {steps: 4}
points: 1
"""


def repository(root: Path, values: list[float | None]) -> list[Commit]:
    new_repository(root)
    return [commit_file(root, "value", f"{value}\n", f"Commit {index}") for index, value in enumerate(values)]


def of_file(folder: Path, commit: Commit) -> float | None:
    text = (folder / "value").read_text().strip()
    return None if text == "None" else float(text)


def search(root: Path, commits: list[Commit], threshold: float | None = None) -> Found:
    return bisect(root, commits[0].sha, "main", of_file, threshold)


@pytest.mark.parametrize("place", [1, 2, 7, 11])
@pytest.mark.parametrize(("before", "after"), [(0.9, 0.5), (0.5, 0.9)])
def test_the_commit_is_found_wherever_it_is(tmp_path: Path, place: int, before: float, after: float) -> None:
    commits = repository(tmp_path, [before] * place + [after] * (12 - place))
    (tmp_path / "value").write_text("being edited")
    found = search(tmp_path, commits)
    assert found.commits == (commits[place],)
    assert len(found.tried) <= 2 + 4
    assert (tmp_path / "value").read_text() == "being edited"
    assert run_git(tmp_path, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert len(run_git(tmp_path, "worktree", "list").splitlines()) == 1
    assert "bisect" not in run_git(tmp_path, "for-each-ref")


def test_commits_that_cannot_run_are_passed_over(tmp_path: Path) -> None:
    commits = repository(tmp_path, [0.9, 0.9, None, 0.9, 0.5, 0.5, None, 0.5])
    assert search(tmp_path, commits).commits == (commits[4],)


def test_where_none_between_can_run_all_of_them_are_named(tmp_path: Path) -> None:
    commits = repository(tmp_path, [0.9, 0.9, None, None, 0.5, 0.5])
    assert {each.subject for each in search(tmp_path, commits).commits} == {"Commit 2", "Commit 3", "Commit 4"}


def test_a_threshold_of_ones_own_chooses_the_step(tmp_path: Path) -> None:
    commits = repository(tmp_path, [0.9, 0.9, 0.8, 0.8, 0.8, 0.3, 0.3])
    assert search(tmp_path, commits, 0.85).commits == (commits[2],)
    assert search(tmp_path, commits, 0.5).commits == (commits[5],)


def test_a_merged_branch_is_one_commit(tmp_path: Path) -> None:
    commits = repository(tmp_path, [0.9, 0.9])
    run_git(tmp_path, "checkout", "--quiet", "-b", "side")
    commit_file(tmp_path, "value", "0.1\n", "Broken on the way")
    commit_file(tmp_path, "value", "0.5\n", "On the side")
    run_git(tmp_path, "checkout", "--quiet", "main")
    run_git(tmp_path, "merge", "--quiet", "--no-ff", "-m", "Merge the side", "side")
    commit_file(tmp_path, "other", "", "After it")
    (found,) = search(tmp_path, commits).commits
    assert found.subject == "Merge the side"


@pytest.mark.parametrize(
    ("values", "good", "threshold", "said"),
    [
        ([0.9, 0.9], "HEAD~1", None, "both the same"),
        ([0.9, 0.8], "HEAD~1", 0.5, "both on one side of 0.5"),
        ([None, 0.8], "HEAD~1", None, "no such number at the good commit"),
        ([0.9, 0.8], "HEAD", None, "not an earlier commit on the line"),
        ([0.9, 0.8], "nobody", None, "no commit, tag or branch 'nobody'"),
    ],
)
def test_what_cannot_be_searched_is_told(
    tmp_path: Path, values: list[float | None], good: str, threshold: float | None, said: str
) -> None:
    repository(tmp_path, values)
    with pytest.raises(UserError, match=said):
        bisect(tmp_path, good, "HEAD", of_file, threshold)
    assert len(run_git(tmp_path, "worktree", "list").splitlines()) == 1


# ---- the cell ------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path / "study.yaml"


@pytest.mark.parametrize("method", ["noise", "kd"])
def test_a_narrowed_study_has_the_same_trials_and_no_others(study: Path, method: str, tmp_path: Path) -> None:
    import json

    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(json.dumps(of_study(study, None, method)), encoding="utf-8")
    whole = [trial.id for trial in expand(load_study(study)) if trial.method == method]
    assert [trial.id for trial in expand(load_study(narrow))] == whole


@pytest.mark.parametrize(
    ("task", "method", "said"),
    [
        (None, None, "has 2 methods; name one with --method: noise, kd"),
        (None, "nois", "did you mean 'noise'"),
        ("digits/lenet", "kd", "has no task"),
    ],
)
def test_a_cell_that_is_not_clear_is_asked_for(study: Path, task: str | None, method: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        of_study(study, task, method)


def test_a_grid_is_no_single_cell(study: Path) -> None:
    study.write_text(STUDY.replace("batch: 8", "batch: [8, 16]"), encoding="utf-8")
    with pytest.raises(UserError, match=r"2 cells of kd: kd \(batch=16\), kd \(batch=8\); name a trial"):
        of_study(study, None, "kd")


def test_budgets_of_other_tasks_are_left_out(study: Path) -> None:
    text = (
        STUDY.replace("lenet5-half]", "lenet5-half, shapes/unet-small]") + "budgets: {shapes/unet-small: {steps: 2}}\n"
    )
    study.write_text(text, encoding="utf-8")
    assert "budgets" not in of_study(study, "digits/lenet5-half", "kd")
    assert of_study(study, "shapes/unet-small", "kd")["budgets"] == {"shapes/unet-small": {"steps": 2}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study.yaml"], "missing option"),
        (["study.yaml", "--good", "HEAD", "--number", "acuracy"], "did you mean 'accuracy'?"),
        (["nothing", "--good", "HEAD", "--number", "accuracy"], "no trial 'nothing'"),
        (["nothing.yaml", "--good", "HEAD", "--number", "accuracy"], "no such study file"),
        (["abc", "--good", "HEAD", "--number", "accuracy", "--method", "kd"], "--task and --method are for studies"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository(tmp_path, [0.9])
    monkeypatch.chdir(tmp_path)
    assert answer(["bisect", *arguments]) == 2
    assert said in capsys.readouterr().err
