"""How much other scores differ from seed to seed, beside the score at the end of the budget.

``python tests/support/score_spreads.py results/digits/records.parquet`` prints, for each archive that is named, the
ratio of standard deviations: its geometric mean over cells with an interval of two standard errors.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.records import load_records, read_curves

SCORES = {"ema": ("score_ema", 1), "last 2": ("score", 2), "last 3": ("score", 3), "last 5": ("score", 5)}
SEEDS = 3
LEAST = 0.002  # cells whose seeds differ by less are left out: the test images decide there


def ratios(place: Path) -> dict[str, list[float]]:
    """By score (the average's, means over the last evaluations) the logarithm of the ratio of each cell."""
    cells: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for record in load_records(place):
        if record.status == "ok":
            cells[record.trial.task, record.trial.method, str(record.trial.options)].append(record.id)
    curves = read_curves(place, [name for names in cells.values() for name in names])
    found: dict[str, list[float]] = defaultdict(list)
    for names in cells.values():
        if len(names) < SEEDS:
            continue
        own = [curves[name] for name in names]
        last = statistics.stdev(_mean(curve, "score", 1) for curve in own)
        others = {name: statistics.stdev(_mean(curve, *which) for curve in own) for name, which in SCORES.items()}
        if last > LEAST and min(others.values()) > 0:
            for name, spread in others.items():
                found[name].append(math.log(spread / last))
    return found


def _mean(curve: list[Mapping[str, Any]] | list[dict[str, Any]], key: str, count: int) -> float:
    return statistics.fmean([float(point[key]) for point in curve if point.get(key) is not None][-count:])


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        for name, values in ratios(Path(argument)).items():
            middle, half = statistics.fmean(values), 2 * statistics.stdev(values) / math.sqrt(len(values))
            low, high = math.exp(middle - half), math.exp(middle + half)
            print(f"| {argument} | {len(values)} | {name} | {math.exp(middle):.2f} ({low:.2f} to {high:.2f}) |")
