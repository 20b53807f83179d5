"""``dfkd run`` for real, with tiny budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli import answer
from bench.records import load_records, trial_folders

STUDY = """
name: tiny
tasks: [digits/lenet5-half]
methods:
  - noise: {batch: 4}
  - kd: {batch: [4, 8]}
seeds: [0]
budget: {steps: STEPS}
points: 2
"""
BROKEN = '''
from bench import Access, Data, Session, method

@method("broken", title="Broken", paper="none", data=Data.NONE, access=Access.LOGITS)
def broken(s: Session) -> None:
    """Fails."""
    raise RuntimeError("no [luck] at all")
'''


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DFKD_DATA", raising=False)
    write_study(3)


def write_study(steps: int, old: str = "STEPS", new: str = "STEPS") -> None:
    text = STUDY.replace(old, new).replace("STEPS", str(steps))
    Path("study.yaml").write_text(text, encoding="utf-8")


def test_a_run_ends_with_a_ranking_and_the_way_to_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["run", "study.yaml", "--executor", "inline"]) == 0
    text = capsys.readouterr().out
    assert text.isprintable() or all(line.isprintable() for line in text.splitlines())
    lines = text.splitlines()
    assert lines[0] == "tiny: 3 trials, 3 steps each; results in runs/tiny" or "training" in lines[1]
    for label in ("noise (batch=4)", "kd (batch=4)", "kd (batch=8)"):
        assert sum(line.startswith(f"running  {label}, seed 0") for line in lines) == 1
        assert sum(line.startswith(f"ok       {label}, seed 0") for line in lines) == 1
        assert sum(line.startswith(f"digits/lenet5-half  {label}") for line in lines) == 1
    assert lines[-3:] == [
        "3 of 3 trials ok",
        "records: runs/tiny/trials",
        "next: dfkd report --results runs/tiny",
    ]
    assert len(load_records(Path("runs/tiny"))) == 3
    assert answer(["run", "study.yaml", "--executor", "inline"]) == 0
    again = capsys.readouterr().out
    assert "running" not in again
    assert "3 of 3 trials ok (3 of them before this run)" in again


def test_a_dry_run_says_all_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["run", "study.yaml", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.count("to run\n") == 3
    assert "noise (batch=4) on digits/lenet5-half\n  " in text
    assert "temperature=" in text
    assert "tiny: 3 trials, 0 finished, 3 to run in runs/tiny" in text
    assert [path.name for path in Path().iterdir()] == ["study.yaml"]
    assert answer(["run", "study.yaml", "--executor", "inline", "--results", "there"]) == 0
    ids = {folder.name for folder in trial_folders(Path("there"))}
    assert all(name in text for name in ids)
    capsys.readouterr()
    assert answer(["run", "study.yaml", "--dry-run", "--results", "there"]) == 0
    assert "tiny: 3 trials, 3 finished, 0 to run in there" in capsys.readouterr().out


def test_a_failing_method_is_exit_code_1_with_reason_and_log(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.py").write_text(BROKEN, encoding="utf-8")
    assert answer(["run", "study.yaml", "--executor", "inline", "--method", "broken.py"]) == 1
    text = capsys.readouterr().out
    reason, line = text[text.index("failed (crashed)") :].splitlines()[:2]
    assert "RuntimeError: no [luck] at all" in reason
    assert line.startswith("  broken, seed 0, digits/lenet5-half (")
    log = Path(line.rpartition("log: ")[2])
    assert "no [luck] at all" in log.read_text(encoding="utf-8")
    assert "3 of 4 trials ok; the same command retries the others" in text


def test_missing_data_is_exit_code_1_with_the_command_that_fixes_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del cache
    write_study(3, "[digits/lenet5-half]", "[mnist/lenet5-half]")
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    assert answer(["run", "study.yaml"]) == 1
    text = capsys.readouterr().out
    assert sum(line.startswith("missing data ") for line in text.splitlines()) == 3
    assert text.count("failed (missing data)") == 1  # one reason for three trials
    assert text.count("`dfkd data fetch mnist`") == 1


def test_a_worker_finds_our_modules_and_not_those_of_the_users_folder() -> None:
    """Two workers at a time, in a folder whose modules have the names of ours."""
    for name in ("bench", "methods", "torch"):
        Path(name).mkdir()
        Path(name, "__init__.py").write_text("raise ImportError('a stranger')", encoding="utf-8")
    write_study(3, "  - kd: {batch: [4, 8]}\n", "  - kd: {batch: 4}\n")
    assert answer(["run", "study.yaml", "--workers", "2"]) == 0
    assert {record.status for record in load_records(Path("runs/tiny"))} == {"ok"}
