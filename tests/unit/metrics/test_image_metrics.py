"""Metrics of the synthetic images that need no extractor: known answers."""

from __future__ import annotations

import math
import statistics

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


def divergence(teacher: float, student: float) -> float:
    """Of two Bernoulli distributions with logits ``teacher`` and ``student``."""
    p, q = (1 / (1 + math.exp(-logit)) for logit in (teacher, student))
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_the_distillation_loss_is_the_divergence_of_the_student_from_the_teacher() -> None:
    """A teacher whose logits are 2 apart where the student's are 1 apart, on both sides alike: no spread."""
    images = images_of([0, 1, 1])
    assert value("distillation_loss", images) == pytest.approx(divergence(2.0, 1.0))
    assert value("distillation_loss_variance", images) == pytest.approx(0.0, abs=1e-12)


def test_the_variance_is_that_over_the_images() -> None:
    """On images of grey in three strengths the logits, and with them the losses, are known."""
    images = images_of([1, 1, 1])
    images[:, 0, 0, 0] = torch.tensor([255, 204, 153], dtype=torch.uint8)  # 0.5, 0.3 and 0.1 above the middle
    each = [divergence(4 * above, 2 * above) for above in (0.5, 0.3, 0.1)]
    assert value("distillation_loss", images) == pytest.approx(statistics.fmean(each), rel=1e-5)
    assert value("distillation_loss_variance", images) == pytest.approx(statistics.variance(each), rel=1e-4)


def test_a_student_that_answers_as_its_teacher_has_no_loss_and_without_one_there_is_none() -> None:
    same = scored(("distillation_loss", "distillation_loss_variance"), noise(30), student=ByFirstPixel().eval())
    assert [entry["value"] for entry in same.values()] == [0.0, 0.0]
    alone = scored(("distillation_loss", "confidence"), noise(30), student=None)
    assert (alone["distillation_loss"]["status"], alone["confidence"]["status"]) == ("unavailable", "ok")


def test_a_student_that_fails_harms_no_other_metric() -> None:
    class Broken(torch.nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise RuntimeError("no room")

    found = scored(("distillation_loss", "class_balance", "confidence"), noise(30), student=Broken())
    assert (found["distillation_loss"]["status"], found["distillation_loss"]["note"]) == (
        "failed",
        "RuntimeError: no room",
    )
    assert (found["class_balance"]["status"], found["confidence"]["status"]) == ("ok", "ok")


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
