"""What natural images are like: penalties on images, and the small random shifts that make them robust."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def total_variation(images: Tensor, form: Literal["l2", "l1"] = "l2") -> Tensor:
    """Sum over the four first differences (horizontal, vertical, both diagonals) of images (N, C, H, W).

    ``l2``: each one's Frobenius norm over the whole batch, as in DeepInversion; it grows with the root of the batch.
    ``l1``: each one's mean absolute value.
    """
    differences = (
        images[..., :, :-1] - images[..., :, 1:],
        images[..., :-1, :] - images[..., 1:, :],
        images[..., 1:, :-1] - images[..., :-1, 1:],
        images[..., :-1, :-1] - images[..., 1:, 1:],
    )
    if form == "l1":
        return torch.stack([each.abs().mean() for each in differences]).sum()
    return torch.stack([torch.linalg.vector_norm(each) for each in differences]).sum()


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
