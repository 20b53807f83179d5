"""From a source's native images to the tensors of a data set: one resize, one rounding, one fingerprint."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 2048  # images resized at a time, at most
PIXELS = 1 << 18  # of one channel, before or after: 2 MB in double precision, which stay in the processor's cache


def resize(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """uint8 (N, C, height, width) from uint8 or floating point (N, C, H, W) in 0..255; one number is a square's side.

    Bilinear, widened when shrinking, without cropping, as Pillow's resize (which rounds between its two passes, so that
    single pixels differ by one grey level). Every machine gives the same bytes.
    """
    import torch
    from torch.nn.functional import interpolate

    target = (size, size) if isinstance(size, int) else size
    if images.dtype == torch.uint8 and images.shape[-2:] == target:
        return images
    result = torch.empty(*images.shape[:2], *target, dtype=torch.uint8)
    step = max(1, min(CHUNK, PIXELS // max(math.prod(images.shape[-2:]), math.prod(target))))
    for start in range(0, len(images), step):
        chunk = images[start : start + step].double()
        if chunk.shape[-2:] != target:
            chunk = interpolate(chunk, size=target, mode="bilinear", antialias=True)
        # Exact ties are common (weights are small fractions), and the last bit of a sum depends on the processor: round
        # halves up from a little below a half. In double precision hardly anything but a tie comes that near.
        result[start : start + step] = (chunk + (0.5 + 1e-6)).floor_().clamp_(0, 255)
    return result


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, height, width) from labels (N, H, W): each pixel's nearest, so that none is invented.

    As Pillow's resize, but that the very middle of two pixels is always the later one; there Pillow's rounding decides.
    """
    import torch

    rows, columns = (
        torch.div((2 * torch.arange(new) + 1) * old, 2 * new, rounding_mode="floor")
        for new, old in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[..., rows, :][..., columns]


def shorter_side(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of an image whose shorter side was resized to ``size``, rounded down as torchvision does."""
    if height <= width:
        return size, size * width // height
    return size * height // width, size


def square(images: Tensor, size: int, shorter: int | None = None) -> Tensor:
    """uint8 (N, C, size, size): the shorter side resized to ``shorter`` (or else ``size``) pixels, then the middle."""
    resized = resize(images, shorter_side(images.shape[-2], images.shape[-1], shorter or size))
    top, left = (round((side - size) / 2) for side in resized.shape[-2:])
    return resized[..., top : top + size, left : left + size]


def grey(images: Tensor) -> Tensor:
    """uint8 (N, 1, H, W) from uint8 (N, 3, H, W), with the weights and the rounding of Pillow (ITU-R 601)."""
    import torch

    red, green, blue = images.int().unbind(1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.to(torch.uint8).unsqueeze(1)


def fit(images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A pair at the wanted size: classification squares, or dense labels whose shorter side is ``size``.

    Raises UserError for a segmentation set of another size: its labels can only be resized by whoever read it.
    """
    if labels.ndim == 1:
        return resize(images, size), labels
    if min(images.shape[-2:]) != size:
        raise UserError(f"the images are {images.shape[-1]}x{images.shape[-2]}, their shorter side should be {size}")
    return images, labels


def fingerprint(*tensors: Tensor | str) -> str:
    """sha256 over types, shapes and bytes, as 64 hex digits; a text stands for a tensor whose bytes it tells of."""
    digest = hashlib.sha256()
    for each in tensors:
        if isinstance(each, str):
            digest.update(f"{each};".encode())
            continue
        digest.update(f"{each.dtype} {tuple(each.shape)};".encode())
        digest.update(each.contiguous().numpy().data)
    return digest.hexdigest()


def evenly(images: Tensor, count: int) -> Tensor:
    """At most ``count`` images, spread evenly over the sample, in its order."""
    index = torch.linspace(0, len(images) - 1, min(len(images), count)).round().long()
    return images[index]
