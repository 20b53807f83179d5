"""Which trials share a GPU: by what finished ones needed, or an estimate. No GPU is wanted here."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.execution import gpu_memory
from bench.execution.executors import Work, processes
from bench.execution.gpu_memory import CONTEXT_MIB, ROOM, GpuPlaces, MemoryNeeds, batch_of, estimated_mib, places_for
from bench.execution.plan import plan_study
from bench.execution.run_study import Silence
from bench.records import Record
from bench.spec.trial import Trial
from bench.utils import hardware

STUDY = """
name: shared
tasks: [{task}]
methods: [{{noise: {{batch: {batch}}}}}, kd]
seeds: [0, 1, 2, 3, 4, 5]
budget: {{steps: 1}}
"""


def trials_on(folder: Path, task: str = "digits/lenet5-half", batch: int = 32, device: str = "cuda") -> list[Trial]:
    file = folder / "study.yaml"
    file.write_text(STUDY.format(task=task, batch=batch), encoding="utf-8")
    plan = plan_study(file, results=folder / "results", device="cpu")
    return [dataclasses.replace(trial, device=device) for trial in plan.trials]


def ended_with(status: str, trial: Trial | None = None, peak: float | None = None) -> Any:
    """As much of a record as is looked at."""
    return types.SimpleNamespace(status=status, trial=trial, meter=types.SimpleNamespace(peak_memory_mib=peak))


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    return [trial for trial in trials_on(tmp_path) if trial.method == "noise"]


def knowing(trial: Trial, peak: float) -> MemoryNeeds:
    needs = MemoryNeeds()
    needs.add(trial.label, ended_with("ok", trial, peak))
    return needs


def test_finished_trials_tell_what_others_need(tmp_path: Path) -> None:
    every = trials_on(tmp_path)
    noise, other = every[0], next(trial for trial in every if trial.method == "kd")
    needs = knowing(noise, 500.0)
    assert needs.of(noise) == CONTEXT_MIB + ROOM * 500.0
    needs.add(noise.label, ended_with("ok", noise, 700.0))
    needs.add(noise.label, ended_with("ok", noise, 600.0))
    assert needs.of(every[1]) == CONTEXT_MIB + ROOM * 700.0  # the most counts, of any seed
    named = dataclasses.replace(noise, label="noise (batch 512)")
    assert needs.of(named) == CONTEXT_MIB + ROOM * 700.0  # the same method on the same task
    assert needs.of(other) == CONTEXT_MIB + estimated_mib(other)
    needs.add(other.label, ended_with("out_of_memory", other, 9e9))
    needs.add(other.label, ended_with("ok", dataclasses.replace(other, device="cpu"), 9e9))  # the process, and no GPU
    needs.add(other.label, ended_with("ok", other, None))
    assert needs.of(other) == CONTEXT_MIB + estimated_mib(other)


def test_an_estimate_grows_with_batch_network_and_real_images(tmp_path: Path) -> None:
    small, large = trials_on(tmp_path)[0], trials_on(tmp_path, batch=512)[0]
    wide = trials_on(tmp_path, "cifar10/resnet18")[0]
    assert 0 < estimated_mib(small) < estimated_mib(large)
    assert estimated_mib(wide) > 20 * estimated_mib(small)
    # ResNet-34 has 21.3 million weights, ResNet-18 11.2: four bytes each, twice and four times, three times as safe
    assert estimated_mib(wide) > 3 * 4 * (2 * 21.2e6 + 4 * 11.1e6) / 2**20
    noise, *_, kd = trials_on(tmp_path)
    assert estimated_mib(kd) > estimated_mib(noise)
    assert batch_of({"batch": 32, "batch_norm": True, "memory_batch": 64, "lr": 0.1}) == 64
    assert batch_of({"lr": 0.1}) == 256


def test_trials_whose_networks_cannot_be_tried_share_no_gpu(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, task: str) -> None:
        raise RuntimeError(f"{name} of {task} does not fit")

    monkeypatch.setattr(gpu_memory, "_network_size", broken)
    gpus = GpuPlaces({0: 1e6}, MemoryNeeds())
    gpus.enter(trials[0], 0)
    assert gpus.find(trials[1]) is None


def test_as_many_trials_share_a_gpu_as_fit(trials: list[Trial]) -> None:
    each = CONTEXT_MIB + ROOM * 1000.0
    gpus = GpuPlaces({0: 2.5 * each, 1: 1.5 * each}, knowing(trials[0], 1000.0))
    given = []
    for trial in trials:
        if (number := gpus.find(trial)) is not None:
            gpus.enter(trial, number)
        given.append(number)
    assert given == [0, 1, 0, None, None, None]
    assert not gpus.leave(trials[1], ended_with("ok", trials[1], 1000.0))
    assert gpus.find(trials[3]) == 1


def test_one_that_seems_too_large_has_a_gpu_of_its_own(trials: list[Trial]) -> None:
    gpus = GpuPlaces({0: 0.0}, knowing(trials[0], 1e6))
    assert gpus.find(trials[0]) == 0
    gpus.enter(trials[0], 0)
    assert gpus.find(trials[1]) is None


def test_a_trial_without_memory_beside_others_runs_again_alone_and_once(trials: list[Trial]) -> None:
    first, second, third = trials[:3]
    gpus = GpuPlaces({0: 1e6}, knowing(first, 10.0))
    for trial in (first, second):
        gpus.enter(trial, 0)
    assert gpus.leave(first, ended_with("out_of_memory", first))
    assert gpus.find(first) is None  # second is there
    assert gpus.find(third) == 0
    assert not gpus.leave(second, ended_with("ok", second, 10.0))
    gpus.enter(first, 0)
    assert gpus.find(third) is None  # beside nobody
    assert not gpus.leave(first, ended_with("out_of_memory", first))
    gpus.enter(third, 0)
    assert not gpus.leave(third, ended_with("out_of_memory", third))  # it was alone


def test_a_run_tries_again_alone_and_tells_of_the_last_record_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[Trial]
) -> None:
    """Without any GPU: two are said to be there, and no process is started."""
    running: list[str] = []
    began: list[tuple[str, int, int]] = []
    told: list[tuple[str, str]] = []

    class Ended:
        returncode, pid = 0, 1

        def __init__(self, words: Sequence[str], **more: object) -> None:
            del more
            self.trial = Path(words[-2]).name
            order = json.loads((Path(words[-2]) / "order.json").read_text(encoding="utf-8"))
            running.append(self.trial)
            began.append((self.trial, order["gpu"], len(running)))

        def poll(self) -> int | None:
            return None if self.trial in running else 0

    class Tells(Silence):
        def ended(self, trial: Trial, record: Record) -> None:
            told.append((trial.id, record.status))

    first = trials[0].id

    def collect(job: Any, work: Work) -> Any:
        again = [name for name, _, _ in began].count(job.trial.id) > 1
        return ended_with("out_of_memory" if job.trial.id == first and not again else "ok", job.trial, 10.0)

    monkeypatch.setattr(hardware, "free_gpu_mib", lambda: {0: 1e6, 1: 1e6})
    monkeypatch.setattr(processes.subprocess, "Popen", Ended)
    monkeypatch.setattr(processes, "_collect", collect)
    monkeypatch.setattr(processes, "_rest", lambda jobs: running.pop(0))
    work = Work(tmp_path / "results", None, 60.0, 3, None, None, "none", needs=knowing(trials[0], 10.0))
    processes.run(trials, work, Tells())
    assert [name for name, _, _ in began] == [*(trial.id for trial in trials), first]
    assert sorted(told) == sorted((trial.id, "ok") for trial in trials)
    assert max(count for _, _, count in began) == 3  # no more than the workers


def test_devices_are_those_of_the_run(trials: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = knowing(trials[0], 10.0)
    assert places_for(trials_on(tmp_path, device="cpu"), None, needs) is None
    monkeypatch.setattr(hardware, "free_gpu_mib", dict)
    assert places_for(trials, None, needs) is None
    monkeypatch.setattr(hardware, "free_gpu_mib", lambda: {0: 1e6, 1: 1e6})
    one, every = places_for(trials, 1, needs), places_for(trials, None, needs)
    assert one is not None
    assert every is not None
    assert (one.find(trials[0]), every.find(trials[0])) == (1, 0)


@pytest.mark.parametrize(
    ("code", "said", "free"),
    [(0, "[2097152, 4194304]", {0: 2.0, 1: 4.0}), (0, "[2097152]", {0: 2.0, 1: 0.0}), (1, "", {0: 0.0, 1: 0.0})],
)
def test_a_process_of_its_own_asks_what_is_free(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str, free: dict[int, float]
) -> None:
    monkeypatch.setattr(hardware, "gpu_count", lambda: 2)
    done = types.SimpleNamespace(returncode=code, stdout=said)
    monkeypatch.setattr(hardware.subprocess, "run", lambda words, **more: done)
    assert hardware.free_gpu_mib() == free


def test_without_a_gpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_count", lambda: 0)
    monkeypatch.setattr(hardware.subprocess, "run", None)
    assert hardware.free_gpu_mib() == {}
