"""``dfkd run`` in slices of time, stopped by signals as scripts and schedulers send them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.records import load_records

ROOT = Path(__file__).parents[2]
STUDY = """
name: slices
tasks: [digits/lenet5-half]
methods:
  - noise: {batch: 16}
seeds: [0, 1]
budget: {steps: 1500}
points: 2
"""


def command(folder: Path, results: Path, *more: str) -> list[str]:
    study = [str(folder / "study.yaml"), "--results", str(results), "--quiet"]
    return [sys.executable, "-m", "bench.cli", "run", *study, *more]


def start(arguments: list[str], **more: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **more,
    )


def finish(arguments: list[str]) -> tuple[int, str]:
    process = start(arguments)
    out, err = process.communicate(timeout=900)
    return process.returncode, (out + err).decode()


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def running(results: Path) -> bool:
    return any(b'"running"' in file.read_bytes() for file in results.glob("work/*/progress.json"))


def students(results: Path) -> dict[str, bytes]:
    return {
        record.id: (results / "trials" / record.id / "student.safetensors").read_bytes()
        for record in load_records(results)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, dict[str, bytes]]:
    del cache
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    code, output = finish(command(folder, folder / "whole", "--executor", "inline"))
    assert code == 0, output
    return folder, students(folder / "whole")


@pytest.mark.slow
def test_slices_of_time_end_with_75_and_give_the_same_bits(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    folder, bits = whole
    codes: list[int] = []
    while not codes or codes[-1] == 75:
        code, output = finish(command(folder, tmp_path / "results", "--stop-after", f"{5 * (len(codes) + 1)}s"))
        codes.append(code)
        assert code != 75 or "stopped (its time is over)" in output
    assert codes[-1] == 0, output
    assert len(codes) > 1
    assert students(tmp_path / "results") == bits


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", "processes"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_a_background_job_of_a_script(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path, executor: str, number: signal.Signals
) -> None:
    """A shell without job control starts such jobs with SIGINT ignored."""
    folder, bits = whole
    results = tmp_path / "results"
    call = command(folder, results, "--executor", executor, "--workers", "1", "--checkpoint-seconds", "0")
    script = start(["sh", "-c", '"$@" & echo $! > "$0"; wait $!; exit $?', str(tmp_path / "pid"), *call])
    wait_for(lambda: running(results) or any(results.glob("work/*/checkpoint.pt")) or script.poll() is not None)
    os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), number)
    out, err = script.communicate(timeout=300)
    assert script.returncode == 75, out + err
    assert b"Traceback" not in err
    code, output = finish(command(folder, results))
    assert code == 0, output
    assert students(results) == bits


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_signal_to_all_processes_of_a_job(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path, executor: str
) -> None:
    """As a scheduler or a service manager sends it: to every process, children and theirs."""
    folder, bits = whole
    results = tmp_path / "results"
    process = start(command(folder, results, "--executor", executor, "--workers", "1", "--checkpoint-seconds", "0"))
    wait_for(lambda: running(results) or any(results.glob("work/*/checkpoint.pt")) or process.poll() is not None)
    mother = psutil.Process(process.pid)
    for each in [*mother.children(recursive=True), mother]:
        each.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, out + err
    assert not list(results.glob("trials/*"))
    code, output = finish(command(folder, results))
    assert code == 0, output
    assert students(results) == bits


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--stop-after", "soon", "9m, 90s or 1h30m"), ("--stop-at", "25:00", "14:30"), ("--stop-after", "0m", "9m")],
)
def test_what_is_no_time_is_refused_before_anything_runs(tmp_path: Path, option: str, value: str, said: str) -> None:
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    code, output = finish(command(tmp_path, tmp_path / "results", option, value))
    assert code == 2
    assert said in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()
