"""Statistics over tasks: closed forms, the definitions of Agarwal et al., and properties of the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from simulate_coverage import covered

from bench.analysis.stats import Interval, interquartile_mean, performance_profile, probability_of_improvement

runs = st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=6)
tables = st.dictionaries(st.sampled_from("abcd"), runs, min_size=1)


def test_interquartile_mean_is_that_of_the_middle_half() -> None:
    found = interquartile_mean({"a": [0.0, 0.1, 0.2, 0.3], "b": [0.4, 0.5, 0.6, 100.0]})
    assert found.value == pytest.approx((0.2 + 0.3 + 0.4 + 0.5) / 4)
    assert found.how == "Student's t within tasks, 2 tasks, 8 runs"


@given(tables)
@settings(max_examples=25)
def test_interquartile_mean_is_scipys_trimmed_mean(scores: dict[str, list[float]]) -> None:
    flat = [value for values in scores.values() for value in values]
    assert interquartile_mean(scores).value == pytest.approx(float(reference.trim_mean(flat, 0.25)))


def test_only_the_seeds_vary_in_the_stratified_bootstrap() -> None:
    """Two tasks that lie far apart, each without spread: drawn over all runs the mean would vary, by task it cannot."""
    found = interquartile_mean({"easy": [0.9] * 30, "hard": [0.1] * 30})
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    few = interquartile_mean({"easy": [0.9] * 4, "hard": [0.1] * 4})
    assert (few.value, few.low, few.how) == (pytest.approx(0.5), None, "equal scores on every task: no interval")


def test_interval_of_the_interquartile_mean_of_many_runs_is_the_asymptotic_one() -> None:
    """The trimmed mean of n normal values has the variance s_w^2 / ((1 - 2 * 0.25)^2 n), s_w the winsorized spread."""
    values = np.random.default_rng(0).standard_normal(1000)
    low, high = np.quantile(values, [0.25, 0.75])
    error = np.clip(values, low, high).std() / (0.5 * 1000**0.5)
    found = interquartile_mean({"a": list(values)})
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_probability_of_improvement_counts_pairs() -> None:
    """3 + 3 of 3 * 2 pairs on one task; on the other one win, one tie and two losses: the mean of 1 and 0.375."""
    first = {"a": [0.9, 0.8, 0.7], "b": [0.5, 0.2]}
    second = {"a": [0.1, 0.2], "b": [0.5, 0.6]}
    expected = (1 + (0.5 + 0 + 0 + 0) / 4) / 2
    assert probability_of_improvement(first, second).value == pytest.approx(expected)


@given(runs, runs)
def test_probability_of_improvement_is_mann_and_whitneys(a: list[float], b: list[float]) -> None:
    expected = float(reference.mannwhitneyu(a, b).statistic) / (len(a) * len(b))
    there = probability_of_improvement({"t": a}, {"t": b}).value
    assert there == pytest.approx(expected)
    assert there + probability_of_improvement({"t": b}, {"t": a}).value == pytest.approx(1)


def test_probability_of_improvement_of_two_normals_is_the_closed_form() -> None:
    """P(X > Y) = Phi(d / sqrt(2)) for two normal distributions a distance d apart."""
    random = np.random.default_rng(0)
    first = {task: list(random.normal(1, 1, 150)) for task in "ab"}
    second = {task: list(random.normal(0, 1, 150)) for task in "ab"}
    truth = float(reference.norm.cdf(1 / 2**0.5))
    found = probability_of_improvement(first, second)
    assert found.low is not None
    assert found.high is not None
    assert found.low < truth < found.high
    assert found.high - found.low < 0.12


def test_interval_of_one_task_is_newcombes() -> None:
    """Newcombe (2006): the interval is where |found - p| = z sqrt(Hanley and McNeil's variance at p)."""
    first, second = {"t": [0.9, 0.7, 0.8]}, {"t": [0.75, 0.3, 0.4]}
    found = probability_of_improvement(first, second)
    assert found.value == pytest.approx(8 / 9)
    for end in (found.low, found.high):
        assert end is not None
        shape = 1 + 2 * (1 - end) / (2 - end) + 2 * end / (1 + end)
        assert abs(8 / 9 - end) == pytest.approx(1.959964 * (end * (1 - end) * shape / 9) ** 0.5, rel=1e-5)


def test_two_seeds_that_are_always_better_are_not_sure() -> None:
    found = probability_of_improvement({"a": [0.9, 0.8], "b": [0.9, 0.8]}, {"a": [0.1, 0.2], "b": [0.1, 0.2]})
    assert (found.value, found.high) == (1, 1)
    assert found.low is not None
    assert 0.4 < found.low < 0.8
    turned = probability_of_improvement({"a": [0.1, 0.2], "b": [0.1, 0.2]}, {"a": [0.9, 0.8], "b": [0.9, 0.8]})
    assert (turned.low, turned.high) == pytest.approx((0, 1 - found.low), abs=1e-6)


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize("seeds", [2, 5])
def test_intervals_hold_what_they_say(kind: str, seeds: int) -> None:
    """The table of docs/reports.md with fewer cases: of 300, 92 % less three standard errors."""
    for name, (hits, _) in covered(kind, seeds, 300).items():
        assert hits > 0.92 - 3 * (0.92 * 0.08 / 300) ** 0.5, name


def test_profile_is_the_share_of_runs_above_each_threshold() -> None:
    found = performance_profile({"a": [0.1, 0.3], "b": [0.2, 0.4, 0.6, 0.8]}, [0.0, 0.3, 0.5, 0.8])
    assert found.share == pytest.approx([1, (0 + 0.75) / 2, (0 + 0.5) / 2, 0])  # above, not equal
    assert found.thresholds == (0.0, 0.3, 0.5, 0.8)


@given(tables)
@settings(max_examples=25)
def test_profiles_fall_and_lie_within_their_bands(scores: dict[str, list[float]]) -> None:
    found = performance_profile(scores, [-0.1, 0.2, 0.5, 0.9, 1.0])
    assert found.share[0] == 1
    assert found.share[-1] == 0
    assert list(found.share) == sorted(found.share, reverse=True)
    assert (found.low is None) == any(len(values) == 1 for values in scores.values())
    if found.low is not None and found.high is not None:
        assert all(low <= high for low, high in zip(found.low, found.high, strict=True))


def test_area_under_a_profile_is_the_mean() -> None:
    """For scores between 0 and 1 the integral of P(X > t) is the mean."""
    values = list(np.random.default_rng(0).random(40))
    steps = [(place + 0.5) / 2000 for place in range(2000)]
    share = performance_profile({"a": values}, steps).share
    assert sum(share) / 2000 == pytest.approx(np.mean(values), abs=1e-3)


def test_one_seed_on_any_task_has_no_interval_and_says_where() -> None:
    scores = {"b": [0.1, 0.2], "a": [0.3]}
    found = interquartile_mean(scores)
    assert (found.low, found.high, found.how) == (None, None, "one seed on a: no interval")
    assert probability_of_improvement(scores, scores).low is None
    assert performance_profile(scores, [0.5]).low is None


def test_the_bootstrap_gives_the_same_in_every_call_and_order() -> None:
    random = np.random.default_rng(0)
    scores = {task: list(random.random(30)) for task in "abc"}
    turned = {task: scores[task][::-1] for task in "cba"}
    other = {task: list(random.random(30)) for task in "abc"}
    assert interquartile_mean(scores) == interquartile_mean(turned)
    assert interquartile_mean(scores) != interquartile_mean(scores, seed=1)
    assert probability_of_improvement(scores, other) == probability_of_improvement(turned, other)
    assert performance_profile(scores, [0.5]) == performance_profile(turned, [0.5])


@pytest.mark.parametrize(
    ("scores", "level", "message"),
    [
        ({}, 0.95, "at least one task"),
        ({"a": []}, 0.95, "at least one run"),
        ({"a": [0.5, float("inf")]}, 0.95, "on a, needs finite"),
        ({"a": [0.5, 0.6]}, 1.5, "level"),
    ],
)
def test_statistics_of_nothing_are_refused(scores: dict[str, list[float]], level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interquartile_mean(scores, level)
    with pytest.raises(ValueError, match=message):
        performance_profile(scores, [0.5], level)


def test_improvement_over_other_tasks_and_profiles_without_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match="only one has b, c"):
        probability_of_improvement({"a": [0.5], "b": [0.5]}, {"a": [0.5], "c": [0.5]})
    with pytest.raises(ValueError, match="threshold"):
        performance_profile({"a": [0.5]}, [])


def test_intervals_over_tasks_cover_the_truth_about_as_often_as_they_say() -> None:
    """Two tasks, thirty seeds each; the interquartile mean of a normal and its shifted twin lies halfway."""
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        scores = {"a": list(random.normal(0, 1, 30)), "b": list(random.normal(0, 1, 30))}
        found: Interval = interquartile_mean(scores, seed=trial, resamples=300)
        hits += found.low is not None and found.high is not None and found.low <= 0 <= found.high
    assert 0.88 < hits / 200 < 0.98
