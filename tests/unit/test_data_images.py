"""Resizing to bytes, and the fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.images import CHUNK, fingerprint, resize


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [8, 27, 30, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_agrees_with_pillow(size, channels):
    images = random_images(5, channels, 28, 28)
    pillow = [
        [np.asarray(Image.fromarray(plane.numpy()).resize((size, size), Image.Resampling.BILINEAR)) for plane in image]
        for image in images
    ]
    difference = resize(images, size).int() - torch.tensor(np.array(pillow)).int()
    assert difference.abs().max() <= 1  # Pillow rounds twice
    assert difference.float().mean().abs() < 0.1


def test_resize_to_the_same_size_changes_nothing():
    images = random_images(3, 1, 28, 28)
    assert torch.equal(resize(images, 28), images)


def test_resize_does_not_depend_on_chunks():
    images = random_images(CHUNK + 3, 1, 4, 4)
    assert torch.equal(resize(images, 7)[-4:], resize(images[-4:], 7))


def test_halves_are_rounded_up_and_floating_point_images_once():
    images = torch.tensor([0.0, 0.49, 0.5, 1.5, 254.5, 255.0], dtype=torch.float64).view(1, 1, 1, 6).expand(1, 1, 6, 6)
    assert resize(images, 6)[0, 0, 0].tolist() == [0, 0, 1, 2, 255, 255]


def test_constant_images_stay_constant():
    assert resize(torch.full((2, 1, 28, 28), 255, dtype=torch.uint8), 45).unique().tolist() == [255]


def test_fingerprint_tells_values_shapes_and_types_apart():
    tensors = [
        torch.zeros(4, dtype=torch.uint8),
        torch.tensor([0, 0, 0, 1], dtype=torch.uint8),
        torch.zeros(2, 2, dtype=torch.uint8),
        torch.zeros(4, dtype=torch.int8),
    ]
    assert len({fingerprint(tensor) for tensor in tensors}) == 4
    assert fingerprint(tensors[0]) == fingerprint(tensors[0].clone())
    assert fingerprint(tensors[0], tensors[1]) != fingerprint(tensors[1], tensors[0])


def test_fingerprint_ignores_strides():
    image = random_images(1, 1, 5, 5)
    assert fingerprint(image.transpose(2, 3)) == fingerprint(image.transpose(2, 3).contiguous())
