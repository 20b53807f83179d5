"""The Fréchet distance between two Gaussians fitted to features (Heusel et al., 2017), without a matrix square root.

``|m1 - m2|² + tr C1 + tr C2 - 2 tr sqrt(C1 C2)``. With factors ``C = F.T @ F`` the last trace is the sum of the
singular values of ``F1 @ F2.T``: both are roots of the eigenvalues of ``C1 C2``. A factor has no more rows than there
are images or dimensions, so that few images make small matrices, and a covariance of less than full rank needs no care.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.metrics.blocks import blocks, check_features, mean_row

EPSILON = torch.finfo(torch.float64).eps
PANEL = 512  # dimensions
PRECISION = 1e-7  # of a distance, relative; what it is measured against is good to 1e-6


@dataclass(frozen=True)
class Moments:
    """A Gaussian fitted to features: mean float64 (D,), covariance = factor.T @ factor with a factor float64 (M, D)."""

    mean: Tensor
    factor: Tensor
    count: int  # of images


def moments(features: Tensor) -> Moments:
    """The Gaussian of features (N, D), its covariance with N - 1 in the denominator.

    Raises:
        ValueError: fewer than two rows, NaN or infinity.
    """
    check_features(features)
    count, dimension = features.shape
    mean = mean_row(features)
    if count - 1 < dimension:
        return Moments(mean, (features.detach().double() - mean) / math.sqrt(count - 1), count)
    return Moments(mean, _factor(_covariance(features, mean)), count)


def moments_of(mean: Tensor, covariance: Tensor, count: int) -> Moments:
    """The same from a mean (D,) and a covariance (D, D) that another tool has computed from ``count`` images.

    Raises:
        ValueError: the shapes do not belong together, NaN or infinity, or no covariance: not symmetric, or with
            negative eigenvalues beyond the rounding of float32.
    """
    dimension = len(mean) if mean.ndim == 1 else 0
    if not dimension or covariance.shape != (dimension, dimension):
        shapes = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        raise ValueError(f"a mean (D,) and a covariance (D, D) are needed, not {shapes}")
    check_features(mean[None], covariance, rows=1)
    mean, covariance = mean.detach().double(), covariance.detach().double()
    if (covariance - covariance.T).abs().max() > 1e-5 * covariance.abs().max():
        raise ValueError("the covariance is not symmetric")
    return Moments(mean, _factor((covariance + covariance.T) / 2), count)


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared distance, in the features' squared unit; 0 for equal Gaussians, never below.

    Raises:
        ValueError: their dimensions differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared")
    apart = (a.mean - b.mean).square().sum() + a.factor.square().sum() + b.factor.square().sum()
    product = a.factor @ b.factor.T
    if product.shape[0] > product.shape[1]:
        product = product.T
    # Eigenvalues take less than half the time of singular values, but those that should be 0 come out at the rounding
    # of the largest, and their roots at the root of it. They will do where that is too little to change the distance.
    squares = torch.linalg.eigvalsh(product @ product.T).clamp(min=0)
    rounding = EPSILON * squares.max()
    roots = squares.sqrt()
    doubt = (rounding / (roots + rounding.sqrt()).clamp(min=torch.finfo(torch.float64).tiny)).sum()
    distance = apart - 2 * roots.sum()
    if 2 * doubt > PRECISION * distance:
        distance = apart - 2 * torch.linalg.svdvals(product).sum()
    return max(float(distance), 0.0)


def frechet_infinity(features: Tensor, reference: Moments, points: int = 15, seed: int = 2020) -> float:
    """The distance extrapolated to infinitely many images (Chong and Forsyth, 2020); may be below 0.

    Distances of ``points`` random parts of features (N, D), of sizes evenly spaced from N / 10 (at least 2) to N, lie
    about a straight line in 1 / size; this is where it meets 0. With fewer than about 20 images per dimension the line
    is bent: the value is too low, and with fewer images than dimensions it is above the distance itself.

    Raises:
        ValueError: fewer than three images or two points, NaN or infinity, dimensions that differ from the reference's.
    """
    check_features(features, rows=3)
    if points < 2:
        raise ValueError(f"a line needs at least 2 points, not {points}")
    count = len(features)
    sizes = np.linspace(max(2, count / 10), count, points).round().astype(int)
    draws = np.random.RandomState(seed)
    distances = []
    for size in sizes:
        chosen = torch.from_numpy(draws.permutation(count)[:size]).to(features.device)
        distances.append(frechet_distance(moments(features[chosen]), reference))
    return float(np.polynomial.polynomial.polyfit(1 / sizes, distances, 1)[0])


def _covariance(features: Tensor, mean: Tensor) -> Tensor:
    """float64 (D, D), from its upper half: of all products of two dimensions little more than half are computed."""
    dimension = len(mean)
    sums = torch.zeros(dimension, dimension, dtype=torch.float64, device=features.device)
    for _, block in blocks(features, mean):
        for start in range(0, dimension, PANEL):
            panel = slice(start, start + PANEL)
            sums[panel, start:].addmm_(block[:, panel].T, block[:, start:])
    return (sums.triu() + sums.triu(1).T) / (len(features) - 1)


def _factor(covariance: Tensor) -> Tensor:
    """F (M, D) with F.T @ F = covariance (D, D): Cholesky's where there is full rank, else from eigenvalues above 0.

    Raises:
        ValueError: eigenvalues far below 0.
    """
    rounding = EPSILON * len(covariance)
    triangle: Tensor
    triangle, failed = torch.linalg.cholesky_ex(covariance, upper=True)
    if not failed and triangle.diagonal().square().min() > rounding * covariance.diagonal().max():
        return triangle
    values, vectors = torch.linalg.eigh(covariance)
    largest = values[-1].clamp(min=0)
    if values[0] < -1e-5 * largest:
        raise ValueError(f"the covariance has a negative eigenvalue, {values[0].item():.3g}")
    kept = values > rounding * largest
    kept[-1] = True  # a covariance of zeros has one row of zeros
    rows: Tensor = (vectors[:, kept] * values[kept].clamp(min=0).sqrt()).T
    return rows.contiguous()
