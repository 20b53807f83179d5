"""Counting what networks do, from outside: images and multiply-adds, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from bench.errors import Unsupported
from bench.models import head, linear_classifier, stages
from bench.models.cost import bare_copy, macs
from bench.models.layer_groups import LayerGroups
from bench.spec.budget import Meter


class BackwardPass:
    """Counts the backward passes through one forward pass, whether they begin at its answer or at inner features."""

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count
        self._counted = False

    def at_answer(self, _: Tensor) -> None:
        self._count()
        self._counted = True

    def at_features(self, _: Tensor) -> None:
        """After the answer, or in its place."""
        if not self._counted:
            self._count()
        self._counted = False


class Counter:
    """Hooks on networks that feed a meter while ``running`` says so.

    A backward pass through a trained network counts twice its multiply-adds (gradients to weights and to the input),
    through the frozen teacher once (to the images only).
    """

    def __init__(self, meter: Meter, image_shape: tuple[int, int, int], running: Callable[[], bool]) -> None:
        self._meter = meter
        self._image_shape = image_shape
        self._running = running
        self._last: BackwardPass | None = None  # of the last forward pass that was counted

    def watch_student(self, student: nn.Module, on_images: Callable[[Tensor], None]) -> None:
        """Count a student; ``on_images`` gets every input batch after it was counted."""
        meter = self._meter

        def forward(count: int, images: Tensor, _: Tensor) -> None:
            meter.student_images += count
            on_images(images)

        def backward(count: int) -> None:
            meter.student_backward += count

        self._watch(student, forward, backward)

    def watch_features(self, features: Tensor) -> None:
        """Features of the network that was asked last: a loss may begin there, and never reach its answer."""
        if self._last is not None and features.requires_grad:
            features.register_hook(self._last.at_features)

    def watch_copy(self, copy: nn.Module) -> None:
        """Count a trainable copy of the teacher as the teacher: whoever trains one asks it no less."""
        meter = self._meter

        def forward(count: int, _: Tensor, __: Tensor) -> None:
            meter.teacher_images += count

        def backward(count: int) -> None:
            meter.teacher_backward += count

        self._watch(copy, forward, backward)

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

        def on_forward(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if not isinstance(output, Tensor):
                return output
            output = full_precision(output)
            if not self._running() or not args:
                return output
            shape = tuple(args[0].shape[1:])
            if shape not in cost:
                cost[shape] = macs(network, shape)
            count, price = len(args[0]), cost[shape]
            self._meter.macs += count * price
            forward(count, args[0], output)
            self._last = None
            if output.requires_grad:
                self._last = BackwardPass(lambda: on_backward(count, price))
                output.register_hook(self._last.at_answer)
            return output

        def on_backward(count: int, price: int) -> None:
            self._meter.macs += 2 * count * price
            backward(count)

        network.register_forward_hook(on_forward)


def full_precision(output: Tensor) -> Tensor:
    """float32 in place of the half precision in which a network has computed: losses take sums and logarithms of it."""
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


Pooled = Literal["batch_norm", "stages"]


@dataclass(frozen=True)
class Question:
    """What a method wants to know of the teacher beside its logits."""

    features: bool = False
    batch_norm: bool = False
    pooled: Pooled | None = None
    groups: bool = False
    penultimate: bool = False
    layers: bool = False


@dataclass
class TeacherAnswer:
    """The teacher's logits and what was asked for beside them, in the order of the forward pass."""

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: Tensor | None = None  # in the logits' place, where another process answers and no more was declared
    features: list[Tensor] = field(default_factory=list)  # one, the input of the head
    statistics: list[tuple[Tensor, ...]] = field(default_factory=list)  # mean, var, running mean, running var
    means: list[Tensor] = field(default_factory=list)  # (N, C) each
    groups: list[Tensor] = field(default_factory=list)  # (N, C, h, w) each
    penultimate: list[Tensor] = field(default_factory=list)  # one, the input of the classifier
    maps: list[Tensor] = field(default_factory=list)  # (N, C, h, w) of each layer

    @property
    def pooled(self) -> Tensor:
        """(N, D), all spatial means side by side."""
        return torch.cat(self.means, 1)


