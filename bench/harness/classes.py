"""The class that an answer is for."""

from __future__ import annotations

from torch import Tensor


def classes_of(logits: Tensor) -> Tensor:
    """The class with the largest logit: int64 (N, ...) of (N, K, ...).

    The first of several largest, and the first NaN, as ``argmax(1)`` has it. Of maps, which are not contiguous along
    the classes, torch finds the maximum four to ten times as fast as its place alone.
    """
    return logits.max(1).indices
