"""Metrics of nearest neighbours in features: precision and recall, density and coverage.

Distances are Euclidean, from matrix products in float64, block by block: no matrix of all pairs is kept. A product
leaves rounding errors where two rows are equal or a row lies exactly on the edge of a ball. Squares below ``ROUNDING``
of the rows' own squared lengths (about the mean of the reference) are therefore 0, and balls are closed and larger by
as much: a copy is at distance 0 and inside every ball that its original is in, whatever the order and the blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.metrics.blocks import blocks, check_features, mean_row

ROUNDING = 1e-12  # a float64 product of 2,048 terms is off by at most 5e-13; float32's own steps are 1e-14 squared


def radii(features: Tensor, k: int) -> Tensor:
    """float64 (N,): the distance of each row of features (N, D) to the k-th nearest of the other rows.

    Raises:
        ValueError: k below 1, no more than k rows, NaN or infinity.
    """
    check_features(features)
    _check_neighbours(features, k)
    shift = mean_row(features)
    nearest = torch.full((len(features), k), torch.inf, dtype=torch.float64, device=features.device)
    for rows, block in blocks(features, shift):
        squares = _squares(block, block)[0].fill_diagonal_(torch.inf)
        nearest[rows] = _smallest(nearest[rows], squares)
        for later, others in blocks(features[rows.stop :], shift):
            columns = slice(rows.stop + later.start, rows.stop + later.stop)
            squares = _squares(block, others)[0]
            nearest[rows] = _smallest(nearest[rows], squares)
            nearest[columns] = _smallest(nearest[columns], squares.T)
    return nearest.max(1).values.sqrt()


def precision_recall(
    generated: Tensor, real: Tensor, k: int = 3, real_radii: Tensor | None = None
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al., 2019), both in [0, 1].

    Precision is the share of the generated rows that are within the distance of a real row to its k-th neighbour among
    the real; recall is the share of the real rows within that of a generated row among the generated.

    Args:
        generated, real: features (N, D) and (M, D).
        real_radii: ``radii(real, k)`` where they are known already.

    Raises:
        ValueError: k below 1, no more than k rows, different dimensions, NaN or infinity.
    """
    check_features(generated, real)
    _check_neighbours(generated, k)
    around_real = _radii_of_real(real, k, real_radii).square()
    around_generated = radii(generated, k).square()
    shift = mean_row(real)
    hits = 0
    found = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, block in blocks(generated, shift):
        inside = torch.zeros(len(block), dtype=torch.bool, device=real.device)
        for columns, others in blocks(real, shift):
            squares, rounding = _squares(block, others)
            least = squares.sub_(rounding)
            inside |= (least <= around_real[columns]).any(1)
            found[columns] |= (least <= around_generated[rows, None]).any(0)
        hits += int(inside.sum())
    return hits / len(generated), int(found.sum()) / len(real)


def density_coverage(
    generated: Tensor, real: Tensor, k: int = 5, real_radii: Tensor | None = None
) -> tuple[float, float]:
    """Density, at least 0 and about 1 for equal distributions, and coverage, in [0, 1] (Naeem et al., 2020).

    Around each real row is a ball that reaches to its k-th neighbour among the real. Density is the number of balls
    that a generated row is in, over k, on average; coverage is the share of the balls that a generated row is in.
    Balls are closed, as those of precision are; the authors' code has open ones, which differs when sets share rows:
    of two identical sets without ties the density is (k + 1) / k here and 1 there.

    Args:
        generated, real: features (N, D) and (M, D).
        real_radii: ``radii(real, k)`` where they are known already.

    Raises:
        ValueError: k below 1, no more than k real rows, different dimensions, NaN or infinity.
    """
    check_features(generated, real)
    around = _radii_of_real(real, k, real_radii).square()
    shift = mean_row(real)
    hits = 0
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for _, block in blocks(generated, shift):
        for columns, others in blocks(real, shift):
            squares, rounding = _squares(block, others)
            inside = squares.sub_(rounding) <= around[columns]
            hits += int(inside.sum())
            covered[columns] |= inside.any(0)
    return hits / (k * len(generated)), int(covered.sum()) / len(real)


def _squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of float64 rows (N, D) and (M, D), and what may be their rounding error: both (N, M)."""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    rounding = lengths * ROUNDING
    squares = lengths.addmm_(x, y.T, alpha=-2)
    return squares.masked_fill_(squares <= rounding, 0), rounding


def _smallest(known: Tensor, more: Tensor) -> Tensor:
    """The k smallest of each row of known (N, k) and more (N, M), in no order."""
    k = known.shape[1]
    found = more.topk(min(k, more.shape[1]), dim=1, largest=False, sorted=False).values
    return torch.cat([known, found], dim=1).topk(k, dim=1, largest=False, sorted=False).values


def _radii_of_real(real: Tensor, k: int, known: Tensor | None) -> Tensor:
    _check_neighbours(real, k)
    if known is None:
        return radii(real, k)
    if known.shape != (len(real),):
        raise ValueError(
            f"radii of the shape {tuple(known.shape)} do not belong to features of {len(real)} real images"
        )
    return known.to(real.device, torch.float64)


def _check_neighbours(features: Tensor, k: int) -> None:
    if k < 1:
        raise ValueError(f"the number of neighbours is {k}, it must be at least 1")
    if len(features) <= k:
        raise ValueError(f"{len(features)} images have no {k} neighbours each, at least {k + 1} are needed")
