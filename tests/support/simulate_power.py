"""How large a loss must be to be called: repeated simulations with the spreads of ``results/tracked``.

``python tests/support/simulate_power.py 4000`` prints the tables of docs/continuous-integration.md.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.analysis.regression.effects import Effect
from bench.analysis.regression.looks import look_alpha, look_level, planned_looks
from bench.analysis.regression.verdicts import EarlierSpread, decide, paired_number
from bench.spec.metric_names import METRICS

LEVELS = {"kd": 0.965, "dafl": 0.913, "dfad": 0.819, "noise": 0.504}
SPREADS = {"kd": 0.0043, "dafl": 0.0181, "dfad": 0.0682, "noise": 0.1049}  # over the five seeds of results/tracked
SEEDS = 5
EFFECT = Effect(0.01)
GRID = np.geomspace(0.5, 8, 60)  # losses, in spreads of the seeds


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


def sequential(
    losses: dict[str, float], times: int, looks: Sequence[int] = (5, 10, 20), number: int = 0
) -> tuple[dict[str, float], dict[str, float]]:
    """As ``called`` for `dfkd track --until-decided`: seeds are added to what is undecided, at planned looks.

    Returns:
        The shares that are called worse at any look; and the mean number of seeds that each method has run in the end.
    """
    random = np.random.default_rng(number)
    alpha, level = look_alpha(0.01, looks), look_level(looks)
    found, seeds = dict.fromkeys([*SPREADS, "any"], 0), dict.fromkeys(SPREADS, 0)
    for _ in range(times):
        sides = {
            method: np.array([[LEVELS[method]], [LEVELS[method] - losses.get(method, 0.0)]])
            + random.normal(0, spread, (2, looks[-1]))
            for method, spread in SPREADS.items()
        }
        counts, waiting = dict.fromkeys(SPREADS, looks[0]), set(SPREADS)
        for count in looks:
            drafts = []
            for method, (base, head) in sides.items():
                if count > looks[0] and method in waiting:
                    counts[method] = count
                both: list[Any] = [dict(enumerate(map(float, side[: counts[method]]))) for side in (base, head)]
                names = ("task", method, "accuracy")
                drafts.append(paired_number(names, METRICS["accuracy"], EFFECT, *both, same_bits=False, level=level))
            decided = decide(drafts, alpha)
            waiting = {each.method for each in decided if each.verdict == "undecided"}
            if not waiting:
                break
        worse = [each.method for each in decided if each.verdict == "worse"]
        for name in [*worse, *(["any"] if worse else [])]:
            found[name] += 1
        for method, count in counts.items():
            seeds[method] += count
    shares = {name: count / times for name, count in found.items()}
    return shares, {name: count / times for name, count in seeds.items()}


def visible(method: str, share: float, calls: Callable[[dict[str, float]], dict[str, float]]) -> float:
    """The smallest loss that is called in ``share`` of the cases, by bisection over ``GRID``."""
    low, high = 0, len(GRID) - 1
    while low < high:
        middle = (low + high) // 2
        loss = max(float(GRID[middle]) * SPREADS[method], EFFECT.size)
        low, high = (low, middle) if calls({method: loss})[method] >= share else (middle + 1, high)
    return max(float(GRID[low]) * SPREADS[method], EFFECT.size)


def _pool(draws: Sequence[Any]) -> EarlierSpread:
    return EarlierSpread(
        statistics.fmean(statistics.variance(map(float, draw)) for draw in draws), len(draws) * (SEEDS - 1)
    )


if __name__ == "__main__":
    rounds = int(sys.argv[1])
    for earlier in (0, 4, 12):
        each = partial(called, times=rounds, earlier=earlier)
        losses = [f"{100 * visible(method, 0.8, each):.1f}" for method in SPREADS]
        false = called({}, 5 * rounds, earlier, number=1)["any"]
        noisy = called({}, 5 * rounds, earlier, number=2, noisier=2.0)["any"]
        print(f"| {earlier} | {' | '.join(losses)} | {false:.2%} | {noisy:.2%} |", flush=True)
    for most in (5, 10, 20, 40):
        looks = planned_looks(SEEDS, most)
        losses = [
            f"{100 * visible(method, 0.8, lambda loss: sequential(loss, rounds // 4, looks)[0]):.1f}"  # noqa: B023
            for method in SPREADS
        ]
        shares, seeds = sequential({}, 5 * rounds, looks, number=1)
        used = ", ".join(f"{count:.0f}" for count in seeds.values())
        print(f"| {most} | {len(looks)} | {' | '.join(losses)} | {shares['any']:.2%} | {used} |", flush=True)
