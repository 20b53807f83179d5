"""What an algorithm cannot do without: its forward and backward passes, written down in a run and played again bare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.desk import Desk


@dataclass
class Pass:
    """One forward pass of a network, and whether its backward pass followed."""

    network: nn.Module
    shape: tuple[int, ...]
    training: bool
    to_input: bool  # the gradient of the input was asked for
    backward: bool = False


def write_down(desk: Desk, run: Callable[[], None]) -> list[Pass]:
    """The passes of teacher, student and kept networks while ``run`` works at the desk, in their order."""
    passes: list[Pass] = []
    hooks: list[Any] = []

    def watch(network: nn.Module) -> None:
        def after(module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
            images, answer = given[0], answer[0] if isinstance(answer, tuple) else answer
            seen = Pass(module, tuple(images.shape), module.training, images.requires_grad)
            passes.append(seen)
            if answer.requires_grad:
                answer.register_hook(lambda _: setattr(seen, "backward", True))

        hooks.append(network.register_forward_hook(after))

    keep = desk.keep

    def keep_and_watch(name: str, thing: Any) -> Any:
        thing = keep(name, thing)
        if isinstance(thing, nn.Module):
            watch(thing)
        return thing

    desk.keep = keep_and_watch  # type: ignore[method-assign]
    watch(desk._teacher.network)
    watch(desk.student)
    run()
    for hook in hooks:
        hook.remove()
    return passes


def play(passes: list[Pass], teacher: nn.Module) -> None:
    """The same passes on random inputs of the same shapes: the least that the algorithm costs."""
    for each in passes:
        each.network.train(each.training)
        images = torch.randn(each.shape, requires_grad=each.to_input)
        with torch.set_grad_enabled(each.backward):
            answer = each.network(images)
        answer = answer[0] if isinstance(answer, tuple) else answer
        if each.backward:
            wanted: list[Tensor] = [] if each.network is teacher else list(each.network.parameters())
            torch.autograd.grad(answer.sum(), [*([images] if each.to_input else []), *wanted], allow_unused=True)
