"""Only operations that repeat bit for bit, and a way to do without the one of them that torch lacks on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_of_torch = functional.cross_entropy


def only_deterministic(wanted: bool) -> None:
    """Allow only operations that repeat bit for bit, or all of them; torch's own raise RuntimeError where they cannot.

    Its cross-entropy of a map of labels is such a one on a GPU. Segmentation rests on it, so that meanwhile the same
    sum is taken over a list of pixels, which repeats. On a CPU, and for plain classes, it stays torch's own.
    """
    torch.use_deterministic_algorithms(wanted)
    # Filling fresh memory would guard against operations that read it unset, and costs about 7 % of a step (AlexNet).
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    functional.cross_entropy = cross_entropy if wanted else _of_torch


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """:func:`torch.nn.functional.cross_entropy`, of the pixels as a list where the map's sum does not repeat."""
    maps = isinstance(input, Tensor) and input.is_cuda and input.ndim > 2  # torch tells of what is no tensor
    if maps and reduction != "none" and not target.is_floating_point():
        input, target = as_list(input, target)
    return _of_torch(input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing)


def as_list(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K, ...) and (N, ...) as (N * ..., K) and (N * ...,)."""
    return logits.movedim(1, -1).flatten(0, -2), labels.flatten()
