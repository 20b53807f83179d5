"""Counting what networks do, from outside: images and multiply-adds, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.budget import Meter
from bench.models import head
from bench.models.cost import macs


class Counter:
    """Hooks on networks that feed a meter while ``running`` says so.

    A backward pass through a trained network counts twice its multiply-adds (gradients to weights and to the input),
    through the frozen teacher once (to the images only).
    """

    def __init__(self, meter: Meter, image_shape: tuple[int, int, int], running: Callable[[], bool]) -> None:
        self._meter = meter
        self._image_shape = image_shape
        self._running = running

    def watch_student(self, student: nn.Module, on_images: Callable[[Tensor], None]) -> None:
        """Count a student; ``on_images`` gets every input batch after it was counted."""
        meter = self._meter

        def forward(count: int, images: Tensor, _: Tensor) -> None:
            meter.student_images += count
            on_images(images)

        def backward(count: int) -> None:
            meter.student_backward += count

        self._watch(student, forward, backward)

    def watch_kept(self, network: nn.Module) -> None:
        """Count any other network of the method; outputs in the shape of images are synthesised images."""

        def forward(count: int, _: Tensor, output: Tensor) -> None:
            if tuple(output.shape[1:]) == self._image_shape:
                self._meter.synthesised_images += count

        self._watch(network, forward, lambda _: None)

    def _watch(
        self,
        network: nn.Module,
        forward: Callable[[int, Tensor, Tensor], None],
        backward: Callable[[int], None],
    ) -> None:
        cost: dict[tuple[int, ...], int] = {}

        def on_forward(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not self._running() or not isinstance(output, Tensor) or not args:
                return
            shape = tuple(args[0].shape[1:])
            if shape not in cost:
                cost[shape] = macs(network, shape)
            count, price = len(args[0]), cost[shape]
            self._meter.macs += count * price
            forward(count, args[0], output)
            if output.requires_grad:
                output.register_hook(lambda _: on_backward(count, price))

        def on_backward(count: int, price: int) -> None:
            self._meter.macs += 2 * count * price
            backward(count)

        network.register_forward_hook(on_forward)


class CountedTeacher:
    """A frozen teacher in evaluation mode, its answers counted."""

    def __init__(self, network: nn.Module, image_shape: tuple[int, int, int], meter: Meter) -> None:
        self.network = network.eval().requires_grad_(False)
        self._macs = macs(network, image_shape)
        self._meter = meter

    def ask(
        self, images: Tensor, *, gradients: bool, features: bool, batch_norm: bool
    ) -> tuple[Tensor, Tensor | None, list[tuple[Tensor, ...]]]:
        """(logits, features or None, one (mean, var, running mean, running var) for each batch-norm layer asked for)"""
        tapped: list[Tensor] = []
        statistics: list[tuple[Tensor, ...]] = []
        hooks = []
        if features:
            hooks.append(head(self.network).register_forward_pre_hook(lambda _, args: tapped.append(args[0])))
        if batch_norm:
            hooks += [
                module.register_forward_pre_hook(lambda layer, args: statistics.append(_moments(layer, args[0])))
                for module in self.network.modules()
                if isinstance(module, nn.modules.batchnorm._BatchNorm)
            ]
        try:
            # Without declared gradients nothing could use a graph; with them one is built if the images want it.
            with torch.set_grad_enabled(torch.is_grad_enabled() and gradients):
                entry = images.view_as(images)  # a gradient that passes here went through the teacher, and only there
                logits = self.network(entry)
        finally:
            for hook in hooks:
                hook.remove()
        count = len(images)
        self._meter.teacher_images += count
        self._meter.macs += count * self._macs
        if entry.requires_grad:
            entry.register_hook(lambda _: self._count_backward(count))
        return logits, tapped[0] if tapped else None, statistics

    def _count_backward(self, count: int) -> None:
        self._meter.teacher_backward += count
        self._meter.macs += count * self._macs


def _moments(layer: nn.Module, value: Tensor) -> tuple[Tensor, ...]:
    axes = [axis for axis in range(value.ndim) if axis != 1]
    var, mean = torch.var_mean(value, dim=axes, correction=0)
    running_mean, running_var = layer.running_mean, layer.running_var
    assert isinstance(running_mean, Tensor)
    assert isinstance(running_var, Tensor)
    return mean, var, running_mean, running_var
