"""The loop that speeds are divided by, first and last in a run. Never change it: commits are compared through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize("when", ["first", "last"])
def test_calibration(benchmark: Any, when: str) -> None:
    values = np.random.default_rng(0).standard_normal((192, 192), dtype=np.float32)

    def loop() -> float:
        total = values
        for _ in range(40):
            total = np.tanh(total @ values / 14)
        return sum(float(total[i, i]) for i in range(192))

    benchmark.pedantic(loop, rounds=20, warmup_rounds=2)
