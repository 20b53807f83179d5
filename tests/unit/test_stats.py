"""Statistics: against scipy, against closed forms, and properties that hold for all numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as reference

from bench.stats import CLEARLY, mean_interval, normalised

scores = st.floats(min_value=0, max_value=1)
several = st.lists(scores, min_size=2, max_size=12)


@given(several, st.floats(min_value=0.5, max_value=0.999))
def test_interval_is_scipys(values: list[float], level: float) -> None:
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    assume(spread > 1e-9)
    mean, half = mean_interval(values, level)
    low, high = reference.t.interval(level, df=len(values) - 1, loc=np.mean(values), scale=spread)
    assert half is not None
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


@given(scores, scores)
def test_two_values_have_the_closed_form_of_cauchy(a: float, b: float) -> None:
    """With one degree of freedom Student's t is Cauchy's distribution, whose quantile is a tangent."""
    half = mean_interval([a, b])[1]
    assert half == pytest.approx(math.tan(math.pi * 0.475) * abs(a - b) / 2, rel=1e-9)


@given(scores)
def test_one_value_has_no_interval(value: float) -> None:
    assert mean_interval([value]) == (value, None)


@given(scores, st.integers(min_value=2, max_value=9))
def test_equal_values_have_an_interval_of_width_zero(value: float, count: int) -> None:
    mean, half = mean_interval([value] * count)
    assert mean == pytest.approx(value)
    assert half == pytest.approx(0, abs=1e-9)


@given(several)
def test_interval_does_not_depend_on_the_order(values: list[float]) -> None:
    assert mean_interval(values) == pytest.approx(mean_interval(sorted(values)))


@given(several, st.floats(min_value=0.1, max_value=100), st.floats(min_value=-10, max_value=10))
def test_interval_follows_the_unit(values: list[float], scale: float, shift: float) -> None:
    mean, half = mean_interval(values)
    moved = mean_interval([scale * value + shift for value in values])
    assert half is not None
    assert moved == pytest.approx((scale * mean + shift, scale * half), rel=1e-6, abs=1e-9)


@given(several)
def test_more_confidence_is_a_wider_interval(values: list[float]) -> None:
    narrow, wide = mean_interval(values, 0.8)[1], mean_interval(values, 0.99)[1]
    assert narrow is not None
    assert wide is not None
    assert narrow <= wide


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    draws = random.normal(0.5, 0.1, size=(2000, 3))
    found = [mean_interval(list(row)) for row in draws]
    share = np.mean([abs(mean - 0.5) <= half for mean, half in found if half is not None])
    assert 0.935 < share < 0.965


@pytest.mark.parametrize("values", [[], [float("nan")], [0.5, float("inf")]])
def test_interval_of_nothing_or_of_nan_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)


@pytest.mark.parametrize("level", [0, 1, -1, 95])
def test_level_outside_its_range_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        mean_interval([0.1, 0.2], level)


@given(scores, scores)
def test_normalised_is_zero_at_noise_and_one_at_kd(noise: float, kd: float) -> None:
    assume(kd - noise >= CLEARLY)
    assert normalised(noise, noise, kd) == 0
    assert normalised(kd, noise, kd) == 1
    assert normalised((noise + kd) / 2, noise, kd) == pytest.approx(0.5)


@given(scores, scores, scores)
def test_normalised_can_be_turned_back(score: float, noise: float, kd: float) -> None:
    assume(kd - noise >= CLEARLY)
    place = normalised(score, noise, kd)
    assert place is not None
    assert noise + place * (kd - noise) == pytest.approx(score, abs=1e-9)


@given(scores, scores, st.floats(min_value=-1, max_value=0.009))
def test_normalised_is_none_where_kd_is_not_clearly_above_noise(score: float, noise: float, gap: float) -> None:
    assert normalised(score, noise, noise + gap) is None
    assert normalised(score, noise, float("nan")) is None
