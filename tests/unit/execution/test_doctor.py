"""``dfkd doctor``: what is there, and how to fix what is missing."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bench.cli import answer
from bench.data import NAMES
from bench.execution import doctor
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key

IMPORTING = doctor._importing


@pytest.fixture(autouse=True)
def _nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "_importing", lambda: nullcontext(lambda: "1.0, can be imported"))


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    assert answer(["doctor", "--json", *arguments]) == 0
    return {(fact["group"], fact["name"]): fact for fact in json.loads(capsys.readouterr().out)}


def test_everything_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys)
    groups = {"machine", "libraries", "data sets", "cache", "teachers", "weights", "results"}
    assert {group for group, _ in found} == groups
    assert {name for group, name in found if group == "data sets"} >= set(NAMES)
    assert found["data sets", "digits"]["ok"]
    assert found["libraries", "torchvision"]["value"].endswith(", can be imported")


def test_each_missing_thing_comes_with_its_fix(capsys: pytest.CaptureFixture[str]) -> None:
    missing = {key: fact for key, fact in facts(capsys).items() if not fact["ok"]}
    assert missing["data sets", "mnist"]["fix"].startswith("dfkd data fetch mnist ")
    assert missing["teachers", "mnist/lenet5-half"]["fix"].startswith("dfkd teacher train mnist/lenet5-half ")
    assert all(fact["fix"] for fact in missing.values())
    assert all(fact["absent"] for fact in missing.values())
    assert answer(["doctor", "--all"]) == 0
    text = capsys.readouterr().out
    assert "to get it: dfkd data fetch mnist " in text
    assert text.endswith(f"\nnothing is broken, {len(missing)} missing\n")


def test_all_fits_on_one_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert answer(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines if "/" not in line) <= 80  # a path is not broken
    assert lines[0] == "missing"
    assert lines[1].startswith("  data sets  mnist, fashion_mnist, ")


def test_what_is_broken_comes_first_and_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\0\0\x08\x03")
    assert answer(["doctor", "--data", str(tmp_path / "data")]) == 0
    broken, absent, _ = capsys.readouterr().out.split("\n\n", 2)
    assert broken.startswith(f"broken\n  ✗ data sets, mnist: {file}: truncated")
    assert "      to fix it: dfkd data fetch mnist " in broken
    assert " mnist," not in absent


def test_nothing_is_made_by_looking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_in_the_cache_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["teacher", "train", "digits/lenet5-half", "--recipe", "quick"]) == 0
    capsys.readouterr()
    found = [fact for (group, name), fact in facts(capsys).items() if group == "teachers" and "/" not in name]
    assert "test score" in found[0]["value"]


def test_a_damaged_passport_does_not_stop_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cache" / "teachers" / teacher_key(get_task("digits/lenet5-half"))
    folder.mkdir(parents=True)
    (folder / "passport.json").write_text("{", encoding="utf-8")
    found = facts(capsys)
    assert "is not a passport" in found["teachers", "cache"]["value"]
    assert found["results", "schema"]["ok"]


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "file" / "cache"))
    fact = facts(capsys)["cache", "folder"]
    assert not fact["ok"]
    assert "DFKD_CACHE" in fact["fix"]


def test_damaged_data_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\0\0\x08\x03")
    fact = facts(capsys, "--data", str(tmp_path / "data"))["data sets", "mnist"]
    assert not fact["ok"]
    assert f"{file}: truncated" in fact["value"]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (
            "raise RuntimeError('no operator\\nand more')",
            "RuntimeError: no operator",
        ),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os._exit(3)", "ImportError: exit 3"),
        ("__version__ = '9.1'", "9.1, can be imported"),
        ("import time; time.sleep(60)", "not tried: importing it takes more than 0.5 s at the moment"),
    ],
)
def test_a_broken_or_slow_library_does_not_keep_the_rest_from_being_told(
    content: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torchvision.py").write_text(content, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_importing", IMPORTING)
    monkeypatch.setattr(doctor, "IMPORT_SECONDS", 0.5 if "sleep" in content else 60.0)
    found = facts(capsys)
    fact = found["libraries", "torchvision"]
    assert fact["value"].endswith(value)
    assert fact["ok"] == (content[:2] == "__" or "sleep" in content)
    assert not fact["absent"]
    assert found["results", "schema"]["ok"]


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "gpus", lambda: ["NVIDIA H200"])
    assert facts(capsys)["machine", "gpus"]["value"] == "NVIDIA H200"
