"""What a tensor really is: behind subclasses that say otherwise, and behind ``torch.func``'s transforms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.errors import MethodError

_functorch = torch._C._functorch
_LEGACY = torch._C._dispatch_key_parse("Batched")  # what is_grads_batched still uses


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (vmap, grad, jvp) is at work."""
    return _functorch.peek_interpreter_stack() is not None


def transforms() -> set[str]:
    """The transforms that are at work, by torch's names: ``Vmap``, ``Grad``, ``Jvp``, ``Functionalize``."""
    return {each.key().name for each in _functorch.get_interpreter_stack() or ()}


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a transform stands between the tensor and its numbers."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def is_batched(tensor: Tensor) -> bool:
    """Whether a tensor stands for several, by ``vmap`` or as batched gradients (``is_grads_batched``)."""
    return _functorch.is_batchedtensor(tensor) or _is_batched_gradient(tensor)


def _is_batched_gradient(tensor: Tensor) -> bool:
    return torch._C._dispatch_keys(tensor).has(_LEGACY)


def repeats(gradient: Tensor) -> int:
    """For how many gradients this one stands.

    Raises:
        MethodError: that cannot be told.
    """
    if _is_batched_gradient(gradient):
        raise MethodError("batched gradients (is_grads_batched, vectorize=True) cannot be counted: use torch.func")
    return bare(gradient, ()).numel() // max(gradient.numel(), 1) if is_wrapped(gradient) else 1


def plain(tensor: Tensor) -> Tensor:
    """The tensor without its subclass: the same numbers, with torch's own behaviour.

    Raises:
        MethodError: the subclass is no tensor of its own but stands for others.
    """
    if type(tensor) is Tensor or type(tensor) is nn.Parameter:
        return tensor
    with torch._C.DisableTorchFunctionSubclass():
        if torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.Python):
            raise MethodError(f"networks of a trial take plain tensors, not {type(tensor).__name__}")
        return tensor.as_subclass(Tensor)


def bare(tensor: Tensor, each: tuple[int, ...]) -> Tensor:
    """Everything that a tensor holds as (N, *each): what ``vmap`` hides is in N."""
    tensor = plain(tensor)
    if not is_wrapped(tensor):
        return tensor if tuple(tensor.shape[1:]) == each else tensor.reshape(-1, *each)
    while is_wrapped(tensor):
        axis = _functorch.maybe_get_bdim(tensor) if _functorch.is_batchedtensor(tensor) else -1
        tensor = _functorch.get_unwrapped(tensor)
        if axis > 0:
            tensor = tensor.movedim(axis, 0)
    return tensor.reshape(-1, *each)
