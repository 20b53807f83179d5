"""``dfkd teacher``: train, import, list and show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.cli import answer
from bench.utils.paths import teacher_folder

TASK = "digits/lenet5-half"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trained(capsys: pytest.CaptureFixture[str]) -> str:
    """The key of a teacher that was trained in a moment."""
    assert answer(["teacher", "train", TASK, "--recipe", "quick", "--seed", "5"]) == 0
    capsys.readouterr()
    (folder,) = [path for path in teacher_folder().iterdir() if path.is_dir()]
    return folder.name


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert answer(["teacher", *arguments, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_training_says_how_to_use_the_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["teacher", "train", TASK, "--recipe", "quick"]) == 0
    text = capsys.readouterr().out
    assert "training the teacher of digits/lenet5-half: 2 epochs" in text
    assert "the teacher of digits/lenet5-half is trained (" in text
    (row,) = listed(capsys, "list")
    assert f"to use it, add to a study: teachers: {{{TASK}: {row['key']}}}" in text
    assert (row["recipe"], row["seed"]) == ("quick", 0)


def test_a_teacher_is_shown_by_the_start_of_its_key(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = listed(capsys, "show", trained[:9])
    assert (row["key"], row["weights"], row["seed"]) == (trained, "ok", 5)
    assert answer(["teacher", "show", trained]) == 0
    assert "test score" in capsys.readouterr().out
    assert answer(["teacher", "list"]) == 0
    assert trained in capsys.readouterr().out


def test_altered_and_missing_weights_are_told(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights = teacher_folder() / trained / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert listed(capsys, "show", trained)[0]["weights"] == "altered"
    weights.unlink()
    assert listed(capsys, "show", trained)[0]["weights"] == "missing"


def test_an_empty_cache_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["teacher", "list"]) == 0
    assert "no teachers in" in capsys.readouterr().out
    assert listed(capsys, "list") == []


def test_an_own_checkpoint_becomes_a_teacher(trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(load_file(teacher_folder() / trained / "weights.safetensors"), tmp_path / "my [own].pt")
    assert answer(["teacher", "import", str(tmp_path / "my [own].pt"), "--task", TASK]) == 0
    text = capsys.readouterr().out
    assert "imported from  my [own].pt" in text
    key = text.splitlines()[0]
    assert key.startswith("lenet5-digits-import-")
    assert {row["key"] for row in listed(capsys, "list")} == {trained, key}


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("gone.pt", lambda file: None, "no such checkpoint"),
        ("text.pt", lambda file: file.write_text("hello"), "cannot be read as a checkpoint of plain tensors"),
        ("short.safetensors", lambda file: file.write_bytes(b"\x09"), "is not a complete safetensors file"),
        ("names.safetensors", lambda file: save_file({"x": torch.zeros(2)}, file), "does not fit"),
    ],
)
def test_a_checkpoint_that_cannot_be_used(
    name: str, make: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / name)
    assert answer(["teacher", "import", str(tmp_path / name), "--task", TASK]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dfkd: {'' if name.startswith('gone') else tmp_path / name}")
    assert sentence in error
    assert error.count("\n") == 1
    assert listed(capsys, "list") == []


def test_wrong_shapes_are_told_by_name(trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(teacher_folder() / trained / "weights.safetensors")
    name, value = sorted(weights.items())[0]
    save_file({**weights, name: torch.zeros(7, *value.shape)}, tmp_path / "shapes.safetensors")
    assert answer(["teacher", "import", str(tmp_path / "shapes.safetensors"), "--task", TASK]) == 2
    assert f"{name} has shape (7, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "digit/lenet5-half"], "unknown task 'digit/lenet5-half'; did you mean 'digits/lenet5-half'?"),
        (["train", TASK, "--recipe", "quik"], "unknown teacher recipe 'quik'; did you mean 'quick'?"),
        (
            ["train", "imagenet/resnet50-resnet18"],
            "task 'imagenet/resnet50-resnet18' names no recipe for its teacher: import it (`dfkd teacher import FILE "
            "--task imagenet/resnet50-resnet18`), or choose a recipe with --recipe",
        ),
        (["show", "lenet"], "no teacher 'lenet' in"),
    ],
)
def test_wrong_names(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["teacher", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"dfkd: {sentence}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("{", "is not a passport"), ('{"schema": 99}', "has version 99"), ('{"schema": 1}', "lacks key, network")],
)
def test_a_damaged_passport_says_which_folder_to_delete(
    content: str, sentence: str, trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (teacher_folder() / trained / "passport.json").write_text(content, encoding="utf-8")
    assert answer(["teacher", "list"]) == 2
    error = capsys.readouterr().err
    assert str(teacher_folder() / trained) in error
    assert sentence in error
