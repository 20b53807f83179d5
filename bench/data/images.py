"""From a source's native images to the tensors of a data set: one resize, one rounding, one fingerprint."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 2048  # images resized at a time: some 50 MB at 28x28 to 32x32, whatever the set's size


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, size, size) from uint8 or floating point (N, C, H, W) in 0..255.

    Bilinear, widened when shrinking, without cropping, as Pillow's resize (which rounds between its two passes, so that
    single pixels differ by one grey level). Every machine gives the same bytes.
    """
    import torch
    from torch.nn.functional import interpolate

    if images.dtype == torch.uint8 and images.shape[-2:] == (size, size):
        return images
    result = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK].double()
        if chunk.shape[-2:] != (size, size):
            chunk = interpolate(chunk, size=(size, size), mode="bilinear", antialias=True)
        # Exact ties are common (weights are small fractions), and the last bit of a sum depends on the processor: round
        # halves up from a little below a half. In double precision hardly anything but a tie comes that near.
        result[start : start + CHUNK] = (chunk + (0.5 + 1e-6)).floor_().clamp_(0, 255)
    return result


def fit(images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A pair at the wanted size: classification squares, or dense labels whose shorter side is ``size``.

    Raises UserError for a segmentation set of another size: its labels can only be resized by whoever read it.
    """
    if labels.ndim == 1:
        return resize(images, size), labels
    if min(images.shape[-2:]) != size:
        raise UserError(f"the images are {images.shape[-1]}x{images.shape[-2]}, their shorter side should be {size}")
    return images, labels


def fingerprint(*tensors: Tensor) -> str:
    """sha256 over types, shapes and bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    for each in tensors:
        digest.update(f"{each.dtype} {tuple(each.shape)};".encode())
        digest.update(each.contiguous().numpy().data)
    return digest.hexdigest()
