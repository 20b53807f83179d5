"""ZSKD's augmentation of Data Impressions: 106 variants of an image, 3 of them with noise.

As in the reference code: the original, 3 central zooms, 4 translations, 10 rotations, 3 flips, 12 zooms with a
translation, 40 translations with a rotation, 30 zooms with a rotation; salt and pepper, "gaussian" noise, and both.

Differences from it: combined warps are sampled once (bilinear) instead of one after the other; a translation is a whole
number of pixels; the noise fields are the same for all images of a call, but new in every call (there: always the
same), and no pixel is salted and peppered (there the pepper hides a grain of salt by chance).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Variant(NamedTuple):
    """What happens to an image, in this order."""

    flip: int = 0  # 1 left-right, 2 up-down, 3 transposed
    zoom: float = 1.0  # share of the side that is cropped from the centre and resized back
    right: float = 0.0  # translation, as a share of the side; what is uncovered becomes 1
    down: float = 0.0
    angle: int = 0  # rotation about the centre in degrees; what is uncovered becomes 0
    salt: int = 0  # 1: 13 of 1,024 pixels become white (3 of them) or black, in all channels
    gauss: int = 0  # 1: 0.75 x + 0.0625 u, u uniform in [0, 1)


ZOOMS = (0.90, 0.75, 0.60)
SHIFTS = ((-0.2, 0.0), (0.2, 0.0), (0.0, -0.2), (0.0, 0.2))
ANGLES = tuple(range(-90, 91, 20))
SPOTTED, SALT = 0.012, 0.2  # share of the pixels that get salt or pepper, and of salt among them; both counts round up

GEOMETRIC: tuple[Variant, ...] = (
    Variant(),
    *(Variant(zoom=zoom) for zoom in ZOOMS),
    *(Variant(right=right, down=down) for right, down in SHIFTS),
    *(Variant(angle=angle) for angle in ANGLES),
    *(Variant(flip=flip) for flip in (1, 2, 3)),
    *(Variant(zoom=zoom, right=right, down=down) for zoom in ZOOMS for right, down in SHIFTS),
    *(Variant(right=right, down=down, angle=angle) for right, down in SHIFTS for angle in ANGLES),
    *(Variant(zoom=zoom, angle=angle) for zoom in ZOOMS for angle in ANGLES),
)
NOISY: tuple[Variant, ...] = (Variant(salt=1), Variant(gauss=1), Variant(salt=1, gauss=1))


FLIPS: Mapping[int, Callable[[Tensor], Tensor]] = {
    1: lambda images: images.flip(3),
    2: lambda images: images.flip(2),
    3: lambda images: images.transpose(2, 3),
}


def family(variant: Variant) -> str:
    """What kind a geometric variant is of: "zoom", "shift", "rotation", "flip", two of the first three, or ""."""
    moved = {
        "zoom": variant.zoom != 1,
        "shift": bool(variant.right or variant.down),
        "rotation": variant.angle != 0,
        "flip": variant.flip != 0,
    }
    return "+".join(name for name, is_so in moved.items() if is_so)


FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(family(variant) for variant in GEOMETRIC if family(variant)))


def augment(
    pixels: Tensor,
    stream: torch.Generator,
    *,
    noise: bool = False,
    expand: bool = False,
    families: Sequence[str] = FAMILIES,
) -> Tensor:
    """Variants of images (N, C, S, S) with pixels in [0, 1].

    Args:
        pixels: the images.
        stream: draws the variants and the noise; ``host=True``, as Python needs to know whether there is noise.
        noise: take the three noisy variants as well.
        expand: every variant of every image, (N * variants, C, S, S), instead of one each, drawn uniformly.
        families: the kinds of geometric variants to take, of :data:`FAMILIES`; the original is always there.
    """
    chosen = tuple(variant for variant in GEOMETRIC if family(variant) in ("", *families))
    table = torch.tensor(chosen + NOISY if noise else chosen, dtype=pixels.dtype, device=stream.device)
    if expand:
        which = torch.arange(len(table), device=stream.device).repeat(len(pixels))
        pixels = pixels.repeat_interleave(len(table), 0)
    else:
        which = torch.randint(len(table), (len(pixels),), generator=stream, device=stream.device)
    return vary(pixels, table[which], stream)


def vary(pixels: Tensor, variants: Tensor, stream: torch.Generator) -> Tensor:
    """Apply one variant, a row of numbers as in :class:`Variant`, to each image (N, C, S, S).

    Variants and stream are best on the host: whether any image gets noise decides what is drawn.
    """
    device, shape = pixels.device, pixels.shape
    salt, gauss = variants[:, 5:].bool().any(0).tolist()
    flipped = pixels.clone()
    for kind, flip in FLIPS.items():
        rows = (variants[:, 0] == kind).nonzero()[:, 0].to(device, non_blocking=True)
        flipped[rows] = flip(pixels[rows])
    zoom, right, down, angle, salted, blurred = variants[:, 1:].to(device, non_blocking=True).T[:, :, None, None, None]
    out = _warp(flipped, zoom, right, down, angle)
    if salt:
        order = torch.randperm(shape[2] * shape[3], generator=stream, device=stream.device)
        order = order.view(shape[2:]).to(device, non_blocking=True)
        white, black = (math.ceil(SPOTTED * order.numel() * share) for share in (SALT, 1 - SALT))
        spotted = torch.where(order < white, 1.0, torch.where(order < white + black, 0.0, out))
        out = torch.where(salted == 1, spotted, out)
    if gauss:
        field = torch.rand(shape[2:], generator=stream, device=stream.device).to(device, non_blocking=True)
        out = torch.where(blurred == 1, 0.75 * out + 0.0625 * field, out)
    return out


def _warp(pixels: Tensor, zoom: Tensor, right: Tensor, down: Tensor, angle: Tensor) -> Tensor:
    """Zoom, then translate, then rotate; the places are in half sides from the centre, parameters (N, 1, 1, 1)."""
    size = pixels.shape[-1]
    place = (torch.arange(size, device=pixels.device) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(place, place, indexing="ij")
    cos, sin = torch.cos(angle * (math.pi / 180)), torch.sin(angle * (math.pi / 180))
    turned = (cos * x - sin * y)[:, 0], (sin * x + cos * y)[:, 0]  # (N, S, S), where a pixel was before
    shift = [2 / size * torch.round(each[:, 0] * size) for each in (right, down)]
    moved = turned[0] - shift[0], turned[1] - shift[1]
    places = torch.stack([each * zoom[:, 0] for each in moved]).permute(1, 2, 3, 0)
    warped = F.grid_sample(pixels, places, padding_mode="border", align_corners=False)
    return warped.masked_fill_(_outside(moved), 1.0).masked_fill_(_outside(turned), 0.0)


def _outside(places: tuple[Tensor, Tensor]) -> Tensor:
    """(N, 1, S, S): whether a place is beyond the border, which is 1 from the centre."""
    right, down = places
    return (torch.maximum(right.abs(), down.abs()) > 1)[:, None]
