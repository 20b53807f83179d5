"""Curves in a number: areas and first reaches with known answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench.analysis.stats import area_under, first_reach, median_reach


@pytest.mark.parametrize(
    ("spent", "scores", "limit", "area"),
    [
        ([0], [0.7], 5, 0.7),  # one evaluation: constant
        ([0, 10], [0.2, 0.8], 10, 0.5),  # a line: its middle
        ([0, 10], [0.0, 1.0], 5, 0.25),  # cut off at half: the middle of the lower half
        ([0, 10], [0.0, 1.0], 20, 0.75),  # ended early: the last student is held
        ([5, 10], [0.4, 0.8], 10, 0.5),  # the first is held back to 0
        ([0, 5, 5, 10], [0.0, 0.0, 1.0, 1.0], 10, 0.5),  # a step
        ([0, 4, 10], [0.0, 1.0, 1.0], 10, 0.8),
        ([0, 0], [0.1, 0.6], 10, 0.6),
    ],
)
def test_area_is_the_mean_score_over_the_budget(
    spent: list[float], scores: list[float], limit: float, area: float
) -> None:
    assert area_under(spent, scores, limit) == pytest.approx(area)


def test_area_of_a_saturating_curve_is_its_integral() -> None:
    places = [index / 1000 for index in range(1001)]
    found = area_under(places, [1 - math.exp(-3 * x) for x in places], 1)
    assert found == pytest.approx(1 - (1 - math.exp(-3)) / 3, abs=1e-5)


@given(
    some.lists(some.tuples(some.floats(0, 1e6), some.floats(0, 1)), min_size=1, max_size=20),
    some.floats(1e-3, 2e6),
    some.floats(0.1, 1e3),
)
def test_area_lies_among_the_scores_and_has_no_unit(
    points: list[tuple[float, float]], limit: float, unit: float
) -> None:
    spent, scores = sorted(x for x, _ in points), [y for _, y in points]
    found = area_under(spent, scores, limit)
    assert min(scores) - 1e-9 <= found <= max(scores) + 1e-9
    assert area_under([unit * x for x in spent], scores, unit * limit) == pytest.approx(found, rel=1e-6, abs=1e-9)


def test_first_reach_is_an_evaluation_that_was_made() -> None:
    scores = [0.1, 0.5, 0.9, 0.7]
    assert [first_reach(scores, target) for target in (0.05, 0.5, 0.51, 0.91)] == [0, 1, 2, None]


def test_seeds_that_do_not_reach_it_are_counted_and_not_averaged() -> None:
    assert median_reach([3, 1, None, 2]) == (2.0, 3, 4)
    assert median_reach([None, None]) == (None, 0, 2)
    assert median_reach([]) == (None, 0, 0)


@pytest.mark.parametrize(
    ("spent", "scores", "limit"),
    [
        ([], [], 1),
        ([0], [0.1, 0.2], 1),
        ([0, 2, 1], [0.1, 0.2, 0.3], 1),
        ([-1], [0.1], 1),
        ([0], [math.nan], 1),
        ([0], [0.1], 0),
        ([0], [0.1], math.inf),
    ],
)
def test_curves_that_are_none_are_refused(spent: list[float], scores: list[float], limit: float) -> None:
    with pytest.raises(ValueError, match=r"curve|budget|spent"):
        area_under(spent, scores, limit)
