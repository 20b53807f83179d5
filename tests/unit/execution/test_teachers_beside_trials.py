"""Workers train missing teachers at the same time, and a trial waits for its own teacher only."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from bench.errors import UserError
from bench.execution.executors import Work, processes, teacher_worker
from bench.execution.executors.fork_server import close_server
from bench.execution.plan import plan_study
from bench.execution.run_study import Silence, run_study
from bench.execution.teachers import WantedTeacher, missing_teachers, train_teacher
from bench.harness.teachers.passport import passports
from bench.harness.teachers.progress import TrainingProgress
from bench.records import Record
from bench.spec.trial import Trial
from bench.utils.paths import teacher_folder
from bench.utils.stopping import Stopped, ask

TASK = """
  - name: {name}
    data: digits
    image: {{channels: 1, size: 32, mean: [0.3], std: [0.25]}}
    teacher: {{network: lenet5, recipe: {recipe}, seed: 7}}
    student: lenet5-half"""
REST = """
methods: [noise: {batch: 4}]
seeds: [0]
budget: {steps: 2}
points: 1
selection: [last]
isolation: none
"""
SHORT, LONG = ("short", "quick"), ("long", "digits")  # 2 epochs and 40


class Watches(Silence):
    def __init__(self) -> None:
        self.said: list[str] = []

    def teacher(self, task: str, progress: TrainingProgress) -> None:
        self.said.append(f"{task} trained" if progress.done else f"{task} {progress.epoch:.0f}")

    def ended(self, trial: Trial, record: Record) -> None:
        self.said.append(f"{trial.task} {record.status}")


def study(folder: Path, *of: tuple[str, str]) -> Path:
    file = folder / "study.yaml"
    listed = "".join(TASK.format(name=name, recipe=recipe) for name, recipe in of)
    file.write_text(f"name: two\ntasks:{listed}{REST}", encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


def weights(wanted: WantedTeacher) -> str:
    return hashlib.sha256((teacher_folder() / wanted.key / "weights.safetensors").read_bytes()).hexdigest()


def test_tasks_that_share_a_teacher_train_it_once(tmp_path: Path) -> None:
    plan = plan_study(study(tmp_path, ("one", "quick"), ("two", "quick"), LONG), results=tmp_path / "out")
    assert [wanted.trial.task for wanted in missing_teachers(plan.trials)] == ["one", "long"]


@pytest.mark.parametrize("refused", ["mkdtemp", "mkdir", "order", "log"])
def test_a_disk_that_refuses_a_workers_folder_is_one_sentence_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """An executor's caller may be a script, which nobody but this sentence tells what to do."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def full(*words: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str([*words, scratch / "file"][0]))

    place, name = {
        "mkdtemp": (tempfile, "mkdtemp"),
        "mkdir": (teacher_worker.Path, "mkdir"),
        "order": (teacher_worker.Path, "write_text"),
        "log": (teacher_worker, "log_of"),
    }[refused]
    plan = plan_study(study(tmp_path, SHORT), results=tmp_path / "out")
    work = Work(tmp_path / "out", None, 60.0, 1, teachers=tuple(missing_teachers(plan.trials)))
    monkeypatch.setattr(place, name, full)
    with pytest.raises(UserError, match=r"the disk of .*scratch.* is full; free some space and run the same command"):
        processes.run(plan.trials, work, Silence())
    monkeypatch.undo()
    assert list(scratch.iterdir()) == []


def test_a_system_that_starts_no_more_processes_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    plan = plan_study(study(tmp_path, SHORT), results=tmp_path / "out")
    work = Work(tmp_path / "out", None, 60.0, 1, teachers=tuple(missing_teachers(plan.trials)))
    close_server()
    monkeypatch.setattr(processes.subprocess, "Popen", none)
    with pytest.raises(UserError, match=r"no worker could be started: Resource temporarily unavailable; choose fewer"):
        processes.run(plan.trials, work, Silence())


@pytest.mark.slow
def test_a_trial_runs_while_the_teacher_of_another_is_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops(Watches):
        def ended(self, trial: Trial, record: Record) -> None:
            super().ended(trial, record)
            ask("the test")

    watches, file = Stops(), study(tmp_path, LONG, SHORT)
    with pytest.raises(Stopped, match="the test") as stop:
        run_study(file, results=tmp_path / "out", workers=2, audience=watches)
    assert stop.value.late == 0
    assert watches.said[-1] == "short ok"
    assert "long 0" in watches.said, "both began"
    assert "short trained" in watches.said
    assert [passport["key"].partition("-")[0] for passport in passports()] == ["lenet5"], "only one is done"
    (kept,) = teacher_folder().glob(".*.work/checkpoint.pt")
    assert kept.stat().st_size, "the other is saved"

    plan = plan_study(file, results=tmp_path / "out")
    (wanted,) = missing_teachers(plan.trials)
    (short,) = [WantedTeacher(trial, trial.teacher) for trial in plan.trials if trial.task == "short"]
    beside = weights(short)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other"))
    train_teacher(short, None, "cpu", lambda progress: None)
    assert weights(short) == beside, "the same bits as in a process that does nothing else"
    assert wanted.trial.task == "long"


@pytest.mark.slow
def test_a_training_that_dies_is_told_and_nothing_of_it_stays(tmp_path: Path) -> None:
    class Kills(Watches):
        def teacher(self, task: str, progress: TrainingProgress) -> None:
            if not self.said:
                for server in psutil.Process().children():  # what forks the workers, which are its children
                    for worker in server.children():
                        worker.kill()
            super().teacher(task, progress)

    before = set(Path(tempfile.gettempdir()).glob("dfkd-teacher-*"))
    with pytest.raises(UserError, match="training the teacher of long: its process died of SIGKILL"):
        run_study(study(tmp_path, LONG), results=tmp_path / "out", workers=1, audience=Kills())
    assert set(Path(tempfile.gettempdir()).glob("dfkd-teacher-*")) <= before
    assert not list(passports())


def test_watching_trainings_imports_no_torch() -> None:
    code = "import sys, bench.execution.executors.processes, bench.execution.run_study; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
