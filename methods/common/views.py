"""Random views of images for contrast and augmentation: each image its own, differentiable, from a named stream.

A view is a window of each image, taken row by row and column by column as two matrix products: deterministic on every
device, in the backward pass as well. Images are pixels in [0, 1] (N, C, S, S): beyond the border a crop is black, which
is the data's own zero only before normalisation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from methods.common.pixels import PixelSpace


def crop_and_flip(pixels: Tensor, stream: torch.Generator, padding: int = 4, flip: bool = True) -> Tensor:
    """A window of the image's size, shifted by up to ``padding`` pixels into a black border.

    With ``flip`` it is mirrored by chance 1/2.
    """
    count, size = len(pixels), pixels.shape[-1]
    shift = torch.randint(-padding, padding + 1, (2, count, 1), generator=stream, device=stream.device)
    place = torch.arange(size, device=stream.device) + shift.to(torch.float32)
    return _look(pixels, place[0], _mirrored(place[1], stream) if flip else place[1])


def cropped_view(images: Tensor, space: PixelSpace, stream: torch.Generator, flip: bool = True) -> Tensor:
    """:func:`crop_and_flip` of normalised images, normalised."""
    return space.normalise(crop_and_flip(space.pixels(images), stream, flip=flip))


def resized_crop_and_flip(
    pixels: Tensor,
    stream: torch.Generator,
    area: tuple[float, float] = (0.25, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    tries: int = 10,
) -> Tensor:
    """A window of random area and aspect, resized to the image's size (bilinear), mirrored by chance 1/2.

    The share of the area is uniform, the aspect (width / height) uniform in its logarithm. Of ``tries`` draws the first
    that fits into the image is taken, of none the whole image. The window's place is any, not a whole pixel.
    """
    count, size, device = len(pixels), pixels.shape[-1], stream.device
    share = _uniform(stream, tries, count, low=area[0], high=area[1])
    ratio = _uniform(stream, tries, count, low=math.log(aspect[0]), high=math.log(aspect[1])).exp()
    width, height = (share * ratio).sqrt(), (share / ratio).sqrt()
    fits = (width <= 1) & (height <= 1)
    first = fits.to(torch.uint8).argmax(0, keepdim=True)
    found = fits.any(0)
    width, height = (torch.where(found, side.gather(0, first)[0], 1.0) for side in (width, height))
    unit = (torch.arange(size, device=device) + 0.5) / size
    places = []
    for side in (height, width):
        start = (1 - side) * _uniform(stream, count)
        places.append(((start[:, None] + side[:, None] * unit) * size - 0.5).clamp(0, size - 1))
    return _look(pixels, places[0], _mirrored(places[1], stream))


def _uniform(stream: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=stream, device=stream.device)


def _mirrored(place: Tensor, stream: torch.Generator) -> Tensor:
    mirror = torch.rand(len(place), 1, generator=stream, device=stream.device) < 0.5
    return torch.where(mirror, place.flip(1), place)


def _look(pixels: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image (N, C, S, S) at the places (N, S) of its rows and columns, in pixels; linear in between, 0 outside."""
    rows, columns = (_weights(place.to(pixels.device), pixels) for place in (down, right))
    return rows @ pixels @ columns.transpose(2, 3)


def _weights(place: Tensor, pixels: Tensor) -> Tensor:
    """(N, 1, S, S): what each source row has to do with each row of the view."""
    source = torch.arange(pixels.shape[-1], device=place.device, dtype=place.dtype)
    return (1 - (place[:, :, None] - source).abs()).clamp_min(0)[:, None].to(pixels.dtype)
