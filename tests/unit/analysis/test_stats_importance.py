"""Functional ANOVA against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.analysis.stats import grid_effects, grid_importance, sample_importance


def test_a_sum_has_the_shares_of_its_terms_variances() -> None:
    first, second, third = np.array([0.0, 1.0, 5.0]), np.array([0.0, 2.0]), np.zeros(4)
    found = grid_importance(first[:, None, None] + second[:, None] + third)
    assert found is not None
    total = first.var() + second.var()
    assert found.main == pytest.approx((first.var() / total, second.var() / total, 0))
    assert list(found.pairs.values()) == pytest.approx([0, 0, 0])
    assert found.rest == pytest.approx(0)


def test_a_product_of_signs_is_interaction_alone() -> None:
    signs = np.array([-1.0, 1.0])
    two = grid_importance(np.outer(signs, signs))
    assert two is not None
    assert (two.main, two.pairs) == (pytest.approx((0, 0)), {(0, 1): pytest.approx(1)})
    three = grid_importance(np.multiply.outer(np.outer(signs, signs), signs))
    assert three is not None
    assert three.rest == pytest.approx(1)


def ishigami(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.sin(x) + 7 * np.sin(y) ** 2 + 0.1 * z**4 * np.sin(x)


def test_ishigamis_function_has_the_indices_of_its_closed_form() -> None:
    """Ishigami and Homma 1990: main effects (1 + b π⁴/5)²/2 and a²/8, and a pair of 8 b² π⁸/225."""
    places = (np.arange(60) + 0.5) / 60 * 2 * math.pi - math.pi
    found = grid_importance(ishigami(*np.meshgrid(places, places, places, indexing="ij")))
    assert found is not None
    parts = [(1 + 0.1 * math.pi**4 / 5) ** 2 / 2, 49 / 8, 0.0, 8 * 0.01 * math.pi**8 / 225]
    shares = [part / sum(parts) for part in parts]
    assert found.main == pytest.approx(shares[:3], abs=2e-3)
    assert found.pairs[0, 2] == pytest.approx(shares[3], abs=2e-3)
    assert found.pairs[0, 1] + found.pairs[1, 2] + found.rest == pytest.approx(0, abs=1e-9)


def test_scores_that_do_not_vary_have_no_importance() -> None:
    assert grid_importance(np.full((3, 3), 0.1)) is None
    assert sample_importance([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.5]) is None


@pytest.mark.parametrize("scores", [[[1.0, math.nan], [2.0, 3.0]], [[1.0, math.inf], [2.0, 3.0]]])
def test_a_grid_with_a_hole_is_refused(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="finite"):
        grid_importance(scores)


def test_cells_and_scores_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="each with a score"):
        sample_importance([[0.0], [1.0]], [0.5])


def test_a_sample_comes_near_the_closed_form_and_gives_the_same_twice() -> None:
    points = np.random.default_rng(0).random((200, 3))
    scores = (3 * points[:, 0] + points[:, 1]).tolist()  # variances 9 : 1 : 0
    found = sample_importance(points.tolist(), scores)
    assert found is not None
    assert found.main == pytest.approx((0.9, 0.1, 0), abs=0.05)
    assert found.fit is not None
    assert found.fit > 0.9
    assert found == sample_importance(points.tolist(), scores)


def test_noise_is_said_to_be_unexplained() -> None:
    random = np.random.default_rng(1)
    found = sample_importance(random.random((60, 2)).tolist(), random.random(60).tolist())
    assert found is not None
    assert found.fit is not None
    assert found.fit < 0.2


@pytest.mark.parametrize("times", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_p_values_of_noise_are_uniform_and_those_of_trials_that_go_together_too(times: int) -> None:
    """Under no effect at most 5 % are below 0.05, also where the first option's value decides a shared random part."""
    random = np.random.default_rng(0)
    together, each = [], []
    for _ in range(times):
        shared = random.normal(size=(4, 3, 1))  # one generator for all values of the second option
        found = grid_effects(shared + 0.1 * random.normal(size=(4, 3, 3)), permutations=199)
        assert found is not None
        each.append(found.each[0])
        plain = grid_effects(random.normal(size=(2, 3, 3)), permutations=199)
        assert plain is not None
        together.append(plain.together)
    most = times * 0.05 + 3 * (times * 0.05 * 0.95) ** 0.5
    assert sum(p is not None and p <= 0.05 for p in each) <= most
    assert 0 < sum(p is not None and p <= 0.05 for p in together) <= most


def test_options_without_enough_seeds_are_not_tested() -> None:
    found = grid_effects(np.arange(16.0).reshape(1, 4, 4))
    assert found is not None
    assert (found.together, found.each) == (None, (None, None))
    assert grid_effects(np.ones((2, 3, 3))) is None


def test_effects_need_an_axis_of_seeds_and_finite_scores() -> None:
    with pytest.raises(ValueError, match="axis of seeds"):
        grid_effects(np.arange(3.0))
    with pytest.raises(ValueError, match="finite"):
        grid_effects(np.array([[[0.0, np.nan]]]))
