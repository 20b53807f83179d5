"""Which images of a pool are chosen: each rule against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.common.choosing import above, evenness, lowest, top_of_each_class

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("share", [0.1, 0.468, 1.0])
def test_the_lowest_scores_are_chosen_of_those_that_were_seen(share: float) -> None:
    scores = RANDOM.exponential(1, 50)
    scores[[3, 30, 44]] = math.inf  # not looked at
    expected = sorted(sorted(range(50), key=lambda place: scores[place])[: round(share * 47)])
    assert lowest(torch.tensor(scores), share).tolist() == expected


def test_at_least_one_image_is_chosen_and_of_equals_the_first() -> None:
    assert lowest(torch.tensor([math.inf, 2.0, 1.0, 1.0]), 0.01).tolist() == [2]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_the_surest_of_each_class_are_chosen(share: float) -> None:
    classes, confidence = RANDOM.choice(6, 80, p=[0.5, 0.3, 0.1, 0.06, 0.04, 0.0]), RANDOM.random(80)
    expected: list[int] = []
    for k in range(6):
        own = sorted((i for i in range(80) if classes[i] == k), key=lambda i: -confidence[i])
        expected += own[: math.ceil(share * len(own))]
    found = top_of_each_class(torch.tensor(confidence), torch.tensor(classes), share)
    assert found.tolist() == sorted(expected)
    assert set(classes[found.numpy()]) == set(classes)


def test_those_above_a_threshold_are_chosen_and_never_fewer_than_wanted() -> None:
    confidence = torch.tensor([0.2, 0.9, 0.5, 0.7, 0.95])
    assert above(confidence, 0.5, 1).tolist() == [1, 3, 4]
    assert above(confidence, 0.92, 3).tolist() == [1, 3, 4]
    assert above(confidence, 1.0, 5).tolist() == [0, 1, 2, 3, 4]


def test_evenness_is_the_entropy_of_the_classes_over_its_largest() -> None:
    assert evenness(torch.arange(10), 10).item() == pytest.approx(1)
    assert evenness(torch.full((9,), 4), 10).item() == 0
    shares = np.array([0.5, 0.25, 0.25])
    expected = -(shares * np.log(shares)).sum() / np.log(10)
    assert evenness(torch.tensor([7, 7, 1, 2]), 10).item() == pytest.approx(expected)
