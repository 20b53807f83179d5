"""The registry of networks. Each family has a file of its own; importing this one imports no torch.

A network's ``head`` is the module from its features to the logits: the features of a method's ``features=True`` are the
head's input, as the papers define them. Its last linear layer is the classifier.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.task import ImageSpec

NETWORKS: Mapping[str, str] = {
    "lenet5": "bench.models.lenet:lenet5",
    "lenet5-half": "bench.models.lenet:lenet5_half",
}


def build(name: str, image: ImageSpec, classes: int) -> nn.Module:
    """A network with fresh weights, drawn from torch's global random state.

    Raises:
        UserError: no such network, or it does not take this image size.
    """
    if name not in NETWORKS:
        raise UserError(f"unknown network {name!r}{nearest(name, NETWORKS)}")
    module, _, function = NETWORKS[name].partition(":")
    network: nn.Module = getattr(importlib.import_module(module), function)(image, classes)
    return network


def head(network: nn.Module) -> nn.Module:
    """The module whose input is the network's features."""
    found = getattr(network, "head", None)
    if found is None:
        raise UserError(f"{type(network).__name__} has no `head`; its features are not defined")
    module: nn.Module = found
    return module


def classifier_weight(network: nn.Module) -> Tensor:
    """The weight (classes, features) of the last linear layer."""
    from torch import nn

    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError(f"{type(network).__name__} has no linear layer; its class templates are not defined")
    return layers[-1].weight
