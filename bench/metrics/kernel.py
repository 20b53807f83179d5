"""Kernel Inception Distance (Binkowski et al., 2018): the squared maximum mean discrepancy under ``(x.y / D + 1)³``.

All in float64 and block by block: no matrix of all pairs is kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.metrics.blocks import blocks, check_features


def kernel_mean(features: Tensor) -> float:
    """The mean of the kernel over all ordered pairs of two different rows of features (N, D).

    Raises:
        ValueError: fewer than two rows, NaN or infinity.
    """
    check_features(features)
    count = len(features)
    total = 0.0
    for rows, block in blocks(features):
        pairs = _kernel(block, block)
        total += (pairs.sum() - pairs.diagonal().sum()).item()
        for _, others in blocks(features[rows.stop :]):  # the kernel is symmetric
            total += 2 * _kernel(block, others).sum().item()
    return total / (count * (count - 1))


def kernel_distance(x: Tensor, y: Tensor, y_mean: float | None = None) -> float:
    """The unbiased estimate from all pairs of x (N, D) and y (M, D); around 0 for equal distributions, also below.

    Args:
        x, y: features; exchanging them changes nothing.
        y_mean: ``kernel_mean(y)`` where it is known already.

    Raises:
        ValueError: fewer than two rows, different dimensions, NaN or infinity.
    """
    check_features(x, y)
    between = sum(_kernel(block, others).sum().item() for _, block in blocks(x) for _, others in blocks(y))
    within = kernel_mean(x) + (kernel_mean(y) if y_mean is None else y_mean)
    return within - 2 * between / (len(x) * len(y))


def kernel_distance_of_subsets(
    x: Tensor, y: Tensor, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation (of the population) of random parts' distances, drawn as torch-fidelity draws them.

    Args:
        x, y: features (N, D) and (M, D).
        size: images of each part, without replacement; as many as the smaller set has, where that is fewer.

    Raises:
        ValueError: fewer than two rows, different dimensions, NaN or infinity, no subsets, subsets of fewer than two.
    """
    check_features(x, y)
    if subsets < 1 or size < 2:
        raise ValueError(f"at least 1 subset of 2 images is needed, not {subsets} of {size}")
    size = min(size, len(x), len(y))
    draws = np.random.RandomState(seed)
    distances = []
    for _ in range(subsets):
        parts = [torch.from_numpy(draws.choice(len(each), size, replace=False)).to(each.device) for each in (x, y)]
        distances.append(kernel_distance(x[parts[0]], y[parts[1]]))
    return float(np.mean(distances)), float(np.std(distances))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(N, M) of float64 (N, D) and (M, D)."""
    base = (x @ y.T).div_(x.shape[1]).add_(1)
    return base.square().mul_(base)  # a general power takes several times as long
