"""How often equal commits are called different: repeated simulations, run by the tests and, at length, by hand.

``python tests/support/simulate_history.py 2000`` prints the table of docs/continuous-integration.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.analysis.regression.effects import Effect
from bench.analysis.regression.history import find_steps
from bench.analysis.regression.verdicts import decide, paired_number
from bench.spec.metric_names import METRICS

Draw = Callable[[Any, tuple[int, ...]], Any]
SPREAD = 0.02
SHAPES: dict[str, Draw] = {
    "normal": lambda random, size: random.normal(0, SPREAD, size),
    "heavy tails (t, 3 degrees of freedom)": lambda random, size: SPREAD * random.standard_t(3, size),
    "of 355 test images": lambda random, size: np.round(random.normal(0, SPREAD, size) * 355) / 355,
    "skewed (exponential)": lambda random, size: SPREAD * random.exponential(1, size),
    "collapsing (one trial in five at -0.5)": lambda random, size: (
        random.normal(0, SPREAD, size) - 0.5 * (random.random(size) < 0.2)
    ),
}
EFFECT = Effect(0.01)


def false_comparisons(draw: Draw, times: int, numbers: int = 8, seeds: int = 5, number: int = 0) -> tuple[int, int]:
    """Comparisons of two equal commits with any worse in them, and single numbers that were called worse."""
    random = np.random.default_rng(number)
    comparisons = wrong = 0
    for _ in range(times):
        sides = draw(random, (2, numbers, seeds))
        base, head = ([dict(enumerate(0.7 + row)) for row in side] for side in sides)
        drafts = [
            paired_number(("task", str(place), "accuracy"), METRICS["accuracy"], EFFECT, a, b, False)
            for place, (a, b) in enumerate(zip(base, head, strict=True))
        ]
        called = sum(each.verdict == "worse" for each in decide(drafts, alpha=0.01))
        comparisons += called > 0
        wrong += called
    return comparisons, wrong


def false_histories(draw: Draw, times: int, commits: int = 30, seeds: int = 5, number: int = 0) -> int:
    """Series over equal commits in which a step was found."""
    random = np.random.default_rng(number)
    series = (0.7 + draw(random, (commits, seeds)) for _ in range(times))
    return sum(bool(find_steps([dict(enumerate(row)) for row in each], EFFECT.size)) for each in series)


def common_shocks(
    times: int, commits: int = 30, seeds: int = 5, shock: float = 0.01, spread: float = 0.005, number: int = 0
) -> int:
    """Series with a step in them where every commit shifts all seeds by a normal ``shock``, as another machine may."""
    random = np.random.default_rng(number)
    found = 0
    for _ in range(times):
        series = 0.7 + random.normal(0, shock, (commits, 1)) + random.normal(0, spread, (commits, seeds))
        found += bool(find_steps([dict(enumerate(row)) for row in series], EFFECT.size))
    return found


if __name__ == "__main__":
    rounds = int(sys.argv[1])
    compared = 10 * rounds  # quick enough to tell 1 % from a little more
    for shape, draw in SHAPES.items():
        comparisons, wrong = false_comparisons(draw, compared)
        steps = false_histories(draw, rounds)
        print(
            f"| {shape} | {comparisons / compared:.2%} | {wrong / compared / 8:.3%} | {steps / rounds:.2%} |",
            flush=True,
        )
