"""Each method's step beside its floor on one device, in wall time.

The rows are those of ``test_method_steps.py``, which measures processor time of one core. Here the device is waited for
before and after each measurement. Rows are written as they come: what was measured when the time is over stays.
``make gpu-check`` runs it; by hand, with ``PYTHONPATH=.:tests/support``:
``python tests/benchmarks/device_steps.py --device cuda --out steps.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from needed_passes import NEEDED
from stepping import Floor, Row, Stepping, real_images
from test_method_steps import ROUNDS, STEPS, TASKS, WITH_BATCH_NORM, Round, options_for, stores_filled

from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.models import build
from bench.spec.budget import Budget
from bench.spec.method import Data
from bench.spec.method_loader import load_method
from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_unsupported
from bench.spec.task import get_task

CASES = [(task, name, each) for task in TASKS for name, rounds in ROUNDS.items() for each in rounds]


def measure(task: str, name: str, measured: Round, device: torch.device, rounds: int, paper: bool = True) -> Row:
    """One row: the median step and floor of ``rounds``, in seconds of wall time."""
    card, spec = find_methods()[name], get_task(task)
    if why_unsupported(card, spec, card.defaults()):
        spec = get_task(WITH_BATCH_NORM[task])
    method = load_method(card)
    options = method.make_options(options_for(card, spec, measured, paper))
    torch.manual_seed(0)
    context = TrialContext(
        image=spec.image,
        teacher=build(spec.teacher.network, spec.image, 10).eval(),
        student=build(spec.student, spec.image, 10),
        budget=Budget(steps=STEPS),
        access=card.access,
        data=card.data,
        device=device,
        seed=0,
        real=real_images(spec.image.shape) if card.data is not Data.NONE else None,
        augment=spec.augment,
        fresh_teacher=lambda _: build(spec.teacher.network, spec.image, 10),
    )

    def run() -> None:
        with context:
            context.clock.start()
            method.run(session_for(spec.image, 10), options)

    needed = NEEDED[name](options)
    steps: list[float] = []
    floors: list[float] = []
    with Stepping(context, run) as trial:
        trial.advance()
        stores_filled(context.kept, trial.inputs, 10)
        trial.advance(measured.skip)
        trial.advance(len(measured.kinds))
        floor = Floor(trial, [each for kind in measured.kinds for each in needed[kind]])
        floor.play()
        for _ in range(rounds):
            floors.append(_timed(floor.play, device))
            steps.append(_timed(lambda: trial.advance(len(measured.kinds)), device))
    return Row.of(name, spec.name, options, measured.kinds, steps, floors)


def _timed(work: Any, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    before = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - before


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--seconds", type=float, default=120.0, help="no row is begun after this time")
    parser.add_argument("--rounds", type=int, default=5, help="of each row")
    parser.add_argument("--out", type=Path, required=True, help="a file of JSON lines, one per row")
    parser.add_argument("--quick", action="store_true", help="small batches, to try the code")
    asked = parser.parse_args(arguments)
    began, failed = time.perf_counter(), 0
    with asked.out.open("w", encoding="utf-8") as out:
        for place, (task, name, measured) in enumerate(CASES):
            if time.perf_counter() - began > asked.seconds:
                print(f"the time is over: {place} of {len(CASES)} rows are measured", flush=True)
                break
            try:
                row = measure(task, name, measured, torch.device(asked.device), asked.rounds, not asked.quick)
            except Exception as error:  # the other rows are worth having
                failed += 1
                line = {"method": name, "task": task, "error": f"{type(error).__name__}: {error}"[:500]}
                print(f"{name:<14} {task:<18} failed: {line['error'][:100]}", flush=True)
            else:
                line = row._asdict()
                milliseconds = f"step {1000 * row.step:9.2f} ms, floor {1000 * row.floor:9.2f} ms"
                print(f"{name:<14} {row.task:<18} {row.kinds:<26} {milliseconds}, ratio {row.ratio:.2f}", flush=True)
            out.write(json.dumps(line) + "\n")
            out.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
