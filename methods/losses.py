"""Losses that several methods share. Every function returns a scalar.

Logits are (N, K), or (N, K, H, W) for segmentation, where every pixel counts as an image would.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def one_hot_loss(logits: Tensor) -> Tensor:
    """Mean cross-entropy with the network's own prediction: small when it is confident (DAFL's L_oh)."""
    return F.cross_entropy(logits, logits.detach().argmax(1))


def imbalance(logits: Tensor, base: float = 10.0) -> Tensor:
    """sum_k p_k log p_k of the batch's mean prediction p: lowest, -log(K), when all classes are equally frequent.

    DAFL's L_ie takes the logarithm to base 10; others take the natural one (``base=math.e``).
    """
    logits = rows(logits)
    mean_log = torch.logsumexp(F.log_softmax(logits, dim=1), dim=0) - math.log(len(logits))
    return (mean_log.exp() * mean_log).sum() / math.log(base)


def rows(logits: Tensor) -> Tensor:
    """(N, K) as it is, (N, K, H, W) as (N * H * W, K)."""
    return logits if logits.ndim == 2 else logits.movedim(1, -1).flatten(0, 2)


def soft_cross_entropy(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """-1/N sum_n sum_c y_c log softmax(logits / tau)_c for target distributions (N, K)."""
    return -(targets * F.log_softmax(logits / temperature, dim=1)).sum(1).mean()
