"""Intervals over seeds: which one is chosen, and BCa against a published example."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.analysis.stats import (
    ENOUGH,
    bootstrap_interval,
    mean_interval,
    normalised_interval,
    seed_interval,
    share_interval,
)

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
    assert share_interval(values)[1:3] == pytest.approx(many[1:3], rel=0.001)


def test_one_seed_says_that_it_has_no_interval() -> None:
    assert seed_interval([0.5]) == (0.5, None, None, "one seed: no interval")
    assert share_interval([0.5]) == (0.5, None, None, "one seed: no interval")


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


shares = st.lists(st.floats(min_value=0, max_value=1), min_size=2, max_size=ENOUGH - 1)


@given(shares)
@example([0.0, 5e-324])
@example([1.0, 1.0, 1.0 - 2**-53])
def test_interval_of_a_share_is_around_it_and_inside_0_to_1(values: list[float]) -> None:
    found = share_interval(values)
    if min(values) == max(values) or statistics.fmean(values) in (0.0, 1.0):
        assert (found.low, found.high) == (None, None)
        assert found.how == f"{len(values)} equal scores: no interval"
    else:
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_interval_of_a_share_is_students_where_both_sides_have_room() -> None:
    """Log-odds are all but straight over a hundredth around 0.5."""
    values = [0.499, 0.501, 0.5, 0.502]
    mean, half = mean_interval(values)
    assert half is not None
    assert share_interval(values)[:3] == pytest.approx((mean, mean - half, mean + half), abs=1e-6)


def test_interval_of_a_share_is_longer_on_the_side_with_more_room() -> None:
    found = share_interval([0.97, 0.99, 0.95])
    assert found.low is not None
    assert found.high is not None
    assert found.value - found.low > 2 * (found.high - found.value)


def test_interval_of_what_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        share_interval([0.5, 96.1])


def test_normalised_interval_includes_noise_and_kd() -> None:
    scores, noise, kd = [0.80, 0.82, 0.78], [0.5, 0.52, 0.48], [0.9, 0.91, 0.89]
    found = normalised_interval(scores, noise, kd)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(0.75)
    assert found.low < 0.75 < found.high
    wider = normalised_interval(scores, [0.5, 0.6, 0.4], kd)
    assert wider is not None
    assert wider.low is not None
    assert wider.low < found.low
    sure = normalised_interval(scores, [0.5, 0.5, 0.5], [0.9, 0.9, 0.9])  # then only the score varies
    _, half = mean_interval(scores)
    assert half is not None
    assert sure is not None
    assert sure[1:3] == pytest.approx((0.75 - half / 0.4, 0.75 + half / 0.4))


@pytest.mark.parametrize(
    ("noise", "kd", "why"),
    [
        ([0.5], [0.9, 0.9], "one seed"),
        ([0.5, 0.5], [0.9, 0.9], "equal scores"),
        ([0.3, 0.7], [0.9, 0.92], "not above noise beyond chance"),
    ],
)
def test_normalised_interval_that_cannot_be_given_says_why(noise: list[float], kd: list[float], why: str) -> None:
    found = normalised_interval([0.8, 0.8], noise, kd)
    assert found is not None
    assert (found.low, found.high) == (None, None)
    assert why in found.how


def test_normalised_interval_without_a_distance_is_none() -> None:
    assert normalised_interval([0.8, 0.9], [0.8, 0.8], [0.805, 0.805]) is None
