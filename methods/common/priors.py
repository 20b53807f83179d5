"""What natural images are like: penalties on images, and the small random shifts that make them robust."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def total_variation(images: Tensor, form: Literal["l2", "l1"] = "l2") -> Tensor:
    """Sum over the four first differences (horizontal, vertical, both diagonals) of images (N, C, H, W).

    ``l2``: each one's Frobenius norm over the whole batch, as in DeepInversion; it grows with the root of the batch.
    ``l1``: each one's mean absolute value.
    """
    total: Tensor = _TotalVariation.apply(images, form)  # type: ignore[no-untyped-call]
    return total


_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
_PAIRS = (
    ((..., _ALL, _FIRST), (..., _ALL, _LAST)),
    ((..., _FIRST, _ALL), (..., _LAST, _ALL)),
    ((..., _LAST, _FIRST), (..., _FIRST, _LAST)),
    ((..., _FIRST, _FIRST), (..., _LAST, _LAST)),
)


class _TotalVariation(torch.autograd.Function):
    """With its gradient written out: autograd would pad each of eight slices to a full image and add these up,
    which takes three times as long, and is felt in every update of an inversion."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, form: str) -> Tensor:
        differences = [images[first] - images[second] for first, second in _PAIRS]
        if form == "l1":
            terms = torch.stack([each.abs().mean() for each in differences])
        else:
            terms = torch.stack([torch.linalg.vector_norm(each) for each in differences])
        ctx.form, ctx.shape = form, images.shape
        ctx.save_for_backward(terms, *differences)
        return terms.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        terms, *differences = ctx.saved_tensors
        gradient = differences[0].new_zeros(ctx.shape)
        for (first, second), each, norm in zip(_PAIRS, differences, terms, strict=True):
            if ctx.form == "l1":
                part = each.sign() * (upstream / each.numel())
            else:
                part = each * torch.where(norm > 0, upstream / norm, 0.0)
            gradient[first] += part
            gradient[second] -= part
        return gradient, None


def l2_norm(images: Tensor, per_image: bool = False) -> Tensor:
    """|x|_2 over the whole batch (DeepInversion for CIFAR), or the mean of each image's (for ImageNet)."""
    norms: Tensor = torch.linalg.vector_norm(images.flatten(1) if per_image else images.flatten()[None], dim=1)
    return norms.mean()


def jitter(images: Tensor, reach: int, stream: torch.Generator, flip: bool = False) -> Tensor:
    """One random circular shift, by up to ``reach`` pixels each way, for the whole batch; it carries the gradient.

    Args:
        images: (N, C, H, W).
        reach: the largest shift, inclusive.
        stream: ``s.generator(name, host=True)``: the shift is needed as a number.
        flip: also mirror the whole batch, every second time.
    """
    down, right, mirror = _whole(2 * reach + 1, stream) - reach, _whole(2 * reach + 1, stream) - reach, 0
    if flip:
        mirror = _whole(2, stream)
    shifted = torch.roll(images, (down, right), (2, 3))
    return shifted.flip(3) if mirror else shifted


def _whole(below: int, stream: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=stream, device=stream.device))
