"""The processor time of a method's steps, harness included, beside that of a fixed calibration in turn with them.

Run as a program, by the path of this file: the code that is timed is that of the checkout in PYTHONPATH, whatever that
has for timing itself. It takes what of the suite it cannot do without, and prints one JSON object a round::

    python -P step_speed.py '{"study": "study.yaml", "rounds": 8, "steps": 40, "data": null, "methods": []}'
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.execution.plan import plan_study
from bench.execution.run_trial import Setting, run_trial
from bench.records import open_results
from bench.spec.trial import Trial

WARM = 4  # first steps, which are left out: memory is asked for, and stores are empty
BLOCK = 0.03  # seconds of steps between two calibrations


def main() -> None:
    asked = json.loads(sys.argv[1])
    data = Path(asked["data"]) if asked["data"] else None
    with tempfile.TemporaryDirectory(prefix="dfkd-speed-") as scratch:
        plan = plan_study(
            Path(asked["study"]),
            results=Path(scratch),
            device="cpu",
            method_files=[Path(file) for file in asked["methods"]],
            data_folder=data,
        )
        open_results(Path(scratch), create=True)
        for times in rounds(plan.trials, asked["rounds"], asked["steps"], Path(scratch), data):
            print(json.dumps(times), flush=True)


def rounds(
    trials: Sequence[Trial], count: int, steps: int, results: Path, data: Path | None
) -> Iterator[dict[str, Any]]:
    """Time one trial of each cell, in turn, ``count`` times; each round is what :func:`timed` has of each cell.

    Args:
        trials: of a study; the first seed of each cell is timed.
        count: rounds.
        steps: of each trial, more than ``WARM``.
        results: a results folder for what is not kept.
        data: where to look for data sets first.
    """
    cells: dict[str, Trial] = {}
    for trial in trials:
        short = dataclasses.replace(
            trial, budget={"steps": steps}, points=1, selection=("last",), image_metrics=(), timeout=None
        )
        cells.setdefault(f"{trial.task}: {trial.label}", short)
    for number in range(count):
        found = {}
        for name, trial in cells.items():
            again = dataclasses.replace(trial, seed=trial.seed + number)  # a trial that has a record is another one
            found[name] = timed(again, results, data)
        yield found


def timed(trial: Trial, results: Path, data: Path | None) -> Mapping[str, Any]:
    """``seconds`` of processor time of a step and of a ``calibration``, means over the trial; or a ``reason`` why
    there is none."""
    clock = StepClock()
    record = run_trial(trial, Setting(results, data_folder=data, checkpoint_seconds=1e9, inspect=clock.watch))
    if record.status != "ok" or not clock.calibrations:
        return {"reason": record.reason or "too few steps"}
    loops = sum(clock.calibrations) / len(clock.calibrations)
    return {"seconds": sum(clock.times) / len(clock.times), "calibration": loops, "steps": len(clock.times)}


class StepClock:
    """Watches the steps of a trial. The calibrations are between steps, and in no step's time."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.calibrations: list[float] = []
        self._begun: float | None = None
        self._block = 0.0
        self._seen = 0

    def watch(self, context: Any) -> None:
        """Put the clock in front of what the harness does after a step."""
        before: Callable[[], None] = context.hooks.after_step

        def after_step() -> None:
            now = time.process_time()
            self._seen += 1
            if self._begun is not None and self._seen > WARM:
                self.times.append(now - self._begun)
                self._block += now - self._begun
                if self._block > BLOCK or not self.calibrations:
                    self.calibrations.append(calibration())
                    self._block = 0.0
            self._begun = time.process_time()  # what the harness does now is a part of the next step
            before()

        context.hooks.after_step = after_step


def calibration() -> float:
    """The processor time of a fixed loop, some milliseconds of arithmetic on one thread. Never change it: commits are
    compared through it."""
    values = _VALUES
    begun = time.process_time()
    total = values
    for _ in range(2):
        total = np.tanh(np.einsum("ij,jk->ik", total, values, optimize=False) / 14)
    assert np.isfinite(total).all()
    return time.process_time() - begun


_VALUES = np.random.default_rng(0).standard_normal((144, 144), dtype=np.float32)

if __name__ == "__main__":
    main()
