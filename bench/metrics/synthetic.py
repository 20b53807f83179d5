"""Image metrics that need nothing but the teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.real import normalise
from bench.task import ImageSpec

SMALL = 3 * 64 * 64  # values of an image of which 500 go through the teacher at once


def score_images(
    names: Sequence[str], images: Tensor, teacher: nn.Module, image: ImageSpec, classes: int
) -> dict[str, dict[str, Any]]:
    """Image metrics of uint8 images (N, C, H, W), as a record holds them: value, status, number of images, note.

    For segmentation the teacher's classes and confidence are those of all pixels.
    """
    if not names:
        return {}
    if len(images) < 2:
        return {name: _entry(None, len(images), "unavailable", "fewer than two images") for name in names}
    device = next(teacher.parameters()).device
    confidence, labels = [], []
    for batch in images.split(500 if images[0].numel() <= SMALL else 50):
        with torch.no_grad():
            top = teacher(normalise(batch.to(device), image)).softmax(1).max(1)
        confidence.append(top.values.cpu())
        labels.append(top.indices.cpu())
    given = (images, torch.cat(labels), torch.cat(confidence), classes)
    return {name: _FUNCTIONS[name](*given) for name in names}


def _class_balance(images: Tensor, labels: Tensor, confidence: Tensor, classes: int) -> dict[str, Any]:
    del confidence
    shares = torch.bincount(labels.flatten(), minlength=classes).double() / labels.numel()
    entropy = -(shares[shares > 0] * shares[shares > 0].log()).sum().item()
    return _entry(max(entropy, 0.0) / math.log(classes), len(images))


def _confidence(images: Tensor, labels: Tensor, confidence: Tensor, classes: int) -> dict[str, Any]:
    del labels, classes
    return _entry(confidence.double().mean().item(), len(images))


def _intra_class_pixel_std(images: Tensor, labels: Tensor, confidence: Tensor, classes: int) -> dict[str, Any]:
    del confidence
    if labels.ndim > 1:
        return _entry(None, len(images), "unavailable", "in segmentation an image has no single class")
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
