"""Metrics of the synthetic images that need no extractor: known answers."""

from __future__ import annotations

import math

import pytest
import torch
from scene_fixtures import ByFirstPixel, images_of, noise, scored
from torch import Tensor

NAMES = ("class_balance", "confidence", "intra_class_pixel_std")


def value(name: str, images: Tensor) -> float | None:
    found = scored((name,), images)[name]["value"]
    assert found is None or isinstance(found, float)
    return found


def test_class_balance_is_entropy_over_its_maximum() -> None:
    assert value("class_balance", images_of([0, 1] * 10)) == pytest.approx(1.0)
    assert value("class_balance", images_of([1] * 10)) == 0.0
    p = 0.25
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)
    assert value("class_balance", images_of([1, 0, 0, 0] * 5)) == pytest.approx(entropy)


def test_confidence_is_the_mean_highest_probability() -> None:
    assert value("confidence", images_of([0, 1, 1])) == pytest.approx(1 / (1 + math.exp(-2)))


def test_copies_have_no_spread_and_real_spread_is_measured() -> None:
    assert value("intra_class_pixel_std", images_of([0, 1] * 10)) == 0.0
    images = images_of([0] * 10)
    images[:5, 0, 1, 1] = 255
    spread = torch.tensor([1.0] * 5 + [0.0] * 5).std().item() / 16
    assert value("intra_class_pixel_std", images) == pytest.approx(spread)
    found = scored(("intra_class_pixel_std",), images)["intra_class_pixel_std"]
    assert (found["status"], found["note"]) == ("ok", "over 1 of 2 classes")


def test_a_class_of_one_image_has_no_spread() -> None:
    lonely = scored(("intra_class_pixel_std",), images_of([0, 1]))["intra_class_pixel_std"]
    assert (lonely["value"], lonely["status"], lonely["note"]) == (None, "unavailable", "no class has two images")


def test_order_does_not_matter() -> None:
    images = noise(40)
    shuffled = images[torch.randperm(40, generator=torch.Generator().manual_seed(3))]
    for name in (*NAMES, "nearest_training_distance"):
        assert value(name, images) == pytest.approx(value(name, shuffled))


def test_copies_of_training_images_lie_at_no_distance() -> None:
    real = noise(50, 7)
    found = scored(("nearest_training_distance",), real[:20].clone(), real, noise(30, 8))["nearest_training_distance"]
    assert found["value"] == 0.0
    assert found["real_images"] == 50


def test_the_distance_to_the_nearest_training_image_is_that_of_their_pixels() -> None:
    real, images, unseen = noise(50, 7), noise(20, 1), noise(30, 8)
    found = scored(("nearest_training_distance",), images, real, unseen)["nearest_training_distance"]

    def mean_nearest(some: Tensor) -> float:
        each = [min(((a.double() - b.double()) / 255).square().mean().sqrt().item() for b in real) for a in some]
        return sum(each) / len(each)

    assert found["value"] == pytest.approx(mean_nearest(images))
    assert found["note"] == f"30 test images lie {mean_nearest(unseen):.3f} from theirs"


def test_fewer_images_than_classes_are_said_to_mean_little() -> None:
    teacher = ByFirstPixel()
    teacher.head = torch.nn.Linear(16, 30)
    found = scored(("class_balance",), noise(9), teacher=teacher, classes=30)["class_balance"]
    assert found["status"] == "unreliable"
    assert found["note"] == "9 images are fewer than the 30 classes"
    assert found["value"] > 0
