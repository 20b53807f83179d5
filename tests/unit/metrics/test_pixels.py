"""Distances of pixels: exact against whole numbers, whatever the size of the images and of the blocks."""

from __future__ import annotations

import pytest
import torch
from feature_sets import largest_tensor
from torch import Tensor

from bench.metrics import pixels
from bench.metrics.pixels import nearest_distance


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def slowly(queries: Tensor, others: Tensor) -> Tensor:
    x, y = (each.flatten(1).long() for each in (queries, others))
    return torch.stack([(row - y).square().sum(1).min() for row in x]).double().sqrt()


@pytest.mark.parametrize("rows", [3, 1024])
@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 32, 32), (3, 64, 64)])
def test_agrees_exactly_with_whole_numbers(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], rows: int) -> None:
    monkeypatch.setattr(pixels, "ROWS", rows)
    queries, others = images(7, *shape), images(10, *shape, seed=1)
    assert torch.equal(nearest_distance(queries, others), slowly(queries, others))


def test_black_and_white_are_as_far_apart_as_can_be_and_exact() -> None:
    black, white = torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    assert torch.equal(nearest_distance(black, white), slowly(black, white))
    almost = white.clone()
    almost[0, 1, 5, 7] -= 1
    assert nearest_distance(almost, white).tolist() == [1]


def test_copies_are_at_no_distance_in_any_order() -> None:
    originals = images(40, 3, 16, 16)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert nearest_distance(originals[order], originals).eq(0).all()


@pytest.mark.parametrize(
    ("queries", "others"),
    [
        (images(2, 1, 4, 4), images(2, 1, 4, 5)),
        (images(2, 1, 4, 4), images(0, 1, 4, 4)),
        (images(0, 1, 4, 4), images(2, 1, 4, 4)),
        (images(2, 1, 4, 4).float(), images(2, 1, 4, 4)),
    ],
)
def test_what_cannot_be_compared_is_refused(queries: Tensor, others: Tensor) -> None:
    with pytest.raises(ValueError, match="images"):
        nearest_distance(queries, others)


def test_memory_is_that_of_a_block_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix of all pairs, and no copy of a set in floating-point numbers."""
    monkeypatch.setattr(pixels, "ROWS", 32)
    monkeypatch.setattr(pixels, "CHUNK", 64)
    queries, others = images(700, 1, 16, 16), images(500, 1, 16, 16, seed=1)
    block = 32 * 256  # bytes; the nearest of each image and the distances of a block's pairs are no more
    assert largest_tensor(lambda: nearest_distance(queries, others)) <= block
