"""Metrics of nearest neighbours: against loops, by hand on a line, copies and ties, and what must not matter."""

from __future__ import annotations

import pytest
import torch
from feature_sets import BAD, blocks_of, largest_tensor, normal, shuffled
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.metrics.neighbours import density_coverage, precision_recall, radii

seeds = st.integers(min_value=0, max_value=2**16)
counts = st.integers(min_value=4, max_value=14)


def line(*places: float) -> Tensor:
    return torch.tensor(places)[:, None]


def apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).square().sum().sqrt())


def slow_radii(features: Tensor, k: int) -> list[float]:
    own = range(len(features))
    return [sorted(apart(features[i], features[j]) for j in own if j != i)[k - 1] for i in own]


def slow_balls(centres: Tensor, k: int, points: Tensor) -> list[list[bool]]:
    """For each centre which points are in its ball."""
    return [[apart(centre, p) <= r for p in points] for centre, r in zip(centres, slow_radii(centres, k), strict=True)]


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def slow_precision_recall(generated: Tensor, real: Tensor, k: int) -> tuple[float, float]:
    around_real, around_generated = slow_balls(real, k, generated), slow_balls(generated, k, real)
    return share([any(column) for column in zip(*around_real, strict=True)]), share(
        [any(column) for column in zip(*around_generated, strict=True)]
    )


def slow_density_coverage(generated: Tensor, real: Tensor, k: int) -> tuple[float, float]:
    around_real = slow_balls(real, k, generated)
    return sum(map(sum, around_real)) / (k * len(generated)), share([any(row) for row in around_real])


@given(seeds, counts, counts, st.integers(min_value=1, max_value=3), st.integers(min_value=1, max_value=16))
def test_agrees_with_loops_whatever_the_blocks(seed: int, few: int, many: int, k: int, rows: int) -> None:
    generated, real = normal(few, 3, seed) + 0.5, normal(many, 3, seed + 1)
    with blocks_of(rows):
        assert radii(real, k).tolist() == pytest.approx(slow_radii(real, k), rel=1e-9)
        assert precision_recall(generated, real, k) == slow_precision_recall(generated, real, k)
        assert density_coverage(generated, real, k) == slow_density_coverage(generated, real, k)


@given(seeds, counts, counts, st.integers(min_value=1, max_value=3), st.integers(min_value=1, max_value=16))
def test_ties_and_copies_are_exact_whatever_the_order_and_the_blocks(
    seed: int, few: int, many: int, k: int, rows: int
) -> None:
    """Points of a small grid: many coincide, many lie on the edge of a ball. The loops are exact for whole numbers."""
    stream = torch.Generator().manual_seed(seed)
    generated, real = (torch.randint(-3, 4, (count, 2), generator=stream).float() for count in (few, many))
    with blocks_of(rows):
        mixed = shuffled(generated, seed), shuffled(real, seed)
        assert precision_recall(*mixed, k) == slow_precision_recall(generated, real, k)
        assert density_coverage(*mixed, k) == pytest.approx(slow_density_coverage(generated, real, k), rel=1e-12)


def test_by_hand_on_a_line() -> None:
    real, generated = line(0, 1, 2, 10), line(0.5, 4, 18, 30)
    assert radii(real, 1).tolist() == [1, 1, 1, 8]
    assert radii(real, 2).tolist() == [2, 1, 2, 9]
    assert precision_recall(generated, real, k=1) == (3 / 4, 4 / 4)  # balls of the generated: 3.5, 3.5, 12, 12
    assert precision_recall(real, generated, k=1) == (4 / 4, 3 / 4)
    assert density_coverage(generated, real, k=1) == (4 / 4, 3 / 4)  # 0.5 is in two balls, 4 and 18 in that of 10
    assert density_coverage(generated, real, k=2) == (6 / 8, 4 / 4)  # 4 is on the edge of that of 2


@pytest.mark.parametrize("k", [1, 5])
def test_identical_sets(k: int) -> None:
    features = normal(60, 9)
    assert precision_recall(features, shuffled(features), k) == (1, 1)
    assert density_coverage(features, shuffled(features), k) == (pytest.approx((k + 1) / k, rel=1e-12), 1)


def test_two_samples_of_one_distribution() -> None:
    generated, real = normal(600, 4, seed=1), normal(500, 4, seed=2)
    precision, recall = precision_recall(generated, real, k=3)
    density, coverage = density_coverage(generated, real, k=5)
    assert min(precision, recall) > 0.8
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.03)  # Naeem et al.: 1 - 1 / 2^k for as many images of each


def test_sets_far_apart_have_nothing_in_common() -> None:
    generated, real = normal(30, 4), normal(20, 4, seed=1) + 1000
    assert precision_recall(generated, real) == (0, 0)
    assert density_coverage(generated, real) == (0, 0)


