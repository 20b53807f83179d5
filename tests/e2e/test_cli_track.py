"""``dfkd track``, ``dfkd compare`` and ``dfkd bisect`` on a project's own repository, with real trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commit_history import commit_file, new_repository, run_git

from bench.cli import answer
from bench.records import load_records
from bench.utils.git import resolve

METHOD = '''
"""A method of a project's own."""

from torch.optim import SGD

from bench import Access, Data, Session, method


@method("own", title="Own", paper="none", data=Data.NONE, access=Access.LOGITS)
def own(s: Session) -> None:
    """Noise with the teacher's answers."""
    optimizer = s.keep("optimizer", SGD(s.student.parameters(), lr=RATE))
    for _ in s.steps("train"):
        s.distill(optimizer, s.noise(16, *s.task.image.shape))
'''
STUDY = """
name: own
tasks: [digits/lenet5-half]
methods: [method.py]
seeds: [0, 1, 2]
budget: {steps: 12}
points: 1
"""
Project = Callable[[str, str], None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = new_repository(tmp_path / "project")
    commit_file(root, "study.yaml", STUDY, "A study")
    commit_file(root, "method.py", METHOD.replace("RATE", "0.05"), "A method")
    monkeypatch.chdir(root)
    monkeypatch.delenv("DFKD_DATA", raising=False)
    return root


def track() -> int:
    return answer(["track", "study.yaml", "--executor", "inline", "--quiet"])


@pytest.mark.slow
def test_a_project_tracks_and_compares_its_own_commits(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert track() == 0
    folder = project / "results" / "tracked" / resolve(project, "HEAD").sha
    assert len(load_records(folder)) == 3
    assert not list(folder.rglob("*.safetensors"))
    capsys.readouterr()
    assert track() == 0
    text = capsys.readouterr().out
    assert "running" not in text
    assert "3 of 3 trials ok (3 of them before this run)" in text
    (project / "method.py").write_text(METHOD.replace("RATE", "0.01"), encoding="utf-8")
    assert track() == 2
    assert "differs from its commit" in capsys.readouterr().err

    commit_file(project, "README.md", "Nothing that matters.\n", "Only words")
    run_git(project, "checkout", "--quiet", "method.py")
    assert track() == 0
    capsys.readouterr()
    assert answer(["compare", "HEAD~1", "HEAD"]) == 0
    text = capsys.readouterr().out
    assert "identical bits" in text
    assert "No regression" in text

    commit_file(
        project,
        "method.py",
        METHOD.replace("RATE", "0.05").replace("    for _ in", "    raise RuntimeError('no luck')\n    for _ in"),
        "It breaks",
    )
    assert track() == 1
    capsys.readouterr()
    assert answer(["compare", "HEAD~1", "HEAD"]) == 1
    text = capsys.readouterr().out
    assert "failed in head, ok in base: own on digits/lenet5-half, seed 2: RuntimeError: no luck" in text


@pytest.mark.slow
def test_seeds_are_added_at_both_commits_until_the_scores_are_decided(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rate differs by so little that seeds decide nothing: they are added up to the bound."""
    real = METHOD.replace("Data.NONE", "Data.TRAIN").replace("s.noise(16, *s.task.image.shape)", "s.images(16)[0]")
    commit_file(project, "method.py", real.replace("RATE", "0.05"), "Real images")
    assert track() == 0
    commit_file(project, "method.py", real.replace("RATE", "0.051"), "Other bits")
    (project / "notes.txt").write_text("mine\n", encoding="utf-8")
    command = ["track", "study.yaml", "--executor", "inline", "--quiet", "--until-decided", "--max-seeds", "5"]
    assert answer([*command, "--smallest", "accuracy=0.0001"]) == 0
    text = capsys.readouterr().out
    assert "3 seeds: Undecided" in text
    assert "5 seeds: " in text
    tracked = project / "results" / "tracked"
    folders = [tracked / resolve(project, name).sha for name in ("HEAD~1", "HEAD")]
    for folder in folders:
        assert sorted(record.trial.seed for record in load_records(folder)) == [0, 1, 2, 3, 4]
        assert (folder / "study.yaml").read_text(encoding="utf-8") == STUDY
        assert not list(folder.rglob("*.safetensors"))
    assert len(run_git(project, "worktree", "list").splitlines()) == 1
    assert (project / "notes.txt").is_file()
    answer(["compare", "HEAD~1", "HEAD"])
    assert "2 looks were planned, at 3, 5 seeds" in capsys.readouterr().out.replace("\n", " ")
    times = {file: file.stat().st_mtime_ns for file in tracked.rglob("record.json")}
    assert answer(command) == 0
    assert {file: file.stat().st_mtime_ns for file in tracked.rglob("record.json")} == times


@pytest.mark.slow
def test_steps_are_timed_and_stored_and_two_commits_are_timed_in_turn(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["track", "study.yaml", "--executor", "inline", "--quiet", "--speed", "--rounds", "3"]
    assert answer(command) == 0
    assert "a step of digits/lenet5-half: own: " in capsys.readouterr().out
    folder = project / "results" / "tracked" / resolve(project, "HEAD").sha
    assert len(list((folder / "speed").glob("*.json"))) == 3
    slow = METHOD.replace("RATE", "0.05").replace(
        "        s.distill",
        "        for _ in range(10):\n            s.noise(16, *s.task.image.shape).sin().sum()\n        s.distill",
    )
    commit_file(project, "method.py", slow, "Ten times the noise")
    (project / "notes.txt").write_text("mine\n", encoding="utf-8")
    answer(["compare", "HEAD~1", "HEAD", "--interleave", "--study", "study.yaml", "--rounds", "3", "--json"])
    (number,) = [each for each in json.loads(capsys.readouterr().out) if each.get("metric") == "step_seconds"]
    assert number["pairs"] == 3
    assert number["difference"] > 0
    assert len(run_git(project, "worktree", "list").splitlines()) == 1
    assert (project / "notes.txt").is_file()


@pytest.mark.slow
def test_bisect_finds_the_commit_that_broke_a_method(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real trials in checkouts of real commits: one does not run at all, one no longer trains."""
    good = METHOD.replace("RATE", "0.05")
    commit_file(project, "notes.md", "1\n", "Words")
    commit_file(project, "method.py", "this is no Python\n", "Cannot be read")
    commit_file(project, "method.py", good, "Can be read again")
    culprit = commit_file(project, "method.py", METHOD.replace("RATE", "0.0"), "Learns nothing")
    commit_file(project, "notes.md", "2\n", "More words")
    (project / "study.yaml").write_text(STUDY.replace("[0, 1, 2]", "[0]"), encoding="utf-8")
    (project / "notes.md").write_text("being edited\n", encoding="utf-8")
    command = ["bisect", "study.yaml", "--good", "HEAD~5", "--number", "agreement", "--executor", "inline"]
    assert answer(command) == 0
    text = capsys.readouterr().out
    assert f"\n{culprit.sha}\nLearns nothing" in text
    tracked = project / "results" / "tracked"
    assert (project / "notes.md").read_text(encoding="utf-8") == "being edited\n"
    filed = {folder.name for folder in tracked.iterdir() if list((folder / "trials").glob("*"))}
    assert culprit.sha in filed
    times = {file: file.stat().st_mtime_ns for file in tracked.rglob("record.json")}
    assert answer(command) == 0
    assert culprit.sha in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in tracked.rglob("record.json")} == times
