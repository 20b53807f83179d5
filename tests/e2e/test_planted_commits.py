"""A repository with planted commits on a small method of its own, and what compare, history and bisect say of each.

Real trials: what is planted here changes what records know of options. Shifts of many sizes, noise and speed are
planted in records, in tests/unit/analysis/test_planted_records.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commit_history import commit_file, new_repository

from bench.cli import answer

METHOD = '''
"""A small method of a project's own."""

from dataclasses import dataclass

from torch.optim import Adam

from bench import Access, Data, Session, method, option


@dataclass(frozen=True)
class Options:
    lr_student: float = option(0.005, "learning rate", above=0)
    batch: int = option(64, "images per step", low=2)


@method("own", title="Own", paper="none", data=Data.TRAIN, access=Access.LOGITS)
def own(s: Session, o: Options) -> None:
    """Real images with the teacher's answers."""
    optimizer = s.keep("optimizer", Adam(s.student.parameters(), lr=o.lr_student))
    for _ in s.steps("train"):
        images, _ = s.images(o.batch)
        s.distill(optimizer, images)
'''
STUDY = """
name: own
tasks: [digits/lenet5-half]
methods: [method.py: {batch: 64}]
seeds: [0, 1, 2]
budget: {steps: 60}
points: 1
"""
LOWER = METHOD.replace("option(0.005", "option(0.000001")
ADDED = LOWER.replace("    batch: int", '    smoothing: float = option(0.1, "not used", low=0)\n    batch: int')
FIXED = ADDED.replace("option(0.000001", "option(0.005")
RENAMED = FIXED.replace("batch: int", "images: int").replace("o.batch", "o.images")
MOVED = RENAMED.replace('"own"', '"ours"').replace("def own", "def ours")
Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    root = new_repository(tmp_path / "project")
    commit_file(root, "study.yaml", STUDY, "A study")
    commit_file(root, "method.py", METHOD, "A method")
    monkeypatch.chdir(root)
    monkeypatch.delenv("DFKD_DATA", raising=False)

    def run(*command: str, code: int = 0) -> str:
        capsys.readouterr()
        found = answer(list(command))
        said = capsys.readouterr()
        assert found == code, said
        return said.out

    return run


def plant(name: str, text: str, subject: str) -> str:
    return commit_file(Path(), name, text, subject).short


@pytest.mark.slow
def test_planted_commits_are_told_for_what_they_are(say: Say) -> None:
    track = ("track", "study.yaml", "--executor", "inline", "--quiet")
    say(*track)
    lowered = plant("method.py", LOWER, "Default: a lower learning rate")
    say(*track)
    text = say("compare", "HEAD~1", "HEAD", "--smallest", "accuracy=0.05", code=1)
    assert "own: lr_student 0.005 -> 1e-06 by default" in text
    assert "Regression. Scores: 1 worse." in text

    plant("method.py", ADDED, "An option that nobody sets")
    say(*track)
    text = say("compare", "HEAD~1", "HEAD")
    assert "smoothing added (0.1)" in text
    assert "No regression. Scores: 1 same (all identical)" in text

    fixed = plant("method.py", FIXED, "Fix: the learning rate as it was")
    say(*track)
    text = say("compare", "HEAD~1", "HEAD", "--smallest", "accuracy=0.05")
    assert "own: lr_student 1e-06 -> 0.005 by default" in text
    assert "No regression. Scores: 1 better." in text

    (series,) = json.loads(say("history", "--metric", "accuracy", "--json"))
    assert len(series["points"]) == 4
    steps = [(step["commit"][:9], step["verdict"], step["options"]) for step in series["steps"]]
    assert steps == [
        (lowered, "worse", "lr_student 0.005 -> 1e-06 by default"),
        (fixed, "better", "lr_student 1e-06 -> 0.005 by default"),
    ]
    command = ("bisect", "study.yaml", "--good", "HEAD~3", "--bad", "HEAD~1", "--number", "accuracy")
    assert "Default: a lower learning rate" in say(*command, "--executor", "inline")

    commit_file(Path(), "study.yaml", STUDY.replace("batch: 64", "images: 64"), "The study follows")
    plant("method.py", RENAMED, "Rename an option")
    say(*track)
    text = say("compare", "HEAD~2", "HEAD", code=3)
    assert "is the option images of own the former batch (both 64)?" in text
    assert "Undecided. Not compared: 2. Open questions: 1." in text
    assert "No regression. Scores: 1 same" in say("compare", "HEAD~2", "HEAD", "--renamed", "own.batch=images")
    assert "is the option images of own the former batch" in say("history", "--metric", "accuracy")

    plant("method.py", MOVED, "Rename the method")
    say(*track)
    text = say("compare", "HEAD~1", "HEAD", code=3)
    assert "is the method ours the former own?" in text
    assert "if so: --renamed own=ours" in text
    assert "No regression" in say("compare", "HEAD~1", "HEAD", "--renamed", "own=ours")
    names = ("--renamed", "own=ours", "--renamed", "own.batch=images")
    (series,) = json.loads(say("history", "--metric", "accuracy", "--json", *names))
    assert len(series["points"]) == 6
