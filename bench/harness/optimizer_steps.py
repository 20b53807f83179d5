"""Optimiser steps as the harness does them: gradients for this optimiser alone, scaled, clipped, and watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from bench.errors import MethodError


class Updates:
    """Steps on losses and on known gradients; remembers whether every loss so far was finite."""

    def __init__(self, device: torch.device, precision: str) -> None:
        self.on_gradients: Callable[[Optimizer], None] = lambda optimizer: None  # noqa: ARG005
        self._device = device
        self._scaled = precision == "float16"
        self._scalers: dict[int, torch.amp.GradScaler] = {}
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    @property
    def finite(self) -> bool:
        """Whether no loss was NaN or infinite; on a GPU, asking waits for it."""
        return bool(self._finite)

    def on_loss(self, optimizer: Optimizer, loss: Tensor, clip: float | None = None) -> None:
        """See :meth:`bench.harness.session.Session.update`."""
        if loss.ndim:
            raise MethodError(f"a loss is a single number, not a tensor of shape {tuple(loss.shape)}: take its mean")
        _check_clip(clip)
        parameters = parameters_of(optimizer)
        optimizer.zero_grad(set_to_none=True)
        if not loss.requires_grad:
            raise MethodError("the loss depends on no trainable parameter (was it detached?)")
        self._finite &= torch.isfinite(loss.detach())
        with torch.autocast(self._device.type, enabled=False):
            scaler = self._scaler(optimizer) if self._scaled else None
            try:
                (loss if scaler is None else scaler.scale(loss)).backward(inputs=parameters)
            except RuntimeError as error:
                if "through the graph a second time" not in str(error):
                    raise
                raise MethodError(
                    "a backward pass went through this loss before: leave out loss.backward(), since s.update computes "
                    "the gradients; where two losses share a part, detach it for one of them"
                ) from error
        if all(parameter.grad is None for parameter in parameters):
            raise MethodError("the loss does not depend on any parameter of the optimiser: no gradient reaches them")
        self.on_gradients(optimizer)
        if clip is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            clip_grad_norm_(parameters, clip)
        if scaler is not None:
            scaler.step(optimizer)
            scaler.update()
            _clear_overflow(parameters)
        else:
            optimizer.step()

    def on_known(self, optimizer: Optimizer, gradients: Sequence[Tensor], clip: float | None = None) -> None:
        """See :meth:`bench.harness.session.Session.apply`."""
        parameters = parameters_of(optimizer)
        _check_clip(clip)
        shapes = [tuple(gradient.shape) for gradient in gradients if isinstance(gradient, Tensor)]
        if shapes != [tuple(parameter.shape) for parameter in parameters]:
            raise MethodError("apply() takes one gradient for each of the optimiser's parameters, in their order")
        norm = get_total_norm(gradients)
        self._finite &= torch.isfinite(norm)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.detach().clone()
        self.on_gradients(optimizer)
        if clip is not None:
            clip_grads_with_norm_(parameters, clip, norm)
        optimizer.step()

    def state(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """The gradient scalers of kept optimisers, by their names."""
        found = {name: self._scalers.get(id(thing)) for name, thing in kept.items()}
        return {name: scaler.state_dict() for name, scaler in found.items() if scaler is not None}

    def restore(self, state: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        for name, value in state.items():
            self._scaler(kept[name]).load_state_dict(value)

    def _scaler(self, optimizer: Optimizer) -> torch.amp.GradScaler:
        return self._scalers.setdefault(id(optimizer), torch.amp.GradScaler(self._device.type))


def _check_clip(clip: float | None) -> None:
    if clip is not None and not clip > 0:
        raise MethodError(f"clip, the largest norm of the gradients, must be above 0, not {clip:g}")


def _clear_overflow(parameters: Sequence[Tensor]) -> None:
    """Gradients of an update that was left out, since its loss was scaled too far, become 0: nothing was learned."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    fits = torch.isfinite(get_total_norm(gradients))
    for gradient in gradients:
        gradient.copy_(torch.where(fits, gradient, 0.0))


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
