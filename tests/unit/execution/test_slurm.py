"""On a real Slurm: array, cancel, requeue, preemption and a killed node end in the records of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_site import Site, slurm, wait_for, why_no_slurm
from test_stopping_studies import content, study

from bench.execution.run_study import run_study
from bench.execution.slurm_queue import queue_words, tasks_of
from bench.records import load_records

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_no_slurm()), reason=why_no_slurm())]
STEPS, SECONDS = 250, 0.1  # long enough to be met on the way, on a busy machine too
PATIENCE = 600.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, list[object]]]:
    """The study without any disturbance, on `inline`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_study(study(folder, STEPS, SECONDS), results=folder / "results", executor="inline", isolation="none")
    return content(folder / "results")


def start(folder: Path, options: str = "parts=2") -> subprocess.Popen[str]:
    study(folder, STEPS, SECONDS)
    command = [sys.executable, "-m", "bench.cli", "run", "study.yaml", "--results", "results", "--quiet"]
    command += ["--executor", f"slurm:{options},poll=1s", "--isolation", "none", "--checkpoint-seconds", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_until_saved(folder: Path, process: subprocess.Popen[str], task: str = "*") -> None:
    """Until a trial of a task has a checkpoint."""
    place = f"results/work/slurm-*/tasks/{task}-*/results/work/*/checkpoint.pt"
    wait_for(lambda: any(folder.glob(place)) or process.poll() is not None, PATIENCE)
    assert process.poll() is None


def job_of(folder: Path) -> str:
    (file,) = folder.glob("results/work/slurm-*/job.txt")
    return file.read_text()


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    return said


def attempts(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.glob("results/work/slurm-*/tasks/*"))


def test_an_array_runs_the_study(site: Site, whole: dict[str, object], tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_until_saved(tmp_path, process)
    assert queue_words(tmp_path / "results")[0].startswith("Slurm job ")
    finish(process)
    assert content(tmp_path / "results") == whole
    assert not list((tmp_path / "results" / "work").iterdir())


@pytest.mark.parametrize("way", ["signal", "killed driver"])
def test_a_driver_that_is_stopped_or_killed_loses_nothing(
    site: Site, whole: dict[str, object], tmp_path: Path, way: str
) -> None:
    process = start(tmp_path)
    wait_until_saved(tmp_path, process)
    job = job_of(tmp_path)
    if way == "signal":
        process.send_signal(signal.SIGTERM)
        assert "what was running is saved" in finish(process, 75)
        assert list(tmp_path.glob("results/work/*/checkpoint.pt"))
        assert not tasks_of(job)
    else:
        process.kill()
        process.communicate()
        assert tasks_of(job)  # it goes on
    finish(start(tmp_path))
    assert content(tmp_path / "results") == whole
    assert (sum(record.resumed for record in load_records(tmp_path / "results")) > 0) is (way == "signal")


@pytest.mark.parametrize("way", ["preemption", "USR1", "dead node"])
def test_a_task_that_is_interrupted_goes_on_with_the_same_bits(
    site: Site, whole: dict[str, object], tmp_path: Path, way: str
) -> None:
    process = start(tmp_path)
    wait_until_saved(tmp_path, process, "1")
    job = job_of(tmp_path)
    if way == "USR1":
        site.tell("scancel", "--signal=USR1", "--batch", f"{job}_1")
    elif way == "preemption":
        site.tell("sbatch", "--partition=urgent", "--nodes=3", "--exclusive", "--wrap=sleep 3", "--output=/dev/null")
    else:
        site.kill_node(site.tell("squeue", "-h", "-r", "-j", f"{job}_1", "-o", "%N").strip())
    wait_for(lambda: any(name.endswith("-1") for name in attempts(tmp_path)) or process.poll() is not None, PATIENCE)
    # After a requeue that Slurm refused, the driver submits the rest as a new job: what counts comes below.
    assert way == "USR1" or process.poll() is None
    finish(process)
    assert content(tmp_path / "results") == whole
    assert sum(record.resumed for record in load_records(tmp_path / "results")) >= 1
