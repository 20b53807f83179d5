"""CMI's contrast: every synthetic image is to be told from all others, in the batch and in a bank of earlier ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceHead(nn.Module):
    """Linear, ReLU, linear, unit L2 norm: raw features (N, width) to (N, size)."""

    def __init__(self, width: int, size: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, size))

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.layers(features), dim=1)


def contrast(
    head: nn.Module,
    local: Tensor,
    global_: Tensor,
    cached: tuple[Tensor, Tensor] | None = None,
    temperature: float = 0.1,
) -> Tensor:
    """L_cr: cross-entropy of each local view's similarities l . sg(g) / tau with all global views, its own the target.

    The mean over the batch's rows, and, where the bank gave some, the mean over the cached rows; all of them are seen
    by the present head. Nothing is learned through the global side (sg).

    Args:
        head: raw features to unit vectors.
        local: raw features (N, D) of the local views.
        global_: of the global views, in the same order.
        cached: pairs (M, D) from :class:`methods.common.pools.FeatureBank`; None or empty where there are none.
        temperature: tau.
    """
    if cached is not None and len(cached[0]):
        local, global_ = torch.cat([local, cached[0]]), torch.cat([global_, cached[1]])
    with torch.no_grad():
        targets = head(global_)
    similar = (head(local) / temperature) @ targets.T  # the vectors are smaller than the products
    losses = F.cross_entropy(similar, torch.arange(len(similar), device=similar.device), reduction="none")
    own = len(losses) - (len(cached[0]) if cached is not None else 0)
    return losses[:own].mean() + (losses[own:].mean() if own < len(losses) else 0.0)
