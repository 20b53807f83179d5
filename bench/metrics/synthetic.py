"""Image metrics that need nothing but the teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.real import normalise
from bench.task import ImageSpec


def score_images(
    names: Sequence[str], images: Tensor, teacher: nn.Module, image: ImageSpec, classes: int
) -> dict[str, dict[str, Any]]:
    """Image metrics of uint8 images (N, C, H, W), as a record holds them: value, status, number of images, note."""
    if not names:
        return {}
    if len(images) < 2:
        return {name: _entry(None, len(images), "unavailable", "fewer than two images") for name in names}
    device = next(teacher.parameters()).device
    with torch.no_grad():
        batches = [teacher(normalise(batch.to(device), image)).softmax(1).cpu() for batch in images.split(500)]
    probabilities = torch.cat(batches)
    return {name: _FUNCTIONS[name](images, probabilities, classes) for name in names}


def _class_balance(images: Tensor, probabilities: Tensor, classes: int) -> dict[str, Any]:
    shares = torch.bincount(probabilities.argmax(1), minlength=classes).double() / len(images)
    entropy = -(shares[shares > 0] * shares[shares > 0].log()).sum().item()
    return _entry(max(entropy, 0.0) / math.log(classes), len(images))


def _confidence(images: Tensor, probabilities: Tensor, classes: int) -> dict[str, Any]:
    del classes
    return _entry(probabilities.amax(1).double().mean().item(), len(images))


def _intra_class_pixel_std(images: Tensor, probabilities: Tensor, classes: int) -> dict[str, Any]:
    labels = probabilities.argmax(1)
    pixels = images.double() / 255
    values = [pixels[labels == k].std(0).mean().item() for k in range(classes) if int((labels == k).sum()) > 1]
    if not values:
        return _entry(None, len(images), "unavailable", "no class has two images")
    note = f"over {len(values)} of {classes} classes" if len(values) < classes else ""
    return _entry(sum(values) / len(values), len(images), note=note)


def _entry(value: float | None, images: int, status: str = "ok", note: str = "") -> dict[str, Any]:
    return {"value": value, "status": status, "images": images, "note": note}


_FUNCTIONS = {
    "class_balance": _class_balance,
    "confidence": _confidence,
    "intra_class_pixel_std": _intra_class_pixel_std,
}