class CountedTeacher:
    """A frozen teacher in evaluation mode, its answers counted."""

    def __init__(self, network: nn.Module, image_shape: tuple[int, int, int], meter: Meter) -> None:
        self.network = network.eval().requires_grad_(False)
        self._macs = macs(network, image_shape)
        self._image_shape = image_shape
        self._meter = meter

    def ask(self, images: Tensor, question: Question, *, gradients: bool) -> TeacherAnswer:
        """The network's answer to normalised images (N, C, H, W); only what is asked for is computed.

        Raises:
            Unsupported: the network has no batch norm, no stages, no layers or no linear classifier, and the question
                is about them.
        """
        answer = TeacherAnswer()
        hooks = self._tap(question, answer)
        try:
            # Without declared gradients nothing could use a graph; with them one is built if the images want it.
            with torch.set_grad_enabled(torch.is_grad_enabled() and gradients):
                entry = images.view_as(images)  # a gradient that passes here went through the teacher, and only there
                answer.logits = full_precision(self.network(entry))
        finally:
            for hook in hooks:
                hook.remove()
        count = len(images)
        self._meter.teacher_images += count
        self._meter.macs += count * self._macs
        if entry.requires_grad:
            entry.register_hook(lambda _: self._count_backward(count))
        return answer

    @cached_property
    def layers(self) -> LayerGroups:
        return LayerGroups(self.network, self._image_shape)

    def pooled_size(self, pooled: Pooled) -> int:
        """The length D of :attr:`TeacherAnswer.pooled`; no image is asked about, and nothing is counted."""
        ghost = CountedTeacher.__new__(CountedTeacher)
        ghost.network = bare_copy(self.network).to("meta")
        answer = TeacherAnswer()
        ghost._tap(Question(pooled=pooled), answer)
        with torch.no_grad():
            ghost.network(torch.empty(1, *self._image_shape, device="meta"))
        return answer.pooled.shape[1]

    def _tap(self, question: Question, answer: TeacherAnswer) -> list[RemovableHandle]:
        network = self.network
        hooks = []
        if question.features:
            hooks.append(head(network).register_forward_pre_hook(lambda _, args: answer.features.append(args[0])))
        if question.batch_norm:
            hooks += [
                layer.register_forward_pre_hook(lambda layer, args: answer.statistics.append(_moments(layer, args[0])))
                for layer in _norms(network)
            ]
        if question.pooled is not None:
            hooks += [
                module.register_forward_pre_hook(lambda _, args: answer.means.append(_spatial_mean(args[0])))
                for module in (_norms(network) if question.pooled == "batch_norm" else tapped_stages(network))
            ]
        if question.groups:
            hooks += tap_groups(network, answer.groups)
        if question.penultimate:
            hooks.append(tap_penultimate(network, answer.penultimate))
        if question.layers:
            hooks += self.layers.tap(answer.maps)
        return hooks

    def _count_backward(self, count: int) -> None:
        self._meter.teacher_backward += count
        self._meter.macs += count * self._macs


def tap_groups(network: nn.Module, into: list[Tensor]) -> list[RemovableHandle]:
    """Hooks that put the outputs of a network's stages into a list, until they are removed."""
    return [stage.register_forward_hook(lambda *call: into.append(call[2])) for stage in tapped_stages(network)]


def tap_penultimate(network: nn.Module, into: list[Tensor]) -> RemovableHandle:
    """A hook that puts the input of a network's linear classifier into a list, until it is removed."""
    return linear_classifier(network).register_forward_pre_hook(lambda _, args: into.append(args[0]))


def tapped_stages(network: nn.Module) -> list[nn.Module]:
    """The network's stages.

    Raises:
        Unsupported: it names none.
    """
    found = stages(network)
    if not found:
        raise Unsupported(f"{type(network).__name__} names no stages, and the method asks for its groups")
    return found


def _norms(network: nn.Module) -> list[nn.Module]:
    norm = nn.modules.batchnorm._BatchNorm
    found: list[nn.Module] = [module for module in network.modules() if isinstance(module, norm)]
    if not found:
        raise Unsupported(f"{type(network).__name__} has no batch norm, and the method asks for its statistics")
    return found


def _spatial_mean(value: Tensor) -> Tensor:
    """(N, C) of (N, C, ...)."""
    return value.flatten(2).mean(2) if value.ndim > 2 else value


def _moments(layer: nn.Module, value: Tensor) -> tuple[Tensor, ...]:
    running_mean, running_var = layer.running_mean, layer.running_var
    assert isinstance(running_mean, Tensor)
    assert isinstance(running_var, Tensor)
    if value.device.type == "cpu" and value.dtype in (torch.float32, torch.float64):
        mean, var = _Moments.apply(value)  # type: ignore[no-untyped-call]
    else:
        var, mean = torch.var_mean(value, dim=_all_but_channels(value), correction=0)
    return mean, var, running_mean, running_var


def _all_but_channels(value: Tensor) -> list[int]:
    return [axis for axis in range(value.ndim) if axis != 1]


class _Moments(torch.autograd.Function):
    """Mean and biased variance of each channel, in two passes: on a CPU torch's ``var_mean`` takes five times as long,
    its gradient included, and one is taken for each batch norm of the teacher."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        axes = _all_but_channels(value)
        mean = value.mean(axes, keepdim=True)
        ctx.save_for_backward(value, mean)
        return mean.flatten(), (value - mean).square_().mean(axes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_var: Tensor) -> Tensor:
        value, mean = ctx.saved_tensors
        count = value.numel() // mean.numel()
        slope = (of_var * (2 / count)).view_as(mean)
        return torch.addcmul(of_mean.view_as(mean) / count - slope * mean, slope, value)
