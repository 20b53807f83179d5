"""The Fréchet distance: closed forms, scipy's square root, covariances without full rank, what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from feature_sets import BAD, blocks_of, largest_tensor, normal, shuffled
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor

from bench.metrics.blocks import BLOCK
from bench.metrics.frechet import Moments, frechet_distance, frechet_infinity, moments, moments_of

EYE = torch.eye(5, dtype=torch.float64)
seeds = st.integers(min_value=0, max_value=2**16)


def between(a: Tensor, b: Tensor) -> float:
    return frechet_distance(moments(a), moments(b))


def covariance_of(features: Tensor) -> Tensor:
    return torch.cov(features.double().T).reshape(features.shape[1], -1)


def test_two_samples_of_one_gaussian_are_close() -> None:
    assert between(normal(20_000, 4, seed=1, mixed=False), normal(20_000, 4, seed=2)) == pytest.approx(0, abs=2e-3)


def test_shifted_gaussians_are_as_far_apart_as_their_means_squared() -> None:
    shift = torch.tensor([3.0, 0, -4, 0, 1], dtype=torch.float64)
    covariance = covariance_of(normal(50, 5, mixed=True))
    a, b = moments_of(torch.zeros(5), covariance, 50), moments_of(shift, covariance, 50)
    assert frechet_distance(a, b) == pytest.approx(26, rel=1e-12)
    features = normal(40, 5, mixed=True)
    assert between(features, features + shift) == pytest.approx(26, rel=1e-12)


@pytest.mark.parametrize("count", [30, 300], ids=["fewer images than dimensions", "more images"])
@pytest.mark.parametrize("scale", [0.5, 1.001, 3.0])
def test_scaled_gaussians_have_the_closed_form(count: int, scale: float) -> None:
    features = normal(count, 100, mixed=True) + 1
    expected = (scale - 1) ** 2 * (features.mean(0).square().sum() + covariance_of(features).trace())
    assert between(features, scale * features) == pytest.approx(expected.item(), rel=1e-7)


def test_commuting_covariances_have_the_closed_form() -> None:
    a, b = torch.tensor([4.0, 9, 0, 1, 16]), torch.tensor([1.0, 0, 0, 49, 25])
    rotation = torch.linalg.qr(normal(5, 5))[0]
    turned = [moments_of(torch.zeros(5), rotation @ torch.diag(each).double() @ rotation.T, 9) for each in (a, b)]
    assert frechet_distance(*turned) == pytest.approx((a.sqrt() - b.sqrt()).square().sum().item(), rel=1e-7)


@given(seeds, st.integers(min_value=1, max_value=12))
def test_general_covariances_agree_with_scipys_square_root(seed: int, dimension: int) -> None:
    a, b = (
        normal(3 * dimension + 5, dimension, seed, mixed=True),
        normal(4 * dimension + 5, dimension, seed + 1, mixed=True),
    )
    first, second = covariance_of(a).numpy(), covariance_of(b).numpy()
    apart = (a.mean(0) - b.mean(0)).square().sum().item()
    expected = apart + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert between(a, b) == pytest.approx(expected, rel=1e-6)
    given_moments = [moments_of(each.mean(0), covariance_of(each), len(each)) for each in (a, b)]
    assert frechet_distance(*given_moments) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("features", [normal(60, 90), normal(300, 90, mixed=True), normal(20, 90).repeat(9, 1)])
def test_identical_sets_are_at_no_distance(features: Tensor) -> None:
    value = between(features, features)
    assert 0 <= value <= 1e-12 * covariance_of(features).trace()


@given(seeds, st.sampled_from([(5, 40), (40, 5), (5, 6), (2, 2), (40, 300)]))
def test_few_images_give_what_their_whole_covariances_give(seed: int, counts: tuple[int, int]) -> None:
    a, b = (normal(count, 30, seed + place, mixed=True) for place, count in enumerate(counts))
    whole = [moments_of(each.mean(0), covariance_of(each), len(each)) for each in (a, b)]
    assert between(a, b) == pytest.approx(frechet_distance(*whole), rel=1e-6)


@pytest.mark.parametrize("count", [60, 400], ids=["fewer images than dimensions", "more images"])
def test_features_in_a_plane_are_as_far_apart_as_in_the_planes_own_coordinates(count: int) -> None:
    """Nearly all eigenvalues are 0: rounding, whose square roots are large and many, must not add up."""
    plane = torch.linalg.qr(normal(200, 4))[0].T
    a, b = normal(count, 4, seed=1), normal(count, 4, seed=2)
    assert between(a @ plane, b @ plane) == pytest.approx(between(a, b), rel=1e-6)


def test_many_copies_of_few_images_weigh_as_the_few() -> None:
    """More images than dimensions, and hardly any of them different: the rest of the covariance is rounding."""
    few, others = normal(5, 200, mixed=True), normal(300, 200, seed=1, mixed=True)
    centred = few - few.mean(0)
    exact = Moments(few.mean(0), centred * math.sqrt(80 / 399), 400)
    expected = frechet_distance(exact, moments(others))
    assert between(few.repeat(80, 1), others) == pytest.approx(expected, rel=5e-9)


def test_a_constant_set_has_the_mean_and_the_variance_of_the_other_as_its_distance() -> None:
    features, constant = normal(50, 7, mixed=True), torch.full((30, 7), 2.0)
    expected = (features.mean(0) - 2).square().sum() + covariance_of(features).trace()
    assert between(features, constant) == pytest.approx(expected.item(), rel=1e-12)
    assert between(features, constant[:3]) == pytest.approx(expected.item(), rel=1e-12)
    assert between(constant, constant + 1) == pytest.approx(7, rel=1e-12)
    assert between(constant, constant[:5]) == 0


def test_collapse_to_one_class_is_farther_than_another_sample_of_all_classes() -> None:
    centres = 10 * normal(4, 6, seed=9)
    real, other = (normal(400, 6, seed=seed) + centres.repeat(100, 1) for seed in (1, 2))
    collapsed = normal(400, 6, seed=3) + centres[0]
    assert between(collapsed, real) > 100 * between(other, real)


@given(seeds, st.integers(min_value=2, max_value=25), st.integers(min_value=2, max_value=25))
def test_symmetric_and_never_negative(seed: int, few: int, many: int) -> None:
    a, b = normal(few, 8, seed, mixed=True), normal(many, 8, seed + 1)
    assert between(a, b) == pytest.approx(between(b, a), rel=1e-7)
    assert between(a, b) >= 0
    assert between(a, a + 1e-9) >= 0


@given(seeds, st.integers(min_value=2, max_value=40), st.integers(min_value=1, max_value=12))
def test_neither_the_order_nor_the_blocks_matter(seed: int, count: int, rows: int) -> None:
    features, others = normal(count, 8, seed, mixed=True), normal(30, 8, seed + 1)
    with blocks_of(rows):
        value = between(shuffled(features, seed), others)
    assert value == pytest.approx(between(features, others), rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("count", [6, 60])
def test_moments_are_those_of_the_given_values_in_float64(dtype: torch.dtype, count: int) -> None:
    features = (normal(count, 20) + 3).to(dtype)
    found = moments(features)
    assert found.count == count
    assert found.mean.dtype == found.factor.dtype == torch.float64
    torch.testing.assert_close(found.mean, features.double().mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(found.factor.T @ found.factor, covariance_of(features), rtol=1e-12, atol=1e-12)
    assert len(found.factor) == min(count, 20)


def test_a_large_common_offset_costs_no_precision() -> None:
    a, b = normal(200, 6, seed=1), normal(100, 6, seed=2, mixed=True)
    assert between(a + 2.0**20, b + 2.0**20) == pytest.approx(between(a, b), rel=1e-7)


def test_many_features_are_never_copied_whole_to_float64() -> None:
    features = torch.ones(20 * BLOCK, 4) * torch.arange(4)
    assert largest_tensor(lambda: moments(features)) <= 8 * BLOCK * 4


def test_infinity_is_the_intercept_of_a_line_through_smaller_parts() -> None:
    features, reference = normal(90, 5, mixed=True), moments(normal(300, 5, seed=1))
    draws = np.random.RandomState(7)
    sizes = [9, 36, 63, 90]
    values = [frechet_distance(moments(features[draws.permutation(90)[:size]]), reference) for size in sizes]
    slope, intercept = np.polyfit([1 / size for size in sizes], values, 1)
    assert slope > 0
    assert frechet_infinity(features, reference, points=4, seed=7) == pytest.approx(intercept, rel=1e-9)


def test_infinity_takes_most_of_the_bias_of_few_images_away() -> None:
    reference = moments_of(torch.zeros(40), torch.eye(40), 10**9)
    features = normal(4000, 40)
    biased = frechet_distance(moments(features), reference)
    assert abs(frechet_infinity(features, reference)) < biased / 5
    assert frechet_infinity(features[:400], reference) < -biased  # ten images a dimension bend the line
    assert frechet_infinity(features[:40], reference) > frechet_distance(moments(features[:40]), reference)


def test_infinity_needs_two_sizes() -> None:
    reference = moments_of(torch.zeros(5), EYE, 10)
    assert math.isfinite(frechet_infinity(normal(3, 5), reference))
    with pytest.raises(ValueError, match="at least 3 are needed"):
        frechet_infinity(normal(2, 5), reference)
    with pytest.raises(ValueError, match="at least 2 points"):
        frechet_infinity(normal(20, 5), reference, points=1)


@pytest.mark.parametrize("features", BAD.values(), ids=BAD.keys())
def test_bad_features_are_refused(features: Tensor) -> None:
    with pytest.raises(ValueError, match=r"features (must have|of|hold)"):
        moments(features)


def test_features_of_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="5 and of 6 dimensions"):
        frechet_distance(moments(normal(9, 5)), moments(normal(9, 6)))


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (torch.zeros(5), torch.eye(4), "are needed, not"),
        (torch.zeros(5, 1), torch.eye(5), "are needed, not"),
        (torch.zeros(0), torch.eye(0), "are needed, not"),
        (torch.zeros(5), torch.full((5, 5), torch.nan), "NaN"),
        (torch.full((5,), torch.inf), torch.eye(5), "infinite"),
        (torch.zeros(2), torch.tensor([[1.0, 2], [0, 1]]), "not symmetric"),
        (torch.zeros(2), torch.tensor([[1.0, 2], [2, 1]]), "negative eigenvalue"),
        (torch.zeros(2), -torch.eye(2), "negative eigenvalue"),
    ],
)
def test_what_is_no_gaussian_is_refused(mean: Tensor, covariance: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moments_of(mean, covariance, 10)
