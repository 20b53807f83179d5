"""What a network costs for one input, as papers state it."""

from __future__ import annotations

import torch
from torch import nn

from bench.models.cost import MultiplyAdds, bare_copy


def macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds for one input of ``shape`` (without the batch), on a copy without storage."""
    ghost = bare_copy(network).to("meta").eval()
    with MultiplyAdds() as counted, torch.no_grad():
        ghost(torch.empty(1, *shape, device="meta"))
    return counted.total
