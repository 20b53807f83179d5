"""Test images for a task without any: half smooth noise, half images of a small random generator that is never trained.

A student can be compared with its teacher on them, and that is all: nothing on them is what the networks were made for.
They come from a fixed seed and depend on the task's geometry and normalisation alone, in double precision, so that
machines agree on the bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import decoded

if TYPE_CHECKING:
    from torch import Generator, Tensor

COUNT = 512  # images; the first half is smooth noise
SEED = 20261129
GRIDS = (2, 4, 8, 16)  # sides of the grids of noise that are enlarged and added up, in images at least twice as large
LATENT, WIDTH, UPS = 64, 16, 3  # of the generator: entries of its input, channels, doublings


def synthetic_images(channels: int, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (512, channels, size, size); made once and kept in the cache.

    A normalised value v becomes the pixel 255 * (v * std + mean), cut off at 0 and 255; ``mean`` and ``std`` have a
    number for each channel.
    """
    code = Path(__file__)
    facts = hashlib.sha256(json.dumps([channels, list(mean), list(std)]).encode()).hexdigest()[:12]
    kept = decoded.cached(
        f"synthetic-{facts}", code.parent, [code], size, lambda: {"images": _make(channels, size, mean, std)}
    )
    return kept["images"]


def _make(channels: int, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    import torch

    stream = torch.Generator().manual_seed(SEED)
    half = COUNT // 2
    with torch.no_grad():
        values = torch.cat([_smooth(half, channels, size, stream), _generated(half, channels, size, stream)])
    scale, shift = (torch.tensor(list(each), dtype=torch.float64).view(1, -1, 1, 1) for each in (std, mean))
    # rounded as bench.data.images.resize rounds: the last bit of a sum depends on the processor
    return (255 * (values * scale + shift) + (0.5 + 1e-6)).floor().clamp(0, 255).to(torch.uint8)


def _smooth(count: int, channels: int, size: int, stream: Generator) -> Tensor:
    """Sums of enlarged noise, float64: each image is as coarse as chance has it."""
    import torch
    from torch.nn.functional import interpolate

    total = torch.zeros(count, channels, size, size, dtype=torch.float64)
    for side in (each for each in GRIDS if 2 * each <= size):
        noise = torch.randn(count, channels, side, side, generator=stream, dtype=torch.float64)
        weight = torch.rand(count, 1, 1, 1, generator=stream, dtype=torch.float64)
        total += weight * interpolate(noise, size=(size, size), mode="bilinear")
    return _spread(total, stream)


def _generated(count: int, channels: int, size: int, stream: Generator) -> Tensor:
    """What a random network makes of random vectors, float64."""
    import torch
    from torch.nn.functional import conv2d, instance_norm, interpolate, leaky_relu

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream, dtype=torch.float64)

    side = -(-size // 2**UPS)
    first = draw(WIDTH * side * side, LATENT)
    kernels = [draw(WIDTH, WIDTH, 3, 3) for _ in range(UPS)]
    last = draw(channels, WIDTH, 3, 3)
    maps = (draw(count, LATENT) @ first.T).view(count, WIDTH, side, side)
    for kernel in kernels:
        maps = interpolate(maps, scale_factor=2, mode="nearest")
        maps = leaky_relu(instance_norm(conv2d(maps, kernel, padding=1)), 0.2)
    return _spread(conv2d(maps, last, padding=1)[..., :size, :size], stream)


def _spread(images: Tensor, stream: Generator) -> Tensor:
    """Every image with the mean and the spread of an image as networks see them, both drawn at random."""
    import torch

    count = len(images)
    flat = images.flatten(1)
    flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp_min(1e-12)
    contrast = 0.5 + torch.rand(count, 1, generator=stream, dtype=torch.float64)
    light = 0.5 * torch.randn(count, 1, generator=stream, dtype=torch.float64)
    return (flat * contrast + light).view_as(images)
