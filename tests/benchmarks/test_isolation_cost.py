"""What a process of its own costs a trial: the same whole trials in both modes, in turn.

``pytest tests/benchmarks/test_isolation_cost.py --benchmark-enable`` prints rows of docs/performance.md's table.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.execution.run_trial import Setting, run_trial
from bench.records import Record, open_results
from bench.spec.method_registry import find_methods
from bench.spec.study import SUITE
from bench.spec.task import add_tasks, get_task, read_tasks
from bench.spec.teacher_key import teacher_key
from bench.spec.trial import Trial
from bench.utils.confinement import Way, available, why_not

LENET = "digits/lenet5-half"
WRN = "digits/wrn40-2"
TASKS = f"""
- name: {WRN}
  data: digits
  image: {{channels: 1, size: 32, mean: [0.3051], std: [0.3238]}}
  teacher: {{network: wrn40-2, recipe: quick}}
  student: wrn16-1
"""
# method, task, options, steps when measured
CASES: list[tuple[str, str, dict[str, Any], int]] = [
    ("noise", LENET, {"batch": 32}, 500),
    ("dafl", LENET, {"batch": 32, "width": 16}, 300),
    ("noise", LENET, {"batch": 512}, 100),
    ("noise", WRN, {"batch": 32}, 10),
    ("dafl", WRN, {"batch": 32, "width": 16}, 10),
]


def _trial(method: str, task_name: str, options: dict[str, Any], steps: int) -> Trial:
    card, task = find_methods()[method], get_task(task_name)
    resolved = {**card.defaults(), **options}
    return Trial(
        suite=SUITE,
        task=task_name,
        task_sha=task.sha,
        own_task=None if task_name == LENET else task.model_dump(mode="json"),
        teacher=teacher_key(task),
        method=method,
        method_sha=card.sha,
        options=resolved,
        budget={"steps": steps},
        seed=0,
        points=2,
        selection=("last",),
    )


def _timed(trial: Trial, folder: Path, way: Way | None) -> tuple[Record, float, float]:
    """Its record, seconds, and seconds of processor time of both processes."""
    wall, processor = time.perf_counter(), time.process_time()
    record = run_trial(trial, Setting(open_results(folder, create=True), isolation=way))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return record, wall, processor + record.provenance["isolation"].get("method_cpu_seconds", 0.0)


@pytest.mark.skipif(available() is None, reason=why_not())
@pytest.mark.parametrize(("method", "task", "options", "steps"), CASES)
def test_whole_trials_in_both_modes(
    benchmark: Any, tmp_path: Path, method: str, task: str, options: dict[str, Any], steps: int
) -> None:
    if task == WRN and not benchmark.enabled:
        pytest.skip("measured with --benchmark-enable only: its teacher takes minutes")
    if task == WRN:
        (tmp_path / "tasks.yaml").write_text(TASKS, encoding="utf-8")
        add_tasks(read_tasks(tmp_path / "tasks.yaml"))
    trial = _trial(method, task, options, steps if benchmark.enabled else 4)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    ratios: dict[str, list[float]] = {"seconds": [], "processor": []}
    seconds: list[float] = []
    folders = iter(range(10**6))

    def pair() -> None:
        here, there = (_timed(trial, tmp_path / str(next(folders)), way) for way in (None, available()))
        assert here[0].status == there[0].status == "ok", there[0].reason
        assert here[0].scores == there[0].scores
        ratios["seconds"].append(there[1] / here[1])
        ratios["processor"].append(there[2] / here[2])
        seconds.append(here[1])

    try:
        benchmark.pedantic(pair, rounds=3 if benchmark.enabled else 1, warmup_rounds=1)
    finally:
        torch.set_num_threads(before)
    middle = {name: statistics.median(values[1:] or values) for name, values in ratios.items()}
    benchmark.extra_info.update(
        isolated=True, method=method, task=task, batch=options["batch"], steps=trial.budget["steps"], **middle
    )
    benchmark.extra_info["here"] = statistics.median(seconds)
