"""How large a loss must be to be called: repeated simulations with the spreads of ``results/tracked``.

``python tests/support/simulate_power.py 4000`` prints the tables of docs/continuous-integration.md.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.analysis.regression.effects import Effect
from bench.analysis.regression.verdicts import EarlierSpread, decide, paired_number
from bench.spec.metric_names import METRICS

LEVELS = {"kd": 0.965, "dafl": 0.913, "dfad": 0.819, "noise": 0.504}
SPREADS = {"kd": 0.0043, "dafl": 0.0181, "dfad": 0.0682, "noise": 0.1049}  # over the five seeds of results/tracked
SEEDS = 5
EFFECT = Effect(0.01)
GRID = np.geomspace(1.5, 8, 40)  # losses, in spreads of the seeds


def called(
    losses: dict[str, float], times: int, earlier: int = 0, number: int = 0, noisier: float = 1.0, alpha: float = 0.01
) -> dict[str, float]:
    """The share of comparisons in which each method is called worse, and ``any``, those in which any is.

    All bits of the students are new at every commit, so that seeds are no pairs.

    Args:
        losses: by method, in the unit of the scores; 0 where it is not named.
        times: how many comparisons.
        earlier: how many commits with other bits were tracked before.
        number: of the random stream.
        noisier: how many times as much the seeds differ in head.
        alpha: of a comparison.
    """
    random = np.random.default_rng(number)
    found = dict.fromkeys([*SPREADS, "any"], 0)
    for _ in range(times):
        drafts = []
        for method, spread in SPREADS.items():
            base = LEVELS[method] + random.normal(0, spread, SEEDS)
            head = LEVELS[method] - losses.get(method, 0.0) + random.normal(0, spread * noisier, SEEDS)
            pool = _pool(random.normal(0, spread, (earlier, SEEDS))) if earlier else None
            sides: list[Any] = [dict(enumerate(map(float, side))) for side in (base, head)]
            names = ("task", method, "accuracy")
            drafts.append(paired_number(names, METRICS["accuracy"], EFFECT, *sides, same_bits=False, pool=pool))
        worse = [each.method for each in decide(drafts, alpha) if each.verdict == "worse"]
        for name in [*worse, *(["any"] if worse else [])]:
            found[name] += 1
    return {name: count / times for name, count in found.items()}


def visible(method: str, times: int, earlier: int, share: float = 0.8) -> float:
    """The smallest loss that is called in ``share`` of the cases, by bisection over ``GRID``."""
    low, high = 0, len(GRID) - 1
    while low < high:
        middle = (low + high) // 2
        loss = float(GRID[middle]) * SPREADS[method]
        low, high = (low, middle) if called({method: loss}, times, earlier)[method] >= share else (middle + 1, high)
    return float(GRID[low]) * SPREADS[method]


def _pool(draws: Sequence[Any]) -> EarlierSpread:
    return EarlierSpread(
        statistics.fmean(statistics.variance(map(float, draw)) for draw in draws), len(draws) * (SEEDS - 1)
    )


if __name__ == "__main__":
    rounds = int(sys.argv[1])
    for earlier in (0, 4, 12):
        losses = [f"{100 * visible(method, rounds, earlier):.1f}" for method in SPREADS]
        false = called({}, 5 * rounds, earlier, number=1)["any"]
        noisy = called({}, 5 * rounds, earlier, number=2, noisier=2.0)["any"]
        print(f"| {earlier} | {' | '.join(losses)} | {false:.2%} | {noisy:.2%} |", flush=True)
