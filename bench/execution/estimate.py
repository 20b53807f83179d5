"""How long a study will take here: each of its cells is tried for a few seconds, and its budget is multiplied out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.execution.executors import Work
from bench.execution.run_study import Audience, Silence, locked, refusals, run_trials
from bench.records import Record, load_record, open_results, read_curve
from bench.spec.budget import UNITS
from bench.spec.trial import Trial

NEVER = 1e9  # seconds between checkpoints
POINTS = 10  # evaluations of a try


@dataclass(frozen=True)
class Estimate:
    """What a trial is expected to take; ``seconds`` is None where a try said nothing, and ``why`` says why."""

    trial: Trial
    seconds: float | None
    why: str = ""


def estimate(
    trials: Sequence[Trial],
    seconds: float,
    *,
    data_folder: Path | None = None,
    allow_altered: bool = False,
    gpu: int | None = None,
    audience: Audience | None = None,
) -> list[Estimate]:
    """Try trials in this process, one after the other, for some seconds each, and multiply.

    What a try spends of a budget's unit in a second is taken to stay the same, but for its first tenth, in which memory
    and kernels are prepared. Of a method with two phases the try spends as much time in each as the whole trial does.
    Evaluations are added, as long as the try's each. On a CPU what other programs took of the processor in the meantime
    is left out: the times are those of a machine that does nothing else. Missing teachers are trained first.

    Args:
        trials: one of each cell; seeds take as long.
        seconds: of each try, inside the method.
        data_folder: where to look for data sets first.
        allow_altered: use data files that are well-formed but not the official ones.
        gpu: its number, where the trials are for one.
        audience: called with the progress.

    Raises:
        UserError: a try that is not above 0 seconds, or what ``run_study`` complains about.
    """
    if not seconds > 0:
        raise UserError(f"a try takes more than 0 seconds, not {seconds:g}")
    tries = [replace(trial, budget={"seconds": float(seconds)}, points=POINTS, image_metrics=()) for trial in trials]
    found = []
    with tempfile.TemporaryDirectory(prefix="dfkd-try-") as folder:
        results = open_results(Path(folder), create=True)
        with locked(results):
            work = Work(results, data_folder, NEVER, 1, gpu, None, "none")
            refused = refusals(tries, data_folder, allow_altered)
            for trial, each in zip(trials, tries, strict=True):
                wall, busy = time.perf_counter(), time.process_time()
                run_trials([each], refused, work, "inline", audience or Silence())
                share = (time.process_time() - busy) / (time.perf_counter() - wall) / trial.threads
                share = min(1.0, share) if trial.device == "cpu" else 1.0
                place = results / "trials" / each.id
                found.append(_estimate(trial, load_record(place), read_curve(place), share))
    return found


def _estimate(trial: Trial, record: Record, curve: Sequence[Mapping[str, Any]], share: float) -> Estimate:
    """``share``: of a processor that the try had."""
    if record.status != "ok":
        return Estimate(trial, None, record.reason or record.status)
    limits = trial.limits.for_blind_method() if record.method.access == "none" else trial.limits
    end = record.meter
    start = next((point for point in curve if 0 < point["seconds"] < 0.5 * end.seconds), dict.fromkeys(UNITS, 0))
    spent = {unit: getattr(end, unit) - start[unit] for unit in UNITS}
    needed = [spent["seconds"] * limit / spent[unit] for unit, limit in limits.limits().items() if spent[unit] > 0]
    if not needed:
        return Estimate(trial, None, "the try spent nothing of the budget's unit")
    return Estimate(trial, share * (min(needed) + trial.points * end.evaluation_seconds / max(1, len(curve))))
