"""Resizing to bytes, and the fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.images import CHUNK, fingerprint, grey, resize, resize_labels, shorter_side, square


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


@pytest.mark.parametrize("target", [(18, 24), (36, 20), (40, 53), (9, 12)])
def test_rectangles_are_resized_as_pillow_does(target):
    images = random_images(2, 3, 36, 48)
    resized = resize(images, target)
    assert resized.shape == (2, 3, *target)
    for image, ours in zip(images, resized, strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(target[::-1], Image.Resampling.BILINEAR)
        difference = ours.permute(1, 2, 0).int() - torch.tensor(np.array(pillow)).int()
        assert difference.abs().max() <= 1


@pytest.mark.parametrize("target", [(18, 24), (36, 20), (40, 53), (9, 12), (36, 48), (25, 33)])
def test_labels_take_the_nearest_as_pillow_does(target):
    labels = random_images(3, 36, 48)
    rows, columns = (
        (2 * np.arange(new) + 1) * old % (2 * new) != 0 for new, old in zip(target, (36, 48), strict=True)
    )  # not in the middle of two pixels, where Pillow's rounding decides
    for label, ours in zip(labels, resize_labels(labels, target), strict=True):
        pillow = Image.fromarray(label.numpy()).resize(target[::-1], Image.Resampling.NEAREST)
        assert np.array_equal(ours.numpy()[rows][:, columns], np.array(pillow)[rows][:, columns])


def test_a_label_in_the_middle_of_two_pixels_is_the_later_one():
    assert resize_labels(torch.arange(48).expand(1, 36, 48), (9, 12))[0, 0].tolist() == list(range(2, 48, 4))


def test_the_shorter_side_of_either_kind_of_image():
    assert shorter_side(360, 480, 256) == (256, 341)
    assert shorter_side(480, 360, 256) == (341, 256)
    assert shorter_side(7, 7, 9) == (9, 9)


def test_a_square_is_the_middle_of_the_longer_side():
    images = random_images(2, 3, 8, 20)
    assert torch.equal(square(images, 8), images[..., 6:14])
    assert torch.equal(square(images.transpose(2, 3), 8), images.transpose(2, 3)[:, :, 6:14])
    assert square(images, 5).shape == (2, 3, 5, 5)


def test_grey_is_pillows():
    images = random_images(3, 3, 9, 9)
    pillow = [np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in images]
    assert np.array_equal(grey(images)[:, 0].numpy(), np.stack(pillow))


def test_large_images_are_resized_few_at_a_time():
    images = random_images(5, 1, 700, 900)
    assert torch.equal(resize(images, (70, 90))[-1:], resize(images[-1:], (70, 90)))


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
