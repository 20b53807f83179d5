"""Answers that carry gradients and lead nowhere: one way to ask the teacher, wherever it is.

An answer's ``grad_fn`` is a node of the one kind below. The graph behind it, with the network's weights, stays with the
harness under a ticket, and goes when the answer does. The node's backward pass asks for gradients through that graph; a
pass that is itself to be differentiated (``create_graph``, ``torch.func.grad``) is such a node again, to any order.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as _module
from torch.utils._python_dispatch import _disable_current_modes

from bench.errors import MethodError
from bench.harness.plain_tensors import is_batched, transformed, transforms


class _Ticket:
    """Stands for a graph that the harness holds."""

    __slots__ = ("__weakref__",)


@dataclass
class _Graph:
    """A graph from ``leaves`` to ``ends``; ``passed`` is told when a gradient comes out at the first leaf."""

    leaves: tuple[Tensor, ...]
    ends: tuple[Tensor, ...]
    passed: Callable[[], None]
    shared: bool = False  # a further graph goes through this one


_graphs: weakref.WeakKeyDictionary[_Ticket, _Graph] = weakref.WeakKeyDictionary()

_SECOND_TIME = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Specify retain_graph=True if you need to backward through the graph a second time."
)


class _Question:
    """One pass through a graph that is being made."""

    def __init__(self, make: Callable[[Sequence[Tensor]], _Graph]) -> None:
        self.ticket = _Ticket()
        self.make = make


class _Sealed(torch.autograd.Function):
    @staticmethod
    def forward(question: _Question, *inputs: Tensor) -> tuple[Tensor, ...]:
        with alone(), torch.enable_grad():
            graph = question.make(inputs)
        _graphs[question.ticket] = graph
        return tuple(end.detach() for end in graph.ends)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        question, *tensors = inputs
        ctx.ticket = question.ticket
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ends = _graphs[question.ticket].ends
        ctx.mark_non_differentiable(*(out for out, end in zip(output, ends, strict=True) if not end.requires_grad))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if "Vmap" in transforms() or any(is_batched(each) for each in gradients if each is not None):
            raise MethodError(BATCHED)
        graph = _graphs.get(ctx.ticket)
        if graph is None:
            raise RuntimeError(_SECOND_TIME)
        ends, given = [], []
        for end, gradient in zip(graph.ends, gradients, strict=True):
            if gradient is not None:
                ends.append(end)
                given.append(gradient)
        wanting = [place for place, leaf in enumerate(graph.leaves) if leaf.requires_grad]
        leaves = [graph.leaves[place] for place in wanting]
        found: Sequence[Tensor | None]
        if torch.is_grad_enabled() or transformed():
            found = _differentiably(graph, ends, leaves, ctx.saved_tensors, given)
        else:
            keep = torch._C._autograd._get_current_graph_task_keep_graph()
            with alone():
                found = torch.autograd.grad(ends, leaves, given, retain_graph=keep or graph.shared, allow_unused=True)
            if not keep:
                del _graphs[ctx.ticket]
        if found[0] is not None:
            graph.passed()
        placed: list[Tensor | None] = [None] * (1 + len(graph.leaves))  # the first is the question's
        for place, gradient in zip(wanting, found, strict=True):
            placed[1 + place] = gradient
        return tuple(placed)


BATCHED = (
    "torch.vmap, jacrev, jacfwd and batched gradients over the teacher hide how much it is asked: ask about a batch of "
    "images, and for one gradient at a time"
)


FORWARD = "forward-mode derivatives (jvp, jacfwd) of the teacher are not offered: go backward"


def _differentiably(
    graph: _Graph, ends: list[Tensor], leaves: list[Tensor], inputs: Sequence[Tensor], given: list[Tensor]
) -> list[Tensor | None]:
    """The gradients of ``ends`` to ``leaves`` as a function of the graph's ``inputs`` and of ``given``."""
    wants = [gradient.requires_grad for gradient in given]
    there: list[bool] = []

    def make(tensors: Sequence[Tensor]) -> _Graph:
        own = tuple(
            gradient.detach().requires_grad_(wanted)
            for gradient, wanted in zip(tensors[len(inputs) :], wants, strict=True)
        )
        found = torch.autograd.grad(ends, leaves, own, create_graph=True, allow_unused=True)
        there[:] = [each is not None for each in found]
        graph.shared = True
        return _Graph(graph.leaves + own, tuple(each for each in found if each is not None), graph.passed, shared=True)

    answered = iter(_Sealed.apply(_Question(make), *inputs, *given))  # type: ignore[no-untyped-call]
    return [next(answered) if each else None for each in there]


def sealed(
    work: Callable[[Tensor], Sequence[Tensor]], images: Tensor, passed: Callable[[], None]
) -> tuple[Tensor, ...]:
    """What ``work`` makes of ``images``, differentiable to any order, without a way to what it does.

    Args:
        work: gives tensors; one that comes twice is handed over once, so that gradients are added up as they would be.
        images: that want a gradient.
        passed: told of every backward pass that comes out at the images.
    """
    places: list[int] = []

    def make(tensors: Sequence[Tensor]) -> _Graph:
        leaf = tensors[0].detach().requires_grad_()
        ends: dict[int, Tensor] = {}
        order = []
        for each in work(leaf):
            ends.setdefault(id(each), each)
            order.append(id(each))
        known = list(ends)
        places[:] = [known.index(each) for each in order]
        return _Graph((leaf,), tuple(ends.values()), passed)

    answers = _Sealed.apply(_Question(make), images)  # type: ignore[no-untyped-call]
    return tuple(answers[place] for place in places)


_HOOKS: tuple[dict[Any, Any], ...] = tuple(
    getattr(_module, name) for name in vars(_module) if name.startswith("_global_") and name.endswith("_hooks")
)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What is computed inside is seen by no mode, hook or tensor subclass from outside."""
    hooks = [(each, dict(each)) for each in _HOOKS if each]
    for each, _ in hooks:
        each.clear()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch._C.DisableTorchFunction())
        if torch._C._len_torch_dispatch_stack():
            stack.enter_context(_disable_current_modes())
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is))
        try:
            yield
        finally:
            for each, content in hooks:
                each.update(content)


def _as_it_is(value: Any) -> Any:
    return value
