"""What a network costs: multiply-adds, counted by torch's own formulas while it works."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def bare_copy(network: nn.Module) -> nn.Module:
    """A copy without the hooks that a copy would carry along."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return copied


class MultiplyAdds(TorchDispatchMode):
    """Counts those of the convolutions and matrix products that are computed inside; nothing is computed otherwise.

    Torch's FlopCounterMode would do, but for its hooks on every module and in every graph.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations = 0

    @property
    def total(self) -> int:
        return self._operations // 2

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        count = flop_registry.get(getattr(func, "_overloadpacket", func))
        if count is None and torch.is_inference_mode_enabled():  # products come here as parts of larger operations
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if count is not None:
            self._operations += count(*map(_as_it_is, args), **kwargs, out_val=result)
        return result


def _as_it_is(value: Any) -> Any:
    """A tensor without the subclass that may say something else of its shape."""
    odd = isinstance(value, torch.Tensor) and type(value) not in (torch.Tensor, nn.Parameter)
    return value.as_subclass(torch.Tensor) if odd else value
