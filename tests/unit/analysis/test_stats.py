"""Statistics: against scipy, against closed forms, and properties that hold for all numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as reference

from bench.analysis.stats import CLEARLY, mean_interval, normalised, rank_correlation

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


# Rank correlation

pairs = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=20)  # few values: many ties


def test_rank_correlation_by_hand() -> None:
    """Ranks 1 2 3 4 5 and 2 1 4 3 5: squared differences add up to 4, so rho = 1 - 6 * 4 / (5 * 24) = 0.8.

    Fisher's z = atanh 0.8 = 1.0986; its standard error sqrt(1.32 / 2) = 0.8124; times 1.96 it is 1.5923.
    """
    rho, low, high = rank_correlation([1, 2, 3, 4, 5], [20, 10, 40, 30, 50])
    assert rho == pytest.approx(0.8)
    assert (low, high) == pytest.approx((math.tanh(-0.4937), math.tanh(2.6909)), abs=1e-4)


def test_ties_share_their_mean_rank() -> None:
    """Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5."""
    assert rank_correlation([1, 7, 7, 9], [1, 2, 3, 4])[0] == pytest.approx(4.5 / math.sqrt(22.5))


@given(pairs)
def test_rho_is_scipys(values: list[tuple[int, int]]) -> None:
    x, y = zip(*values, strict=True)
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    assert rank_correlation(x, y)[0] == pytest.approx(reference.spearmanr(x, y).statistic, abs=1e-12)


@given(pairs)
def test_correlation_is_symmetric_and_turns_with_the_sign(values: list[tuple[int, int]]) -> None:
    x, y = zip(*values, strict=True)
    rho, low, high = rank_correlation(x, y)
    assert rank_correlation(y, x) == (rho, low, high)
    turned = rank_correlation(x, [-value for value in y])
    assert [None if value is None else -value for value in turned] == [
        None if value is None else pytest.approx(value) for value in (rho, high, low)
    ]


@given(pairs)
def test_correlation_sees_nothing_but_the_order(values: list[tuple[int, int]]) -> None:
    x, y = zip(*values, strict=True)
    assert rank_correlation([math.exp(value) for value in x], y) == rank_correlation(x, y)


@given(pairs, st.floats(min_value=0.5, max_value=0.999))
def test_interval_of_the_correlation_lies_around_it(values: list[tuple[int, int]], level: float) -> None:
    x, y = zip(*values, strict=True)
    rho, low, high = rank_correlation(x, y, level)
    assert (low is None) == (high is None)
    if rho is None or low is None or high is None:
        assert rho is None or abs(rho) == 1 or len(values) < 4
    else:
        assert -1 <= low < rho < high <= 1


@pytest.mark.parametrize(("x", "y"), [([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [7, 7, 7, 7]), ([1], [2]), ([], [])])
def test_side_that_does_not_vary_has_no_correlation(x: Sequence[float], y: Sequence[float]) -> None:
    assert rank_correlation(x, y) == (None, None, None)


def test_three_pairs_have_no_interval_and_four_have() -> None:
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == (0.5, None, None)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4])[1] is not None


@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_order_has_no_interval_of_width_zero(sign: int) -> None:
    x = [0.1 * value for value in range(9)]
    assert rank_correlation(x, [sign * value**3 for value in x]) == (sign, None, None)


def test_interval_of_the_correlation_covers_the_truth_as_often_as_it_says() -> None:
    """Spearman's rho of a bivariate normal with correlation r is 6 / pi * asin(r / 2)."""
    random = np.random.default_rng(0)
    truth = 6 / math.pi * math.asin(0.3)
    hits = 0
    for _ in range(1000):
        x = random.standard_normal(25)
        y = 0.6 * x + 0.8 * random.standard_normal(25)
        _, low, high = rank_correlation(list(x), list(y))
        hits += low is not None and high is not None and low <= truth <= high
    assert 0.93 < hits / 1000 < 0.97


@pytest.mark.parametrize(
    ("x", "y", "level", "message"),
    [
        ([1, 2], [1], 0.95, "pairs, not 2 and 1 values"),
        ([1, float("nan")], [1, 2], 0.95, "finite"),
        ([1, 2], [1, float("inf")], 0.95, "finite"),
        ([1, 2], [1, 2], 95, "level"),
    ],
)
def test_correlation_of_no_pairs_or_of_nan_is_refused(
    x: list[float], y: list[float], level: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_correlation(x, y, level)
