"""The same trials on a CUDA device. These run where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data import load
from bench.execution.run_trial import Setting, run_trial
from bench.execution.status import Interrupted
from bench.harness.teachers.cache import train_teacher
from bench.harness.teachers.passport import read_passport
from bench.records import Record, open_results
from bench.spec.method_registry import find_methods
from bench.spec.study import SUITE
from bench.spec.task import TeacherSpec, get_task
from bench.spec.teacher_key import teacher_key
from bench.spec.trial import Trial

pytestmark = pytest.mark.gpu


def trial_of(method: str, name: str = "digits/lenet5bn-half", **changes: Any) -> Trial:
    task, card = get_task(name), find_methods()[method]  # the digits' with batch norm, since some methods need it
    values: dict[str, Any] = {
        "suite": SUITE,
        "task": task.name,
        "task_sha": task.sha,
        "teacher": teacher_key(task),
        "method": method,
        "method_sha": card.sha,
        "options": {**card.defaults(), **card.quick},
        "budget": {"steps": 40},
        "seed": 0,
        "device": "cuda",
        "points": 4,
        "pool": "photos" if card.pool else "",
    }
    return Trial(**{**values, **changes})


def run(folder: Path, trial: Trial) -> Record:
    return run_trial(trial, Setting(open_results(folder, create=True)))


@pytest.fixture(scope="module")
def own_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache without teachers: one from elsewhere is trained once more for its anchors, and may get other weights."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("method", sorted(find_methods()))
def test_every_method_runs_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_teacher: Path, method: str, precision: str
) -> None:
    if find_methods()[method].anchors:
        monkeypatch.setenv("DFKD_CACHE", str(own_teacher))
    record = run(tmp_path, trial_of(method, precision=precision))
    assert record.status == "ok", record.reason
    assert record.meter.steps == 40
    assert record.meter.peak_memory_mib is not None
    assert 0 < record.meter.peak_memory_mib < 4096
    assert "cpu" not in record.provenance["device"].lower()


@pytest.mark.parametrize("method", sorted(name for name, card in find_methods().items() if card.segmentation))
def test_segmentation_runs_on_the_gpu(tmp_path: Path, method: str) -> None:
    record = run(tmp_path, trial_of(method, "shapes/unet-small", budget={"steps": 8}))
    assert record.status == "ok", record.reason
    assert record.meter.steps == 8


@pytest.mark.parametrize("method", ["cmi", "dafl", "dfad", "kd", "ssd_kd", "zskt"])
def test_a_trial_repeats_bit_for_bit_on_one_gpu(tmp_path: Path, method: str) -> None:
    runs = [run(tmp_path / str(number), trial_of(method)) for number in range(2)]
    files = [
        tmp_path / str(number) / "trials" / record.id / "student.safetensors" for number, record in enumerate(runs)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert runs[0].scores == runs[1].scores


def test_a_teacher_trains_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path))
    task, digits = get_task("digits/lenet5-half"), load("digits", size=32)
    spec = TeacherSpec(network="lenet5", recipe="digits")
    passport = read_passport(train_teacher(task, spec, digits, device=torch.device("cuda")))
    assert passport["score"] > 0.95
    assert passport["provenance"]["device"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("method", ["dafl", "zskd"])
def test_counts_are_those_of_the_cpu(tmp_path: Path, method: str) -> None:
    on_gpu = run(tmp_path / "gpu", trial_of(method)).meter.model_dump()
    on_cpu = run(tmp_path / "cpu", trial_of(method, device="cpu")).meter.model_dump()
    timed = {"seconds", "evaluation_seconds", "peak_memory_mib"}
    assert {k: v for k, v in on_gpu.items() if k not in timed} == {k: v for k, v in on_cpu.items() if k not in timed}


def test_a_budget_in_seconds_waits_for_the_device(tmp_path: Path) -> None:
    record = run(tmp_path, trial_of("dafl", budget={"seconds": 1.0}))
    assert record.status == "ok", record.reason
    assert 1.0 <= record.meter.seconds < 1.5


def test_an_interrupted_trial_goes_on(tmp_path: Path) -> None:
    results = open_results(tmp_path, create=True)
    trial = trial_of("dafl")
    left = [10]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    with pytest.raises(Interrupted):
        run_trial(trial, Setting(results, stop=stop))
    record = run_trial(trial, Setting(results))
    assert record.status == "ok", record.reason
    assert record.resumed == 1
    assert record.meter.steps == 40
