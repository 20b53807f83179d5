"""Learning an initialisation: copies of a network, gradients that are added up, statistics that are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench import BatchNormStatistics


@torch.no_grad()
def normal_weights(network: nn.Module, stream: torch.Generator, std: float = 0.02) -> None:
    """Start over as CMI does: weights N(0, std^2), of batch norm N(1, std^2), biases 0, running statistics fresh."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.weight.normal_(0.0, std, generator=stream)
        elif isinstance(module, _BatchNorm):
            module.reset_running_stats()
            if module.affine:
                module.weight.normal_(1.0, std, generator=stream)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Put all parameters and buffers of one network into another of the same kind, in place."""
    for own, other in zip(_tensors(target), _tensors(source), strict=True):
        own.copy_(other)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


class GradientSum:
    """Gradients of a network's parameters, added up over steps; keep it: ``s.keep("sum", GradientSum(network))``."""

    def __init__(self, network: nn.Module) -> None:
        self.sums = [torch.zeros_like(parameter) for parameter in network.parameters()]

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Add what lies in the parameters' ``grad``: after ``s.update``, the gradients of that update."""
        for own, parameter in zip(self.sums, network.parameters(), strict=True):
            if parameter.grad is not None:
                own.add_(parameter.grad)

    def take(self) -> list[Tensor]:
        """The sums, for ``s.apply(optimizer, ...)``; from here on they start at 0."""
        taken = [each.clone() for each in self.sums]
        for each in self.sums:
            each.zero_()
        return taken

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for own, saved in zip(self.sums, state["sums"], strict=True):
            own.copy_(saved)


def reptile(meta: Iterable[Tensor], inner: Iterable[Tensor], factor: float = 67.0) -> list[Tensor]:
    """Reptile's gradients for the meta parameters: factor * (meta - inner)."""
    return [factor * (own.detach() - other.detach()) for own, other in zip(meta, inner, strict=True)]


class BatchNormAverage:
    """Fast-DFKD's exponential average of a batch's statistics; keep it.

    What is compared with the running statistics is (1 - m) * batch + m * average, with a gradient through the batch's
    part alone; before the first :meth:`update`, the batch's statistics themselves.
    """

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self._past: list[tuple[Tensor, Tensor]] = []

    def blend(self, statistics: Sequence[BatchNormStatistics]) -> tuple[BatchNormStatistics, ...]:
        if not self._past:
            return tuple(statistics)
        m = self.momentum
        return tuple(
            replace(
                entry,
                mean=(1 - m) * entry.mean + m * mean.to(entry.mean),
                var=(1 - m) * entry.var + m * var.to(entry.var),
            )
            for entry, (mean, var) in zip(statistics, self._past, strict=True)
        )

    def update(self, statistics: Sequence[BatchNormStatistics]) -> None:
        """Once a call of the synthesis, with the plain statistics of its last iteration."""
        self._past = [(entry.mean.detach(), entry.var.detach()) for entry in self.blend(statistics)]

    def state_dict(self) -> dict[str, Any]:
        return {"past": [list(pair) for pair in self._past]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._past = [(pair[0], pair[1]) for pair in state["past"]]
