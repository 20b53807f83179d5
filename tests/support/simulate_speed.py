"""How often a slower step is called: repeated simulations of `dfkd track --speed` and of `dfkd compare --interleave`.

``python tests/support/simulate_speed.py 2000`` prints the table of docs/continuous-integration.md.
"""

from __future__ import annotations

import sys

import numpy as np

from bench.analysis.regression.effects import TIME, smallest_effect
from bench.analysis.regression.step_times import ROUNDS
from bench.analysis.regression.verdicts import decide, ratio_number

METHODS = 4


def called(
    factor: float, times: int, rounds: int = ROUNDS, noise: float = 0.05, methods: int = METHODS, number: int = 0
) -> tuple[float, float]:
    """The share of comparisons in which the first method, ``factor`` times as slow, is called worse; and in which any
    other one is, which is as fast as before. ``noise`` is the standard deviation of a round's logarithm."""
    random, effect = np.random.default_rng(number), smallest_effect(TIME.name)
    assert effect is not None
    found = false = 0
    for _ in range(times):
        drafts = []
        for place in range(methods):
            base, head = np.exp(random.normal(0, noise, (2, rounds)))
            head = head * (factor if place == 0 else 1.0)
            drafts.append(ratio_number(("speed", str(place), TIME.name), TIME, effect, base.tolist(), head.tolist()))
        verdicts = [each.verdict for each in decide(drafts, alpha=0.01)]
        found += verdicts[0] == "worse"
        false += "worse" in verdicts[1:]
    return found / times, false / times


if __name__ == "__main__":
    repeats = int(sys.argv[1])
    for amount in (0.05, 0.1):
        shares = [called(factor, repeats, noise=amount)[0] for factor in (1.1, 1.2, 2.0)]
        wrong = max(called(1.0, repeats, noise=amount, number=1))
        print(f"| {amount:.0%} | {' | '.join(f'{share:.1%}' for share in (*shares, wrong))} |", flush=True)
