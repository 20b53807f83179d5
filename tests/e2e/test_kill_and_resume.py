"""Killed at any moment, a study goes on where it stopped and ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.records import load_records, read_curve

STUDY = """
name: killed
memory_format: channels_last
tasks: [digits/lenet5-half]
methods:
  - dafl: {batch: 64, width: 16}
  - zskd: {batch: 32, iterations: 10, batch_student: 64}
seeds: [0]
budget: {steps: 60}
points: 6
"""
# Who starts the tests in the background has them, and all that they start, ignore Ctrl-C.
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from bench.cli import main
sys.exit(main())
"""
SEGFAULT = """
import ctypes
from bench import Access, Data, Session, method

@method("segfault", title="Segfault", paper="none", data=Data.NONE, access=Access.LOGITS)
def segfault(s: Session) -> None:
    for _ in s.steps("train"):
        ctypes.string_at(0)
"""


def start(folder: Path, results: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-c",
        LISTENING,
        "run",
        str(folder / "study.yaml"),
        "--results",
        str(results),
        "--quiet",
    ]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [*command, "--checkpoint-seconds", "0", *more],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(folder: Path, results: Path, *more: str) -> tuple[int, str]:
    process = start(folder, results, *more)
    out, err = process.communicate(timeout=240)
    return process.returncode, (out + err).decode()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def wait_for_checkpoint(results: Path, process: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: any(results.glob("work/*/checkpoint.pt")) or process.poll() is not None)


def students(results: Path) -> dict[str, bytes]:
    return {
        record.id: (results / "trials" / record.id / "student.safetensors").read_bytes()
        for record in load_records(results)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Path]:
    """The study, run without any disturbance."""
    del cache
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    code, output = finish(folder, folder / "whole", "--executor", "inline")
    assert code == 0, output
    return folder, folder / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_kill_9_and_resume_gives_the_same_bits(whole: tuple[Path, Path], tmp_path: Path, executor: str) -> None:
    folder, undisturbed = whole
    results = tmp_path / "results"
    for _ in range(2):  # twice, at whatever moment it is after a checkpoint
        process = start(folder, results, "--executor", executor, "--workers", "2")
        wait_for_checkpoint(results, process)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    code, output = finish(folder, results, "--executor", executor, "--workers", "2")
    assert code == 0, output
    assert students(results) == students(undisturbed)
    records = load_records(results)
    assert sum(record.resumed for record in records) >= 1
    for record in records:
        curves = [read_curve(where / "trials" / record.id) for where in (results, undisturbed)]
        assert [row["score"] for row in curves[0]] == [row["score"] for row in curves[1]]
    assert not list((results / "work").iterdir())


@pytest.mark.slow
def test_executors_give_the_same_bits_and_finished_trials_are_not_run_again(
    whole: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, undisturbed = whole
    results = tmp_path / "results"
    code, output = finish(folder, results, "--executor", "processes", "--workers", "2")
    assert code == 0, output
    assert students(results) == students(undisturbed)
    stamps = {file: file.stat().st_mtime_ns for file in results.glob("trials/*/record.json")}
    code, output = finish(folder, results)
    assert code == 0, output
    assert {file: file.stat().st_mtime_ns for file in results.glob("trials/*/record.json")} == stamps


@pytest.mark.slow
def test_ctrl_c_leaves_everything_resumable(whole: tuple[Path, Path], tmp_path: Path) -> None:
    folder, undisturbed = whole
    results = tmp_path / "results"
    # One worker: on a busy machine, two may have finished everything before the signal is sent.
    process = start(folder, results, "--executor", "processes", "--workers", "1")
    wait_for_checkpoint(results, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert b"Traceback" not in err
    code, output = finish(folder, results)
    assert code == 0, output
    assert students(results) == students(undisturbed)


@pytest.mark.slow
def test_a_segfault_takes_only_its_own_trial_down(tmp_path: Path) -> None:
    (tmp_path / "segfault.py").write_text(SEGFAULT, encoding="utf-8")
    study = STUDY.replace("- dafl: {batch: 64, width: 16}", "- ./segfault.py\n  - noise: {batch: 32}")
    (tmp_path / "study.yaml").write_text(study, encoding="utf-8")
    code, output = finish(tmp_path, tmp_path / "results", "--executor", "processes", "--workers", "2")
    assert code == 1
    records = {record.trial.method: record for record in load_records(tmp_path / "results")}
    assert records["segfault"].status == "crashed"
    assert "SIGSEGV" in records["segfault"].reason
    assert {name: record.status for name, record in records.items() if name != "segfault"} == {
        "noise": "ok",
        "zskd": "ok",
    }
    assert "segfault" in output
    log = tmp_path / "results" / "trials" / records["segfault"].id
    assert json.loads((log / "record.json").read_text(encoding="utf-8"))["scores"] == {}
