"""A small scene for image metrics: two classes told by the first pixel, images of 4x4 pixels, real ones at will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import Dataset, Split
from bench.data.image_spec import ImageSpec
from bench.metrics.extractors import MetricContext
from bench.metrics.scoring import score_images
from bench.spec.task import get_task

IMAGE = ImageSpec(channels=1, size=4, mean=(0.0,), std=(1.0,))
TASK = get_task("digits/lenet5-half").model_copy(update={"image": IMAGE})


class ByFirstPixel(nn.Module):
    """Class 1 where the first pixel is bright, class 0 elsewhere, with a known confidence."""

    def __init__(self, margin: float = 2.0) -> None:
        super().__init__()
        self.body = nn.Flatten()
        self.head = nn.Linear(16, 2, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[1, 0] = margin
            self.head.weight[0, 0] = -margin

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images - 0.5))
        return logits


def images_of(classes: Sequence[int]) -> Tensor:
    """uint8 (N, 1, 4, 4), black but for the first pixel, which tells the class."""
    images = torch.zeros(len(classes), 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(classes) * 255
    return images


def noise(count: int, seed: int = 0) -> Tensor:
    """uint8 (N, 1, 4, 4) of random pixels."""
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 1, 4, 4), generator=stream, dtype=torch.uint8)


def dataset_of(train: Tensor, test: Tensor | None = None) -> Dataset:
    test = train if test is None else test
    splits = [Split(images, (images[:, 0, 0, 0] > 127).long()) for images in (train, test)]
    digest = torch.cat([train, test]).double().mul(torch.arange(1.0, 17.0).view(4, 4)).sum().item()
    return Dataset("tiny", splits[0], splits[1], ("dark", "bright"), f"{digest:.6f}", ())


def around(teacher: nn.Module | None = None, classes: int = 2, **changes: Any) -> MetricContext:
    teacher = teacher or ByFirstPixel()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    values: dict[str, Any] = {
        "task": TASK,
        "teacher": teacher.eval(),
        "teacher_sha": "ab" * 32,
        "classes": classes,
        "device": torch.device("cpu"),
        "weights": None,
        "student": ByFirstPixel(margin=1.0).eval(),
    }
    return MetricContext(**{**values, **changes})


def scored(
    names: Sequence[str], images: Tensor, train: Tensor | None = None, test: Tensor | None = None, **changes: Any
) -> dict[str, dict[str, Any]]:
    """Image metrics of ``images`` beside real ones (noise, if not given)."""
    data = dataset_of(noise(60, 99) if train is None else train, test)
    return score_images(names, images, data, around(**changes))
