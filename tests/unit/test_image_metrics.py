"""Metrics of the synthetic images that need nothing but the teacher: known answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bench.metrics import METRICS
from bench.metrics.synthetic import score_images
from bench.task import ImageSpec

IMAGE = ImageSpec(channels=1, size=4, mean=(0.0,), std=(1.0,))
NAMES = ("class_balance", "confidence", "intra_class_pixel_std")


class ByFirstPixel(nn.Module):
    """Class 1 where the first pixel is bright, class 0 elsewhere, with a known confidence."""

    def __init__(self, margin: float = 2.0) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.tensor(margin))

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, 0, 0, 0] > 0.5
        return torch.stack([torch.where(bright, 0.0, self.margin), torch.where(bright, self.margin, 0.0)], 1)


def images_of(classes: list[int]) -> Tensor:
    images = torch.zeros(len(classes), 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(classes) * 255
    return images


def value(name: str, images: Tensor) -> float | None:
    found = score_images((name,), images, ByFirstPixel(), IMAGE, 2)[name]["value"]
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


def test_too_few_images_make_a_metric_unavailable() -> None:
    scored = score_images(NAMES, images_of([0]), ByFirstPixel(), IMAGE, 2)
    assert {entry["status"] for entry in scored.values()} == {"unavailable"}
    assert {entry["value"] for entry in scored.values()} == {None}
    lonely = score_images(("intra_class_pixel_std",), images_of([0, 1]), ByFirstPixel(), IMAGE, 2)
    assert lonely["intra_class_pixel_std"]["note"] == "no class has two images"


def test_order_does_not_matter() -> None:
    images = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8)
    shuffled = images[torch.randperm(40)]
    for name in NAMES:
        assert value(name, images) == pytest.approx(value(name, shuffled))


def test_every_offered_metric_is_declared_within_its_bounds() -> None:
    scored = score_images(NAMES, torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8), ByFirstPixel(), IMAGE, 2)
    assert {metric.name for metric in METRICS.values() if metric.kind == "image"} == set(NAMES)
    for name, entry in scored.items():
        metric = METRICS[name]
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low <= entry["value"] <= metric.high
