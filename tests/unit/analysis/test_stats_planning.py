"""Seeds for a difference: R's power.t.test, simulation, and what cannot be planned."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.analysis.stats import seeds_to_detect, spread_limit


@pytest.mark.parametrize(
    ("spread", "difference", "paired", "alpha", "seeds"),
    [
        (1.0, 1.0, False, 0.05, 17),  # R: power.t.test(delta = 1, sd = 1, power = 0.8): n = 16.71
        (1.0, 1.0, True, 0.05, 10),  # R, type = "paired": n = 9.94
        (2.0, 1.0, False, 0.05, 64),  # R: n = 63.77
        (0.0, 1.0, True, 0.05, 2),
        (1e-6, 1.0, True, 0.05, 2),
    ],
)
def test_known_sizes(spread: float, difference: float, paired: bool, alpha: float, seeds: int) -> None:
    assert seeds_to_detect(spread, difference, paired=paired, alpha=alpha) == seeds


@pytest.mark.parametrize("paired", [True, False])
def test_the_planned_seeds_have_the_power(paired: bool) -> None:
    seeds = seeds_to_detect(0.02, 0.015, paired=paired)
    assert seeds is not None
    random = np.random.default_rng(0)
    first = random.normal(0.015, 0.02, (4000, seeds))
    p = (
        stats.ttest_1samp(first, 0, axis=1)
        if paired
        else stats.ttest_ind(first, random.normal(0, 0.02, first.shape), axis=1)
    ).pvalue
    assert 0.78 <= (p < 0.05).mean() <= 0.86


def test_more_than_anybody_runs_is_none() -> None:
    assert seeds_to_detect(1.0, 0.001, paired=True) is None


def test_the_limit_is_above_the_true_spread_as_often_as_it_says() -> None:
    spreads = np.random.default_rng(0).normal(0, 0.02, (4000, 4)).std(axis=1, ddof=1)
    above = np.mean([spread_limit(float(each), 3) >= 0.02 for each in spreads])
    assert above == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("changed", [{"spread": -1.0}, {"difference": 0.0}, {"power": 1.0}, {"alpha": 0.0}])
def test_nonsense_is_refused(changed: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="spread at least 0"):
        seeds_to_detect(**{"spread": 1.0, "difference": 1.0, "paired": True, **changed})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="degree of freedom"):
        spread_limit(1.0, 0)
