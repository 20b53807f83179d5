"""Inception Score (Salimans et al., 2016): exp of the mean divergence of an image's classes from those of all."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from bench.metrics.blocks import blocks, check_features


def inception_score(logits: Tensor) -> float:
    """The score of all images in one piece, from 1 to K, for logits (N, K).

    Raises:
        ValueError: fewer than two rows, NaN or infinity.
    """
    check_features(logits)
    return _score(logits)


def inception_score_of_splits(logits: Tensor, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation of the scores of ``splits`` random parts, as torch-fidelity has it.

    The score of a part cannot be above its number of images, so that few images give a low mean: a part of one image
    has the score 1.

    Raises:
        ValueError: fewer than two rows, NaN or infinity, fewer images than splits.
    """
    check_features(logits)
    count = len(logits)
    if splits < 1:
        raise ValueError(f"the number of splits is {splits}, it must be at least 1")
    if count < splits:
        raise ValueError(f"{count} images cannot be split into {splits} parts")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(count)).to(logits.device)
    ends = [number * count // splits for number in range(splits + 1)]
    scores = [_score(logits[order[start:end]]) for start, end in pairwise(ends)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Tensor) -> float:
    """The mean divergence is the entropy of the mean less the mean entropy, which takes one pass over the images."""
    total = torch.zeros(logits.shape[1], dtype=torch.float64, device=logits.device)
    certainty = 0.0
    for _, block in blocks(logits):
        logs = block.log_softmax(1)
        shares = logs.exp()
        total += shares.sum(0)
        certainty += (shares * logs).sum().item()
    mean = total / len(logits)
    divergence = certainty / len(logits) - torch.special.xlogy(mean, mean).sum()
    return math.exp(max(float(divergence), 0.0))
