"""Kernel distance: against loops over pairs, closed forms, and what must not matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from feature_sets import BAD, blocks_of, largest_tensor, normal, shuffled
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.metrics.kernel import kernel_distance, kernel_distance_of_subsets, kernel_mean

seeds = st.integers(min_value=0, max_value=2**16)
counts = st.integers(min_value=2, max_value=17)


def kernel(x: Tensor, y: Tensor) -> float:
    return (float(x.double() @ y.double()) / len(x) + 1) ** 3


def slow_mean(x: Tensor) -> float:
    return float(np.mean([kernel(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2)]))


def slow_distance(x: Tensor, y: Tensor) -> float:
    return slow_mean(x) + slow_mean(y) - 2 * float(np.mean([kernel(a, b) for a in x for b in y]))


@given(seeds, counts, counts, st.integers(min_value=1, max_value=20))
def test_agrees_with_loops_over_pairs_whatever_the_blocks(seed: int, few: int, many: int, rows: int) -> None:
    x, y = normal(few, 4, seed), normal(many, 4, seed + 1, mixed=True)
    with blocks_of(rows):
        assert kernel_mean(x) == pytest.approx(slow_mean(x), rel=1e-10)
        assert kernel_distance(x, y) == pytest.approx(slow_distance(x, y), rel=1e-9, abs=1e-9)


@given(seeds, counts, counts)
def test_neither_the_order_nor_the_sides_matter(seed: int, few: int, many: int) -> None:
    x, y = normal(few, 6, seed), normal(many, 6, seed + 1, mixed=True)
    value = kernel_distance(x, y)
    assert kernel_distance(y, x) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert kernel_distance(shuffled(x, seed), shuffled(y, seed)) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_constant_sets_have_the_closed_form() -> None:
    x, y = torch.full((3, 8), 1.0), torch.full((5, 8), 2.0)
    assert kernel_distance(x, y) == 2.0**3 + 5.0**3 - 2 * 3.0**3
    assert kernel_distance(x, x[:2]) == 0


def test_the_mean_of_an_ideal_gaussian_is_reached() -> None:
    """Of independent x, y ~ N(0, I) in D dimensions, t = x.y / D has mean 0, variance 1 / D, and (t + 1)³ 1 + 3 / D."""
    assert kernel_mean(normal(4000, 6)) == pytest.approx(1 + 3 / 6, abs=0.03)


def test_two_samples_of_one_distribution_are_close_and_without_bias() -> None:
    values = [kernel_distance(normal(60, 5, seed), normal(40, 5, seed + 1000)) for seed in range(200)]
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0 < max(values)
    assert kernel_distance(normal(60, 5), normal(40, 5, 1) + 1) > 30 * error


def test_identical_sets_are_below_zero_by_the_pairs_of_an_image_with_itself() -> None:
    x = normal(9, 5)
    itself = float(np.mean([kernel(each, each) for each in x]))
    assert kernel_distance(x, x) == pytest.approx(2 * (slow_mean(x) - itself) / 9, rel=1e-9)


def test_a_known_mean_is_taken_as_it_is() -> None:
    x, y = normal(9, 5), normal(7, 5, 1)
    assert kernel_distance(x, y, kernel_mean(y)) == kernel_distance(x, y)
    assert kernel_distance(x, y, kernel_mean(y) + 1) == pytest.approx(kernel_distance(x, y) + 1)


def test_one_subset_of_all_images_is_the_whole() -> None:
    x, y = normal(30, 5), normal(30, 5, 1, mixed=True)
    mean, spread = kernel_distance_of_subsets(x, y, subsets=1, size=30)
    assert mean == pytest.approx(kernel_distance(x, y), rel=1e-12)
    assert spread == 0


def test_subsets_are_drawn_by_the_seed_and_spread_about_the_whole() -> None:
    x, y = normal(300, 5), normal(200, 5, 1) + 0.3
    mean, spread = kernel_distance_of_subsets(x, y, subsets=50, size=50)
    assert (mean, spread) == kernel_distance_of_subsets(x, y, subsets=50, size=50)
    assert (mean, spread) != kernel_distance_of_subsets(x, y, subsets=50, size=50, seed=1)
    assert 0 < abs(mean - kernel_distance(x, y)) < spread


def test_subsets_are_no_larger_than_the_smaller_set() -> None:
    x, y = normal(40, 5), normal(15, 5, 1)
    assert kernel_distance_of_subsets(x, y, 4, 1000) == kernel_distance_of_subsets(x, y, 4, 15)
    draws = np.random.RandomState(2020)
    parts = [(x[draws.choice(40, 15, replace=False)], y[draws.choice(15, 15, replace=False)]) for _ in range(4)]
    values = [slow_distance(*part) for part in parts]
    assert kernel_distance_of_subsets(x, y, 4) == pytest.approx((np.mean(values), np.std(values)), rel=1e-9)


@pytest.mark.parametrize(
    ("count", "others", "subsets", "size"),
    [(90, 70, 12, 40), (90, 70, 12, 70), (40, 90, 3, 1000), (2000, 1500, 3, 20), (64, 64, 1, 64), (70, 33, 100, 5)],
)
def test_subsets_are_the_mean_of_their_parts_however_they_overlap(
    count: int, others: int, subsets: int, size: int
) -> None:
    x, y = normal(count, 6), normal(others, 6, 1, mixed=True)
    draws = np.random.RandomState(2020)
    least = min(size, count, others)
    values = [
        kernel_distance(x[draws.choice(count, least, replace=False)], y[draws.choice(others, least, replace=False)])
        for _ in range(subsets)
    ]
    with blocks_of(32):
        found = kernel_distance_of_subsets(x, y, subsets, size)
    assert found == pytest.approx((np.mean(values), np.std(values)), rel=1e-12, abs=1e-13)


def test_no_matrix_of_all_pairs_is_made() -> None:
    x, y = torch.rand(700, 8), torch.rand(500, 8)
    with blocks_of(32):
        assert largest_tensor(lambda: kernel_distance(x, y)) <= 8 * 32 * 32
        assert largest_tensor(lambda: kernel_distance_of_subsets(x, y, 4, 400)) <= 8 * 700 * 8


@pytest.mark.parametrize("features", BAD.values(), ids=BAD.keys())
def test_bad_features_are_refused(features: Tensor) -> None:
    good = normal(5, 3)
    for attempt in (
        lambda: kernel_mean(features),
        lambda: kernel_distance(features, good),
        lambda: kernel_distance(good, features),
        lambda: kernel_distance_of_subsets(good, features),
    ):
        with pytest.raises(ValueError, match=r"features (must have|of|hold)"):
            attempt()


def test_features_of_other_dimensions_and_empty_subsets_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        kernel_distance(normal(5, 3), normal(5, 4))
    for subsets, size in ((0, 10), (10, 1)):
        with pytest.raises(ValueError, match="at least 1 subset of 2 images"):
            kernel_distance_of_subsets(normal(5, 3), normal(5, 3), subsets, size)
