"""Distances of images, pixel by pixel: exact, since bytes are whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1024  # pixels: sums of so many products of two numbers in -128..127 are whole numbers that float32 holds
ROWS = 1024  # images at a time
MIDDLE = 128


def nearest_distance(queries: Tensor, others: Tensor) -> Tensor:
    """float64 (N,): the Euclidean distance of each of ``queries`` to the nearest of ``others``, in steps of a byte.

    Squares are sums of whole numbers without any rounding: 0 for a copy and for nothing else, and the same whatever
    the order of the images.

    Args:
        queries, others: uint8 (N, ...) and (M, ...) of equal shapes, one image at least in each.

    Raises:
        ValueError: they are not.
    """
    if queries.dtype != torch.uint8 or others.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, not {queries.dtype} and {others.dtype}")
    if queries.shape[1:] != others.shape[1:] or not queries.numel() or not others.numel():
        raise ValueError(f"images of shapes {tuple(queries.shape)} and {tuple(others.shape)} cannot be compared")
    nearest = torch.full((len(queries),), torch.inf, dtype=torch.float64, device=queries.device)
    for first in range(0, len(queries), ROWS):
        rows = slice(first, first + ROWS)
        for candidates in others.split(ROWS):
            nearest[rows] = torch.minimum(nearest[rows], _squares(queries[rows], candidates).amin(1))
    return nearest.sqrt()


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """float64 (N, M): squared distances of images (N, ...) and (M, ...)."""
    x, y = x.flatten(1), y.flatten(1)
    squares = torch.zeros(len(x), len(y), dtype=torch.float64, device=x.device)
    for start in range(0, x.shape[1], CHUNK):
        a, b = (each[:, start : start + CHUNK].float().sub_(MIDDLE) for each in (x, y))
        squares.add_((a @ b.T).double(), alpha=-2)
        squares.add_(a.square().sum(1, keepdim=True)).add_(b.square().sum(1))
    return squares
