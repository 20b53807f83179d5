"""Inception Score: closed forms, the definition written out, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from feature_sets import BAD, blocks_of, largest_tensor, normal, shuffled
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bench.metrics.inception_score import inception_score, inception_score_of_splits

seeds = st.integers(min_value=0, max_value=2**16)


def slow_score(logits: Tensor) -> float:
    shares = [[math.exp(v - max(row)) for v in row] for row in logits.double().tolist()]
    shares = [[v / sum(row) for v in row] for row in shares]
    mean = [sum(column) / len(shares) for column in zip(*shares, strict=True)]
    return math.exp(sum(p * math.log(p / q) for row in shares for p, q in zip(row, mean, strict=True)) / len(shares))


def sure(labels: list[int], classes: int) -> Tensor:
    return 1000.0 * F.one_hot(torch.tensor(labels), classes)


@given(
    seeds,
    st.integers(min_value=2, max_value=20),
    st.integers(min_value=1, max_value=8),
    st.integers(min_value=1, max_value=25),
)
def test_agrees_with_the_definition_whatever_the_blocks(seed: int, count: int, classes: int, rows: int) -> None:
    logits = 3 * normal(count, classes, seed)
    with blocks_of(rows):
        assert inception_score(logits) == pytest.approx(slow_score(logits), rel=1e-10)
        assert 1 <= inception_score(logits) <= min(classes, count) * (1 + 1e-12)


def test_sure_answers_score_the_number_of_classes_used() -> None:
    assert inception_score(sure([0, 1, 2, 3] * 5, 4)) == pytest.approx(4, rel=1e-12)
    assert inception_score(sure([0, 1] * 5, 4)) == pytest.approx(2, rel=1e-12)


def test_collapse_to_one_class_constant_and_undecided_images_score_one() -> None:
    assert inception_score(sure([3] * 20, 10)) == 1
    assert inception_score(torch.zeros(20, 10)) == pytest.approx(1, rel=1e-12)
    assert inception_score(normal(1, 10).repeat(20, 1)) == pytest.approx(1, rel=1e-12)


def test_unequal_classes_score_the_exponential_of_their_entropy() -> None:
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert inception_score(sure([0, 0, 0, 1], 3)) == pytest.approx(expected, rel=1e-12)


@given(seeds, st.floats(min_value=-50, max_value=50))
def test_neither_the_order_nor_the_level_of_logits_matters(seed: int, level: float) -> None:
    logits = normal(17, 6, seed)
    assert inception_score(shuffled(logits, seed) + level) == pytest.approx(inception_score(logits), rel=1e-9)


def test_float32_logits_are_scored_in_float64() -> None:
    logits = 5 * normal(50, 10).float()
    assert inception_score(logits) == pytest.approx(slow_score(logits), rel=1e-12)


def test_splits_are_shuffled_parts_of_nearly_equal_size() -> None:
    logits = 3 * normal(23, 5)
    order = np.random.RandomState(2020).permutation(23)
    scores = [slow_score(logits[order[start:end]]) for start, end in ((0, 5), (5, 11), (11, 17), (17, 23))]
    assert inception_score_of_splits(logits, 4) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-9)
    assert inception_score_of_splits(logits, 4, seed=1) != inception_score_of_splits(logits, 4)


def test_one_split_is_the_whole() -> None:
    logits = 3 * normal(23, 5)
    assert inception_score_of_splits(logits, 1) == (pytest.approx(inception_score(logits), rel=1e-12), 0)


def test_splits_of_one_image_score_one_and_fewer_images_than_splits_none() -> None:
    logits = 3 * normal(10, 5)
    assert inception_score_of_splits(logits, 10) == (1, 0)
    with pytest.raises(ValueError, match="9 images cannot be split into 10 parts"):
        inception_score_of_splits(logits[:9], 10)
    with pytest.raises(ValueError, match="must be at least 1"):
        inception_score_of_splits(logits, 0)


def test_many_logits_are_never_copied_whole_to_float64() -> None:
    logits = torch.rand(3000, 10)
    with blocks_of(50):
        assert largest_tensor(lambda: inception_score(logits)) <= 8 * 50 * 10


@pytest.mark.parametrize("logits", BAD.values(), ids=BAD.keys())
def test_bad_logits_are_refused(logits: Tensor) -> None:
    for score in (inception_score, lambda given: inception_score_of_splits(given, 2)):
        with pytest.raises(ValueError, match=r"features (must have|of|hold)"):
            score(logits)
