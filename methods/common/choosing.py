"""Which images of a pool to train on, and how evenly their classes are spread."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lowest(scores: Tensor, share: float) -> Tensor:
    """Places of the ``share`` of finite scores (P,) that are lowest, ascending, at least one; of equals the first."""
    seen = int(scores.isfinite().sum())
    order = scores.argsort(stable=True)
    return order[: max(1, round(share * seen))].sort().values


def top_of_each_class(confidence: Tensor, classes: Tensor, share: float) -> Tensor:
    """Places of the most confident ``share`` of each class's images, rounded up, ascending.

    ``confidence`` is (P,), ``classes`` int64 (P,).
    """
    order = confidence.argsort(descending=True, stable=True)
    order = order[classes[order].argsort(stable=True)]  # class by class, the most confident first
    counts = classes.bincount()
    first = counts.cumsum(0) - counts
    of = classes[order]
    rank = torch.arange(len(order), device=order.device) - first[of]
    return order[rank < (share * counts.double()).ceil()[of]].sort().values


def above(confidence: Tensor, threshold: float, least: int) -> Tensor:
    """Places, ascending, where ``confidence`` (P,) is above a threshold; the ``least`` most confident if fewer are."""
    found = (confidence > threshold).nonzero()[:, 0]
    return found if len(found) >= least else lowest(-confidence, least / len(confidence))


def evenness(classes: Tensor, count: int) -> Tensor:
    """Entropy of the frequencies of classes, int64 (N,), over the log of their ``count``: 1 is even, 0 is one class."""
    shares = classes.bincount(minlength=count).double() / len(classes)
    entropy: Tensor = -torch.special.xlogy(shares, shares).sum()
    return entropy / math.log(count)
