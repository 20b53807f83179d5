"""Features as the image metrics take them: checked, and turned into float64 a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1024  # rows: of 2,048 dimensions they are 16 MiB in float64, the pairs of two blocks 8 MiB


def check_features(*sets: Tensor, rows: int = 2) -> None:
    """Whether features can be compared at all.

    Args:
        sets: features (N, D), N at least ``rows``; D and the device are the same in all.

    Raises:
        ValueError: they are not matrices, have too few rows or different dimensions, or hold NaN or infinity.
    """
    for features in sets:
        if features.ndim != 2 or not features.shape[1]:
            raise ValueError(f"features must have the shape (images, dimensions), not {tuple(features.shape)}")
        if len(features) < rows:
            raise ValueError(f"features of {len(features)} images are too few, at least {rows} are needed")
        if features.shape[1] != sets[0].shape[1]:
            raise ValueError(f"features of {sets[0].shape[1]} and of {features.shape[1]} dimensions cannot be compared")
        if not all(block.isfinite().all() for block in features.split(BLOCK)):
            raise ValueError("features hold NaN or infinite values")


def blocks(features: Tensor, shift: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """The rows of features (N, D) by blocks: where they stand, and float64 (n, D) of them, less ``shift`` (D,)."""
    for start in range(0, len(features), BLOCK):
        rows = slice(start, min(start + BLOCK, len(features)))
        block = features[rows].detach().double()
        yield rows, block if shift is None else block - shift


def mean_row(features: Tensor) -> Tensor:
    """float64 (D,): the mean of features (N, D)."""
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for _, block in blocks(features):
        total += block.sum(0)
    return total / len(features)
