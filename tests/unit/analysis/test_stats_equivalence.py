"""Two one-sided tests: against scipy's, in both directions, and where nothing can be decided."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind_from_stats

from bench.analysis.stats import equivalence


@pytest.mark.parametrize("seed", range(40))
def test_equivalent_is_where_both_one_sided_tests_reject(seed: int) -> None:
    stream = np.random.default_rng(seed)
    values = stream.normal(0.9 + stream.uniform(-0.02, 0.02), stream.uniform(0.001, 0.02), stream.integers(2, 9))
    above = ttest_1samp(values, 0.9 - 0.01, alternative="greater").pvalue
    below = ttest_1samp(values, 0.9 + 0.01, alternative="less").pvalue
    found = equivalence(list(values), 0.9)
    assert (found.verdict == "equivalent") == (max(above, below) < 0.05)
    beyond = [ttest_1samp(values, 0.9 + 0.01, alternative="greater").pvalue]
    beyond.append(ttest_1samp(values, 0.9 - 0.01, alternative="less").pvalue)
    assert (found.verdict == "different") == (min(beyond) < 0.05)


@pytest.mark.parametrize(("runs", "seed"), [(2, 0), (3, 1), (5, 2), (3, 3), (4, 4)])
def test_a_quoted_deviation_over_runs_is_welchs(runs: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.9, 0.006, 4)
    deviation = 0.004

    def p(margin: float, alternative: str) -> float:
        return float(
            ttest_ind_from_stats(
                values.mean(), values.std(ddof=1), 4, 0.9 + margin, deviation, runs, False, alternative
            ).pvalue
        )

    found = equivalence(list(values), 0.9, deviation, runs)
    assert (found.verdict == "equivalent") == (max(p(-0.01, "greater"), p(0.01, "less")) < 0.05)
    assert found.low is not None
    assert p(found.low, "greater") == pytest.approx(0.05, abs=1e-6)


def test_a_deviation_of_unknown_runs_is_that_of_the_number() -> None:
    """With 74.7 +- 3.3 a point cannot be decided, however many seeds there are."""
    values = list(np.random.default_rng(0).normal(0.747, 0.01, 200))
    found = equivalence(values, 0.747, 0.033)
    assert found.verdict == "undecided"
    assert found.high is not None
    assert found.high - found.difference == pytest.approx(1.6449 * 0.033, rel=0.02)
    assert equivalence(values, 0.747).verdict == "equivalent"


def test_nothing_is_decided_by_one_seed_or_by_equal_ones() -> None:
    assert equivalence([0.5], 0.9)[2:] == (None, "undecided", "one seed")
    assert equivalence([0.9, 0.9], 0.9)[1:] == (None, None, "undecided", "equal scores")
    wide = equivalence([0.8, 1.0], 0.9)
    assert (wide.verdict, wide.why) == ("undecided", "too few seeds for this spread")


def test_five_in_a_hundred_are_called_equivalent_at_the_margin() -> None:
    stream = np.random.default_rng(0)
    called = [equivalence(list(stream.normal(0.91, 0.002, 3)), 0.9).verdict == "equivalent" for _ in range(4000)]
    assert np.mean(called) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("values", "changes"),
    [([], {}), ([math.nan], {}), ([0.5], {"within": 0.0}), ([0.5], {"level": 0.5}), ([0.5], {"deviation": math.inf})],
)
def test_nonsense_is_refused(values: list[float], changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"."):
        equivalence(values, 0.5, **changes)  # type: ignore[arg-type]
