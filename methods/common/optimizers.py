"""The student's optimiser, as the papers describe it: Adam or SGD, constant, stepped or cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch.nn import Parameter
from torch.optim import SGD, Adam, Optimizer


def student_optimizer(
    parameters: Iterable[Parameter], name: str, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
) -> Optimizer:
    """``adam`` (betas 0.9, 0.999) or ``sgd`` with plain momentum; both add weight_decay * w to the gradient."""
    if name == "adam":
        return Adam(parameters, lr, weight_decay=weight_decay)
    return SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def scheduled(lr: float, schedule: str, progress: float, milestones: Sequence[float] = (), gamma: float = 0.1) -> float:
    """The learning rate at ``progress`` (0 to 1).

    ``constant``; ``cosine`` to 0; ``milestones``: times ``gamma`` after each of the given shares of the way.

    >>> scheduled(0.1, "milestones", 0.5, milestones=(0.4, 0.8))
    0.01
    """
    if schedule == "cosine":
        return lr * (1 + math.cos(math.pi * progress)) / 2
    if schedule == "milestones":
        return lr / (1 / gamma) ** sum(progress >= share for share in milestones)
    return lr
