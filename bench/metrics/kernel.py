"""Kernel Inception Distance (Binkowski et al., 2018): the squared maximum mean discrepancy under ``(x.y / D + 1)³``.

All in float64 and block by block: no matrix of all pairs is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    Where the parts overlap much, all pairs of the two sets are compared once, in blocks, and not those of each part.

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
    parts = [
        [torch.from_numpy(draws.choice(len(each), size, replace=False)).to(each.device) for each in (x, y)]
        for _ in range(subsets)
    ]
    (x, in_x), (y, in_y) = (_drawn(each, [part[place] for part in parts]) for place, each in enumerate((x, y)))
    if (len(x) + len(y)) ** 2 <= subsets * (2 * size) ** 2:
        within = (_sums_within(x, in_x) + _sums_within(y, in_y)) / (size * (size - 1))
        distances = (within - 2 * _sums_between(x, y, in_x, in_y) / size**2).cpu().numpy()
    else:
        chosen = [(x[in_x[:, part] > 0], y[in_y[:, part] > 0]) for part in range(subsets)]
        distances = np.array([kernel_distance(*each) for each in chosen])
    return float(np.mean(distances)), float(np.std(distances))


def _drawn(features: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The rows that are in any part, and float64 (rows, parts): 1 where a row is in a part."""
    members = torch.zeros(len(features), len(parts), dtype=torch.float64, device=features.device)
    for place, chosen in enumerate(parts):
        members[chosen, place] = 1
    used = members.any(1)
    return features[used], members[used]


def _sums_within(features: Tensor, members: Tensor) -> Tensor:
    """float64 (parts,): the sum of the kernel over the ordered pairs of two different rows of each part."""
    total = torch.zeros(members.shape[1], dtype=torch.float64, device=features.device)
    for rows, block in blocks(features):
        pairs = _kernel(block, block)
        pairs.fill_diagonal_(0)
        total += ((pairs @ members[rows]) * members[rows]).sum(0)
        for later, others in blocks(features[rows.stop :]):  # the kernel is symmetric
            columns = slice(rows.stop + later.start, rows.stop + later.stop)
            total += 2 * ((_kernel(block, others) @ members[columns]) * members[rows]).sum(0)
    return total


def _sums_between(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    """float64 (parts,): the sum of the kernel over all pairs of a part's rows of x and of y."""
    total = torch.zeros(in_x.shape[1], dtype=torch.float64, device=x.device)
    for rows, block in blocks(x):
        for columns, others in blocks(y):
            total += ((_kernel(block, others) @ in_y[columns]) * in_x[rows]).sum(0)
    return total


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(N, M) of float64 (N, D) and (M, D)."""
    base = (x @ y.T).div_(x.shape[1]).add_(1)
    return base.square().mul_(base)  # a general power takes several times as long
