"""docs/your-own-task.md: its commands are run as they stand, with tiny budgets, on images made for it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from own_task import write_flat, write_images

from bench.cli import answer
from bench.execution.distill import parse_budget
from bench.records import load_records
from bench.spec.task import read_tasks, tasks
from bench.utils.user_code import import_module

PAGE = Path(__file__).parents[2] / "docs" / "your-own-task.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    shlex.split(line.removeprefix("$ dfkd "))
    for kind, text in BLOCKS
    if kind == "console"
    for line in text.splitlines()
]
IN_PROCESS = {name: ["--executor", "inline", "--isolation", "none"] for name in ("distill", "run")}


def block(start: str) -> str:
    """The block that begins like this."""
    (found,) = [text for _, text in BLOCKS if text.startswith(start)]
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page takes for granted: images in two classes, some without labels, and the page's network."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_images(tmp_path / "here" / "images" / "train", 10)
    write_images(tmp_path / "here" / "images" / "test", 10, first=100)
    write_flat(tmp_path / "here" / "photos", 5, 0, first=200)
    write_flat(tmp_path / "here" / "photos", 5, 1, first=200)
    (tmp_path / "here" / "net.py").write_text(block("from torch import nn"), encoding="utf-8")
    (tmp_path / "here" / "mine.yaml").write_text(block("- name: mine"), encoding="utf-8")
    return tmp_path / "here"


def train_teacher(place: Path) -> None:
    """A few steps tell bright images from dark ones."""
    import torch
    from torch.nn import functional as F

    (task,) = read_tasks(place / "mine.yaml")
    torch.manual_seed(0)
    network = import_module(place / "net.py", None).build(task.image, 2)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(20):
        labels = torch.arange(16) % 2
        light = torch.where(labels == 0, 0.78, 0.2) + 0.1 * torch.rand(16) - 0.05
        images = ((light - 0.3) / 0.32).view(-1, 1, 1, 1) + 0.1 * torch.randn(16, 1, 32, 32)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    torch.save(network.state_dict(), place / "teacher.pth")


def test_the_pages_task_is_one_and_its_commands_name_what_is_there(place: Path) -> None:
    (task,) = read_tasks(place / "mine.yaml")
    assert (task.name, task.classes, task.metric, task.trains_teachers) == ("mine", 2, "accuracy", False)
    assert [words[0] for words in COMMANDS] == ["distill"] * 3 + ["data", "teacher", "run", "report"]
    for words in COMMANDS[:3]:
        assert words[1:4] == ["teacher.pth", "--network", "net.py:build"]
        assert parse_budget(words[words.index("--budget") + 1]) == {"seconds": 1800.0}


@pytest.mark.slow
def test_the_pages_commands_run_in_their_order(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_teacher(place)
    key = ""
    for words in COMMANDS:
        given = ["steps=2" if word == "30m" else word for word in words]
        if words[0] == "run":
            study = block("name: own").replace("teacher_images: 20_000", "steps: 2").replace("KEY", key)
            (place / "own.yaml").write_text(study + "points: 1\n", encoding="utf-8")
        assert answer([*given, *IN_PROCESS.get(words[0], [])]) == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        for own in ("mine", "teacher/lenet5-half"):  # each command is a process of its own
            tasks().pop(own, None)
        if words[0] == "teacher":
            key = said.splitlines()[-1].partition("{mine: ")[2].rstrip("}")
    folders = ["distilled-teacher-lenet5-half-dfq", "with-photos", "with-labels"]
    metrics = [record.metric for folder in folders for record in load_records(place / folder / "results")]
    assert metrics == ["synthetic_agreement", "agreement", "accuracy"]
    for name in ("student.safetensors", "record.json", "index.html", "task.yaml", "study.yaml"):
        assert all((place / folder / name).is_file() for folder in folders)
    records = load_records(place / "runs" / "own")
    assert {record.status for record in records} == {"ok"}
    assert {record.trial.method for record in records} == {"noise", "kd", "dafl", "dfq"}
    assert (place / "runs" / "own" / "report" / "index.html").is_file()
