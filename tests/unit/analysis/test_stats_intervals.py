"""Intervals over seeds: which one is chosen, and BCa against a published example."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.stats import ENOUGH, bootstrap_interval, mean_and_half, mean_interval, seed_interval

# Efron and Tibshirani (1993), An Introduction to the Bootstrap, table 14.1: the spatial test, column A.
SPATIAL = [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41]


def test_bca_of_a_variance_is_the_published_one() -> None:
    """Their table 14.2: the estimate 171.5 and (115.8, 259.6), of 2,000 resamples, so known to about two units."""
    found = bootstrap_interval(SPATIAL, np.var, level=0.9)
    assert found.value == pytest.approx(171.5, abs=0.05)
    assert (found.low, found.high) == pytest.approx((115.8, 259.6), abs=3)


def test_bca_of_a_large_sample_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    found = bootstrap_interval(list(values))
    half = 1.959964 * float(np.std(values, ddof=1)) / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_bca_leans_to_the_long_tail_and_student_does_not() -> None:
    values = list(np.random.default_rng(1).exponential(size=60))
    found = seed_interval(values)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.value > 1.1 * (found.value - found.low)


def test_the_bootstrap_gives_the_same_in_every_call_and_order() -> None:
    assert bootstrap_interval(SPATIAL) == bootstrap_interval(SPATIAL[::-1])
    assert bootstrap_interval(SPATIAL, seed=1) != bootstrap_interval(SPATIAL, seed=2)


def test_few_seeds_have_students_interval_and_many_the_bootstraps() -> None:
    values = list(np.random.default_rng(2).normal(0.9, 0.01, ENOUGH))
    few = seed_interval(values[:-1])
    mean, half = mean_interval(values[:-1])
    assert half is not None
    assert few == (mean, mean - half, mean + half, f"Student's t over {ENOUGH - 1} seeds")
    many = seed_interval(values)
    assert many.how == f"BCa bootstrap over {ENOUGH} seeds"
    assert (many.low, many.high) == bootstrap_interval(values)[1:3]
    assert mean_and_half(values[:-1]) == pytest.approx((mean, half))
    assert mean_and_half(values) == pytest.approx((many.value, (many.high - many.low) / 2), rel=0.05)  # type: ignore[operator]


def test_one_seed_says_that_it_has_no_interval() -> None:
    assert seed_interval([0.5]) == (0.5, None, None, "one seed: no interval")
    assert mean_and_half([0.5]) == (0.5, None)


@settings(max_examples=20)
@given(st.floats(min_value=0, max_value=1), st.sampled_from([2, ENOUGH]))
def test_equal_scores_have_an_interval_of_width_zero(value: float, count: int) -> None:
    found = seed_interval([value] * count)
    assert (found.low, found.high) == pytest.approx((value, value), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [([0.5], 0.95, "two values"), ([0.5, float("nan")], 0.95, "finite"), ([0.5, 0.6], 95, "level")],
)
def test_a_bootstrap_of_too_little_is_refused(values: list[float], level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, level=level)
