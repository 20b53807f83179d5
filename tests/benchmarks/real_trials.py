"""A study of many short trials that are really run: ``python real_trials.py TRIALS FOLDER EXECUTOR [EXECUTOR ...]``.

Each executor (``processes``, ``ray``, with options as on the command line) runs the same study in its own results
folder under FOLDER; the same call goes on with what is there. While it runs, the processor time and the memory of the
driver and of its lasting helper processes (the one that workers are forked from, the one connected to Ray) are read
once for each hundredth of the study. Printed for each tenth is what a trial cost the driver, and the exponent of its
growth over the number of trials: 1 is linear. Then the folder is opened again, archived and reported, and the records
of all executors are compared.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

METHOD = '''
import torch
from bench import Access, Data, Session, method

@method("brief", title="Brief", paper="none", data=Data.NONE, access=Access.LOGITS)
def brief(s: Session) -> None:
    """Steps of a millisecond."""
    opt = s.keep("opt", torch.optim.SGD(s.student.parameters(), 0.1, momentum=0.9))
    for _ in s.steps("train"):
        s.distill(opt, s.noise(4, *s.task.image.shape))
'''
STUDY = """
name: real_trials
tasks: [digits/lenet5-half]
methods: [./brief.py]
seeds: {seeds}
budget: {{steps: 5}}
points: 1
selection: [last]
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def main() -> None:
    count, folder, executors = int(sys.argv[1]), Path(sys.argv[2]).resolve(), sys.argv[3:]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "brief.py").write_text(METHOD, encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY.format(seeds=list(range(count))), encoding="utf-8")
    for executor in executors:
        name = executor.partition(":")[0]
        report(executor, samples_of(folder, name, executor, count))
        afterwards(folder, name)
    if len(executors) > 1:
        compare(folder, [executor.partition(":")[0] for executor in executors])


def samples_of(folder: Path, results: str, executor: str, count: int) -> list[dict[str, float]]:
    """What was read on the way: trials done, seconds, the driver's processor time and MiB, those of its helpers."""
    trials = folder / results / "trials"
    command = ["run", "study.yaml", "--results", results, "--executor", executor, "--quiet"]
    found: list[dict[str, float]] = []
    with (folder / f"{results}.log").open("w", encoding="utf-8") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "bench", *command], cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log
        )
        process, began, seen = psutil.Process(driver.pid), time.monotonic(), -1
        while driver.poll() is None:
            done = sum(1 for _ in trials.glob("[0-9a-f]*/record.json")) if trials.is_dir() else 0
            if done * 100 // count > seen:
                seen = done * 100 // count
                found.append({"done": done, "seconds": time.monotonic() - began, **costs(process)})
            time.sleep(1)
    if driver.returncode:
        sys.exit(f"the run ended with exit code {driver.returncode}; see {folder / results}.log")
    return found


def costs(driver: psutil.Process) -> dict[str, float]:
    """Of the driver, and of those of its children that live at this moment."""
    found = {"driver": 0.0, "driver MiB": 0.0, "helpers": 0.0, "helpers MiB": 0.0}
    for process in (driver, *driver.children()):
        try:
            with process.oneshot():
                used, held = process.cpu_times(), process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            continue
        name = "driver" if process == driver else "helpers"
        found[name] += used.user + used.system
        found[f"{name} MiB"] += held
    return found


def report(executor: str, found: Sequence[dict[str, float]]) -> None:
    print(f"\n{executor}: the driver by tenths of the study", flush=True)
    print("| trials | trials a second | driver, ms a trial | helpers, ms a trial | driver, MiB | helpers, MiB |")
    print("|--:|--:|--:|--:|--:|--:|")
    started = next(sample for sample in found if sample["done"])
    total, before, costs_of_a_trial = found[-1]["done"], started, []
    for sample in found:
        trials = sample["done"] - before["done"]
        if trials < total / 10.5 or sample["helpers"] < before["helpers"]:  # at the end they are gone
            continue
        each = [1000 * (sample[name] - before[name]) / trials for name in ("driver", "helpers")]
        costs_of_a_trial.append((sample["done"], each[0]))
        print(
            f"| {sample['done']:,.0f} | {trials / (sample['seconds'] - before['seconds']):.2f} | {each[0]:.1f} "
            f"| {each[1]:.1f} | {sample['driver MiB']:.0f} | {sample['helpers MiB']:.0f} |"
        )
        before = sample
    print(f"exponent of the driver's processor time: {1 + slope(costs_of_a_trial):.2f}", flush=True)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of log(y) over log(x), least squares."""
    xs, ys = ([math.log(max(value, 1e-9)) for value in column] for column in zip(*points, strict=True))
    middle, height = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((x - middle) ** 2 for x in xs)
    return sum((x - middle) * (y - height) for x, y in zip(xs, ys, strict=True)) / over if over else 0.0


def afterwards(folder: Path, results: str) -> None:
    """Open the finished study, look at it, archive and report it."""
    for words in (
        ["run", "study.yaml", "--results", results, "--quiet"],
        ["status", results],
        ["archive", results, f"{results}.parquet"],
        ["report", "--results", f"{results}.parquet", "--out", f"{results}-report"],
    ):
        began, log = time.monotonic(), folder / f"{results}-{words[0]}.log"
        with log.open("wb") as said:  # a pipe that nobody empties would stop it
            command = [sys.executable, "-m", "bench", *words]
            child = psutil.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=said, stderr=said)
        peak = 0.0
        while child.poll() is None:
            try:
                peak = max(peak, child.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.05)
        print(f"dfkd {words[0]}: {time.monotonic() - began:.1f} s, {peak:.0f} MiB", flush=True)
        if child.wait():
            sys.exit(f"dfkd {words[0]} failed; see {log}")


def compare(folder: Path, names: Sequence[str]) -> None:
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "support")]
    from three_nodes import compared

    for name in names[1:]:
        found: dict[str, Any] = compared(folder / names[0], folder / name)
        print(f"{name} against {names[0]}: {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
