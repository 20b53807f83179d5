"""ZSKD's augmentation of Data Impressions.

The reference code expands every mini-batch 106-fold. Here each image of a batch gets one of the 106 variants, drawn
uniformly: the same distribution of images at the batch's own size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ZOOMS = (0.90, 0.75, 0.60)  # fraction of the side that is cropped from the centre and resized back
SHIFTS = ((0.2, 0.0), (-0.2, 0.0), (0.0, 0.2), (0.0, -0.2))  # of the side, uncovered area filled with 1
ANGLES = tuple(range(-90, 91, 20))  # degrees, uncovered area filled with 0

# How many of the 106 variants are of each kind, with zooms, shifts and angles combined as named.
COUNTS = {
    "original": 1, "zoom": 3, "shift": 4, "angle": 10, "flip": 3, "salt": 1, "gauss": 1,
    "zoom+shift": 12, "shift+angle": 40, "zoom+angle": 30, "salt+gauss": 1,
}  # fmt: skip


def augment(pixels: Tensor, stream: torch.Generator) -> Tensor:
    """One random variant of each image; pixels (N, C, H, W) in [0, 1], in and out.

    The noise variants use one field for all images of the batch, as the reference code does.
    """
    count, device = len(pixels), pixels.device
    kinds = list(COUNTS)
    odds = torch.tensor([float(COUNTS[kind]) for kind in kinds], device=device)
    kind = torch.multinomial(odds, count, replacement=True, generator=stream)

    def has(part: str) -> Tensor:
        holds = torch.tensor([part in name.split("+") for name in kinds], device=device)
        return holds[kind]

    def pick(values: tuple[float, ...] | tuple[tuple[float, float], ...]) -> Tensor:
        table = torch.tensor(values, device=device, dtype=pixels.dtype)
        return table[torch.randint(len(values), (count,), generator=stream, device=device)]

    zoom = torch.where(has("zoom"), pick(ZOOMS), 1.0)
    angle = torch.where(has("angle"), pick(ANGLES) * (math.pi / 180), 0.0)
    shift = torch.where(has("shift")[:, None], pick(SHIFTS), 0.0)
    out = _warp(pixels, zoom, angle, shift)
    out = torch.where(has("flip")[:, None, None, None], _flip(pixels, stream), out)
    shape = pixels.shape[1:]
    salted = _salt_and_pepper(out, torch.rand(shape, generator=stream, device=device))
    out = torch.where(has("salt")[:, None, None, None], salted, out)
    field = torch.rand((1, *shape[1:]), generator=stream, device=device)
    return torch.where(has("gauss")[:, None, None, None], 0.75 * out + 0.0625 * field, out)


def _warp(pixels: Tensor, zoom: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Zoom and rotate about the centre (zeros outside), then shift (ones outside)."""
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    # affine_grid maps places of the output to places of the input, in units of half a side.
    x, y = 2 * shift[:, 0], 2 * shift[:, 1]
    theta = torch.stack(
        [torch.stack([cos, -sin, -(cos * x - sin * y)], 1), torch.stack([sin, cos, -(sin * x + cos * y)], 1)], 1
    )
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    warped = F.grid_sample(pixels, grid, align_corners=False)
    height, width = pixels.shape[2:]
    column = (torch.arange(width, device=pixels.device) + 0.5) / width
    row = (torch.arange(height, device=pixels.device) + 0.5) / height
    source_x, source_y = column[None] - shift[:, :1], row[None] - shift[:, 1:]
    covered = ((source_x > 0) & (source_x < 1))[:, None, None, :] & ((source_y > 0) & (source_y < 1))[:, None, :, None]
    return torch.where(covered, warped, 1.0)


def _flip(pixels: Tensor, stream: torch.Generator) -> Tensor:
    """Left-right, up-down or transposed, one third each."""
    which = torch.randint(3, (len(pixels), 1, 1, 1), generator=stream, device=pixels.device)
    upright = torch.where(which == 0, pixels.flip(3), pixels.flip(2))
    return torch.where(which == 2, pixels.transpose(2, 3), upright)


def _salt_and_pepper(pixels: Tensor, field: Tensor) -> Tensor:
    """0.4 % of the pixels, a fifth of them white and the rest black, the same in every image."""
    white, black = field < 0.0008, (field >= 0.0008) & (field < 0.004)
    return torch.where(white, 1.0, torch.where(black, 0.0, pixels))
