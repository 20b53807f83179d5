"""Segmentation: mean IoU, pixel accuracy and the IoU of each class, from one confusion matrix over all test pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.source import VOID


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 (classes, classes): how many pixels of class [row] were given class [column]; void pixels do not count.

    Args:
        predicted: classes, uint8 or int64, of any shape.
        labels: the true classes, of the same shape, with VOID for pixels of no class.
        classes: their number, K.
    """
    counted = labels != VOID
    pairs = labels[counted].long() * classes + predicted[counted].long()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def intersection_over_union(matrix: Tensor) -> list[float | None]:
    """The IoU of each class in [0, 1]; None for one that neither the labels nor the answers have."""
    intersection = matrix.diagonal().tolist()
    union = (matrix.sum(0) + matrix.sum(1) - matrix.diagonal()).tolist()
    return [hit / of if of else None for hit, of in zip(intersection, union, strict=True)]


def mean_iou(matrix: Tensor) -> float:
    """The mean IoU of the classes that have one, in [0, 1]; 0 when no pixel counts."""
    values = [value for value in intersection_over_union(matrix) if value is not None]
    return sum(values) / len(values) if values else 0.0


def pixel_accuracy(matrix: Tensor) -> float:
    """The share of the pixels that have a class and are given it, in [0, 1]; 0 when no pixel counts."""
    return matrix.diagonal().sum().item() / max(int(matrix.sum()), 1)
