"""``dfkd check``: what it prints and its exit code; the battery itself is tested under ``tests/contract``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench.execution.contract
from bench.cli import answer
from bench.execution.contract import Finding
from bench.harness.teachers.progress import TrainingProgress
from bench.spec.method_card import MethodCard

METHOD = '''
from bench import Access, Data, Session, method

@method("{name}", title="Mine", paper="none", data=Data.NONE, access=Access.LOGITS)
def {name}(s: Session) -> None:
    """Nothing."""
'''
GOOD, BAD = Finding("runs", True, "40 steps", 0.1), Finding("access", False, "used [features]", 0.2)


@pytest.fixture
def battery(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, Any]]]:
    """Replace the battery by one that finds what it is told to find; the list holds what it was asked."""

    def replace(*findings: Finding) -> list[tuple[str, Any]]:
        asked: list[tuple[str, Any]] = []

        def run(
            card: MethodCard,
            *,
            report: Callable[[Finding], None],
            doing: Callable[[str], None],
            training: Callable[[Any], None],
            **how: Any,
        ) -> list[Finding]:
            asked.append((card.name, how))
            training(TrainingProgress(epoch=0, epochs=9, loss=float("nan"), seconds=0))
            for finding in findings:
                doing(finding.name)
                report(finding)
            return list(findings)

        monkeypatch.setattr(bench.execution.contract, "run_battery", run)
        return asked

    return replace


def test_a_good_method_is_exit_code_0(battery: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked = battery(GOOD, GOOD)
    assert answer(["check", "dafl"]) == 0
    assert asked == [("dafl", {"task": "digits/lenet5-half", "method_files": (), "isolation": "auto"})]
    assert capsys.readouterr().out.splitlines() == [
        "dafl on digits/lenet5-half",
        "training the teacher of digits/lenet5-half: 9 epochs",
        "  ✓ runs: 40 steps (0.1 s)",
        "  ✓ runs: 40 steps (0.1 s)",
        "all 2 checks passed (0 s in all)",
    ]


def test_a_bad_one_is_exit_code_1(battery: Any, capsys: pytest.CaptureFixture[str]) -> None:
    battery(GOOD, BAD)
    assert answer(["check", "dafl"]) == 1
    text = capsys.readouterr().out
    assert "  ✗ access: used [features] (0.2 s)\n" in text
    assert text.endswith("1 of 2 checks failed (0 s in all)\n")


def test_every_method_of_a_file_is_checked(
    battery: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.py"
    file.write_text(METHOD.format(name="one") + METHOD.format(name="two"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    asked = battery(BAD)
    assert answer(["check", "own.py", "--task", "mnist/lenet5-half", "--json"]) == 1
    how = {"task": "mnist/lenet5-half", "method_files": (file,), "isolation": "auto"}
    assert asked == [("one", how), ("two", how)]
    rows = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["name"], row["ok"]) for row in rows] == [
        ("one", "access", False),
        ("two", "access", False),
    ]


def test_a_terminal_shows_what_is_being_done_until_the_finding_comes(
    battery: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    battery(GOOD, BAD)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    assert answer(["check", "dafl"]) == 1
    lines = capsys.readouterr().out.split("\r\x1b[K")
    assert lines[0] == "dafl on digits/lenet5-half\n"
    assert lines[1] == "  … loading torch"
    assert lines[2] == "  … training the teacher of digits/lene"  # no longer than a line, which could not be replaced
    assert lines[3:5] == ["  … 1 of 13: runs", "  ✓ runs: 40 steps (0.1 s)\n"]
    assert lines[5] == "  … 2 of 13: access"
