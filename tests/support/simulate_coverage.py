"""How often the intervals of a report hold what they are intervals of: repeated simulations of a few seeds.

``python tests/support/simulate_coverage.py 4000`` prints the table of docs/reports.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from bench.analysis.stats import (
    Interval,
    interquartile_mean,
    normalised_interval,
    performance_profile,
    probability_of_improvement,
    share_interval,
)

Array = NDArray[np.float64]

SEEDS = (2, 3, 5, 10)
LEVELS = (0.95, 0.9, 0.75, 0.55)  # the means of four tasks; the first two are those of single methods below
SPREADS = (0.01, 0.02, 0.07, 0.1)  # over seeds, as in results/tracked
LOWER = 0.02  # by how much the second method is worse on each task
MANY = 100_000  # seeds that stand for all
COLLAPSED = (0.2, 0.1)  # how often a trial collapses, and its score
Draw = Callable[[float, float, tuple[int, ...]], Array]


def draws(random: np.random.Generator) -> dict[str, Draw]:
    """Scores by mean, spread and shape: normal, with a long lower tail (skewness -1.4), and some at chance level."""

    def normal(mean: float, spread: float, shape: tuple[int, ...]) -> Array:
        return np.clip(random.normal(mean, spread, shape), 0, 1)

    def skewed(mean: float, spread: float, shape: tuple[int, ...]) -> Array:
        return np.clip(mean + spread * (2 - random.gamma(2, 1, shape)) / 2**0.5, 0, 1)

    def collapsing(mean: float, spread: float, shape: tuple[int, ...]) -> Array:
        often, there = COLLAPSED
        return np.where(random.random(shape) < often, there, normal(mean, spread, shape))

    return {"normal": normal, "skewed": skewed, "collapsing": collapsing}


def covered(kind: str, seeds: int, times: int, number: int = 0) -> dict[str, tuple[float, float]]:
    """Of each interval the share that holds the truth, and the share of cases in which there is one.

    Args:
        kind: one of ``draws``.
        seeds: of each method and task.
        times: how many simulated reports.
        number: of the random stream.
    """
    random = np.random.default_rng(number)
    draw = draws(random)[kind]
    noise_level, noise_spread, kd_level, kd_spread = 0.5, 0.1, 0.965, 0.0043
    ours = np.stack([draw(level, spread, (MANY,)) for level, spread in zip(LEVELS, SPREADS, strict=True)])
    theirs = np.stack([draw(level - LOWER, spread, (MANY,)) for level, spread in zip(LEVELS, SPREADS, strict=True)])
    mean, floor = float(ours[1].mean()), float(np.clip(random.normal(noise_level, noise_spread, MANY), 0, 1).mean())
    truth = {
        "mean": mean,
        "normalised": (mean - floor) / (kd_level - floor),
        "interquartile mean": float(trim_mean(ours.ravel(), 0.25)),
        "probability of improvement": float(
            np.mean([(np.searchsorted(np.sort(b), a) / MANY).mean() for a, b in zip(ours, theirs, strict=True)])
        ),
        "profile": float((ours > LEVELS[1]).mean(axis=1).mean()),
    }
    hits, given = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0)
    for _ in range(times):
        first = _tasks(draw, 0.0, seeds)
        second = _tasks(draw, LOWER, seeds)
        noise = list(np.clip(random.normal(noise_level, noise_spread, seeds), 0, 1))
        kd = list(random.normal(kd_level, kd_spread, seeds))
        profile = performance_profile(first, [LEVELS[1]])
        ends = (profile.low[0], profile.high[0]) if profile.low and profile.high else (None, None)
        found: dict[str, Interval | None] = {
            "mean": share_interval(first["1"]),
            "normalised": normalised_interval(first["1"], noise, kd),
            "interquartile mean": interquartile_mean(first),
            "probability of improvement": probability_of_improvement(first, second),
            "profile": Interval(profile.share[0], *ends, profile.how),
        }
        for name, each in found.items():
            if each is not None and each.low is not None and each.high is not None:
                given[name] += 1
                hits[name] += each.low <= truth[name] <= each.high
    return {name: (hits[name] / max(1, given[name]), given[name] / times) for name in truth}


def _tasks(draw: Draw, lower: float, seeds: int) -> dict[str, list[float]]:
    return {
        str(place): draw(level - lower, spread, (seeds,)).tolist()
        for place, (level, spread) in enumerate(zip(LEVELS, SPREADS, strict=True))
    }


if __name__ == "__main__":
    rounds = int(sys.argv[1])
    for kind in draws(np.random.default_rng()):
        found = [covered(kind, seeds, rounds) for seeds in SEEDS]
        for name in found[0]:
            cells = [
                f"{100 * hit:.0f}" + ("" if given > 0.995 else f" ({100 * given:.0f})")
                for hit, given in (each[name] for each in found)
            ]
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)