def test_collapse_to_one_class_keeps_precision_and_loses_recall_and_coverage() -> None:
    centres = 50 * normal(5, 6, seed=9)
    real = normal(200, 6, seed=1) + centres.repeat(40, 1)
    collapsed = 0.8 * normal(200, 6, seed=2) + centres[0]
    precision, recall = precision_recall(collapsed, real)
    density, coverage = density_coverage(collapsed, real)
    assert precision > 0.8
    assert density > 0.8
    assert max(recall, coverage) <= 0.2


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
@pytest.mark.parametrize("offset", [0, 100])
def test_copies_are_at_no_distance(scale: float, offset: float) -> None:
    """float32 features of many dimensions, in which a matrix product of a row with itself is not its squared length."""
    originals = ((normal(12, 500) + offset) * scale).float()
    real, generated = originals.repeat(4, 1), shuffled(originals.repeat(5, 1))
    with blocks_of(7):
        assert radii(real, 3).eq(0).all()
        assert radii(real, 4).gt(0).all()
        assert precision_recall(generated, real, k=3) == (1, 1)
        assert density_coverage(generated, real, k=3) == (pytest.approx(4 / 3), 1)
        assert precision_recall(generated + scale, real, k=3) == (0, 0)


def test_constant_sets() -> None:
    constant = torch.full((10, 4), 0.1)
    assert radii(constant, 3).eq(0).all()
    assert precision_recall(constant, constant[:6]) == (1, 1)
    assert density_coverage(constant, constant[:6]) == (6 / 5, 1)
    assert precision_recall(constant, constant + 0.001) == (0, 0)
    assert density_coverage(constant, constant + 0.001) == (0, 0)


def test_copies_of_one_real_image_are_precise_and_cover_next_to_nothing() -> None:
    real = normal(50, 6)
    generated = real[:1].repeat(40, 1)
    assert precision_recall(generated, real) == (1, 1 / 50)
    assert 1 / 50 <= density_coverage(generated, real)[1] < 0.5


@given(seeds, st.floats(min_value=-1e3, max_value=1e3), st.floats(min_value=1e-3, max_value=1e3))
def test_moving_and_scaling_all_features_changes_nothing(seed: int, shift: float, scale: float) -> None:
    generated, real = normal(15, 5, seed), normal(12, 5, seed + 1)
    moved = [each * scale + shift for each in (generated, real)]
    assert precision_recall(*moved) == precision_recall(generated, real)
    assert density_coverage(*moved) == density_coverage(generated, real)


def test_known_radii_are_taken_as_they_are() -> None:
    generated, real = normal(15, 5), normal(12, 5, 1)
    for metric, k in ((precision_recall, 3), (density_coverage, 5)):
        assert metric(generated, real, k, radii(real, k)) == metric(generated, real, k)
    assert density_coverage(generated, real, 5, torch.full((12,), 1e3)) == (12 / 5, 1)
    assert precision_recall(generated, real, 3, torch.full((12,), 1e-9))[0] == 0


def test_no_matrix_of_all_pairs_is_made() -> None:
    generated, real = torch.rand(700, 8), torch.rand(500, 8)
    limit = 8 * 700 * 5  # the nearest of each row, which are kept
    with blocks_of(32):
        for metric in (precision_recall, density_coverage):
            assert largest_tensor(lambda metric=metric: metric(generated, real)) <= limit  # type: ignore[misc]


@pytest.mark.parametrize("features", BAD.values(), ids=BAD.keys())
def test_bad_features_are_refused(features: Tensor) -> None:
    good = normal(8, 3)
    attempts = [
        lambda: radii(features, 1),
        lambda: precision_recall(features, good, 1),
        lambda: precision_recall(good, features, 1),
        lambda: density_coverage(features, good, 1),
        lambda: density_coverage(good, features, 1),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=r"features (must have|of|hold)"):
            attempt()


def test_too_few_images_for_the_neighbours_are_refused() -> None:
    good = normal(8, 3)
    for attempt in (
        lambda: radii(good, 8),
        lambda: precision_recall(good[:3], good),
        lambda: precision_recall(good, good[:3]),
        lambda: density_coverage(good, good[:5]),
    ):
        with pytest.raises(ValueError, match=r"images have no \d neighbours each, at least \d are needed"):
            attempt()
    assert density_coverage(good[:2], good)[0] >= 0  # only the real ones need neighbours


def test_no_neighbours_other_dimensions_and_foreign_radii_are_refused() -> None:
    good = normal(8, 3)
    with pytest.raises(ValueError, match="must be at least 1"):
        radii(good, 0)
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        precision_recall(good, normal(8, 4))
    with pytest.raises(ValueError, match="do not belong to features of 8 real images"):
        density_coverage(good, good, 5, torch.ones(7))
