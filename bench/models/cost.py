"""What a network costs: multiply-adds of one input, counted by torch's own counter."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def bare_copy(network: nn.Module) -> nn.Module:
    """A copy without the hooks that a copy would carry along, so that using it counts nothing."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return copied


def macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of the convolutions and matrix products for one input of ``shape`` (without the batch).

    Counted on a copy without storage, so that neither the network nor any random state is touched.
    """
    ghost = bare_copy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(torch.empty(1, *shape, device="meta"))
    return int(counter.get_total_flops()) // 2
