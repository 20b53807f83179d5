"""Real images in batches: every image once an epoch, crops and mirror images, labels that move with their pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data.batches import IGNORED, RealImages, normalise
from bench.data.image_spec import Augmentation, ImageSpec
from bench.data.source import VOID, Split

CPU = torch.device("cpu")
PLAIN = ImageSpec(channels=1, size=6, mean=(0.0,), std=(1.0,))
THREE = ImageSpec(channels=3, size=6, mean=(0.0,) * 3, std=(1.0,) * 3)


def pixels_of(batch: Tensor) -> Tensor:
    """Batches of tasks with mean 0 and deviation 1 as the uint8 pixels that they came from."""
    return (batch * 255).round().to(torch.uint8)


def numbered(count: int, side: int = 6) -> Split:
    """Images that are their own number everywhere, and labelled with it."""
    numbers = torch.arange(count)
    return Split(numbers.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, side, side), numbers)


def random_split(count: int, height: int = 6, width: int = 6) -> Split:
    """No pixel is black, so that padding is told from it, and no two places of an image look the same."""
    stream = torch.Generator().manual_seed(count)
    pixels = torch.randint(1, 256, (count, 1, height, width), generator=stream, dtype=torch.uint8)
    return Split(pixels, torch.arange(count))


def placed(count: int, height: int, width: int) -> Split:
    """Every pixel says its row, its column and its image; dense labels say all three, some are void."""
    rows = torch.arange(1, height + 1).view(1, -1, 1).expand(count, height, width)
    columns = torch.arange(1, width + 1).view(1, 1, -1).expand(count, height, width)
    numbers = torch.arange(count).view(-1, 1, 1).expand(count, height, width)
    return Split(torch.stack([rows, columns, numbers], 1).to(torch.uint8), label_at(rows, columns, numbers))


def label_at(rows: Tensor, columns: Tensor, numbers: Tensor) -> Tensor:
    labels = (7 * rows + 3 * columns + 11 * numbers) % 200
    return torch.where((rows * columns + numbers) % 5 == 0, VOID, labels).to(torch.uint8)


# ---- order -----------------------------------------------------------------------------------------------------------


def test_every_image_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    real = RealImages(numbered(10), PLAIN, 3, CPU)
    batches = [real.take(4) for _ in range(15)]
    labels = torch.cat([labels for _, labels in batches]).view(6, 10)  # six epochs; batches span two of them
    assert all(sorted(epoch) == list(range(10)) for epoch in labels.tolist())
    assert len({tuple(epoch) for epoch in labels.tolist()}) == 6
    for images, numbers in batches:
        assert images.shape == (4, *PLAIN.shape)
        assert torch.equal(pixels_of(images)[:, 0, 0, 0].long(), numbers)


def test_a_batch_may_be_larger_than_the_set() -> None:
    _, labels = RealImages(numbered(3), PLAIN, 0, CPU).take(8)
    assert sorted(labels[:3].tolist()) == sorted(labels[3:6].tolist()) == [0, 1, 2]
    assert len(set(labels[6:].tolist())) == 2


def test_the_same_seed_gives_the_same_batches_and_another_seed_others() -> None:
    augment = Augmentation(pad=2, flip=True)
    streams = [RealImages(random_split(20), PLAIN, seed, CPU, augment) for seed in (5, 5, 6)]
    torch.manual_seed(1)
    first = [streams[0].take(8) for _ in range(6)]
    torch.manual_seed(2)  # whatever the process did before
    second, other = ([stream.take(8) for _ in range(6)] for stream in streams[1:])
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(a[1], b[1]) for a, b in zip(first, other, strict=True))


def test_the_order_does_not_depend_on_augmentation() -> None:
    plain, moved = (RealImages(random_split(20), PLAIN, 0, CPU, Augmentation(pad=pad)) for pad in (0, 3))
    assert all(torch.equal(plain.take(7)[1], moved.take(7)[1]) for _ in range(6))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 4, 9])
def test_saved_and_restored_goes_on_with_the_same_batches(taken: int, dense: bool) -> None:
    split = placed(11, 9, 8) if dense else random_split(11)
    geometry = THREE if dense else PLAIN

    def fresh() -> RealImages:
        return RealImages(split, geometry, 4, CPU, Augmentation(pad=1, flip=True))

    whole, broken = fresh(), fresh()
    for _ in range(taken):
        whole.take(4)
        broken.take(4)
    state = json.loads(json.dumps(broken.state()))  # plain values
    again = fresh()
    again.take(5)  # it is at another place
    again.restore(state)
    for _ in range(6):
        for expected, found in zip(whole.take(4), again.take(4), strict=True):
            assert torch.equal(expected, found)


# ---- pixels ----------------------------------------------------------------------------------------------------------


def test_without_augmentation_the_pixels_are_the_originals_normalised() -> None:
    geometry = ImageSpec(channels=3, size=6, mean=(0.1, 0.5, 0.7), std=(0.2, 0.25, 0.9))
    split = placed(9, 6, 6)
    plain = Split(split.images, torch.arange(9))
    for augment in (None, Augmentation()):
        images, labels = RealImages(plain, geometry, 0, CPU, augment).take(9)
        for image, number in zip(images, labels.tolist(), strict=True):
            for channel in range(3):
                original = split.images[number, channel].numpy() / 255.0
                expected = (original - geometry.mean[channel]) / geometry.std[channel]
                np.testing.assert_allclose(image[channel], expected, atol=1e-6)
    assert torch.equal(normalise(plain.images, geometry)[labels], images)
    assert labels.dtype == torch.int64


def shifted(original: np.ndarray, down: int, right: int, pad: int, mirror: bool) -> np.ndarray:
    """The window that begins ``down`` and ``right`` in the padded image, pixel by pixel."""
    side = len(original)
    window = np.zeros_like(original)
    for row in range(side):
        for column in range(side):
            y, x = row + down - pad, column + right - pad
            if 0 <= y < side and 0 <= x < side:
                window[row, column] = original[y, x]
    return window[:, ::-1] if mirror else window


def places(image: np.ndarray, original: np.ndarray, pad: int) -> list[tuple[int, int, bool]]:
    """All offsets, with and without a mirror, at which a padded original gives an image."""
    offsets = [(down, right) for down in range(2 * pad + 1) for right in range(2 * pad + 1)]
    return [
        (down, right, mirror)
        for down, right in offsets
        for mirror in (False, True)
        if (shifted(original, down, right, pad, mirror) == image).all()
    ]


def test_padded_images_are_shifted_copies_on_black_half_of_them_mirrored() -> None:
    split = random_split(100)
    real = RealImages(split, PLAIN, 0, CPU, Augmentation(pad=1, flip=True))
    found = []
    for _ in range(4):
        images, labels = real.take(100)
        for image, number in zip(pixels_of(images)[:, 0].numpy(), labels.tolist(), strict=True):
            matching = places(image, split.images[number, 0].numpy(), pad=1)
            assert len(matching) == 1
            found += matching
    numbers = {offset: sum(place[:2] == offset for place in found) for offset in {place[:2] for place in found}}
    assert len(numbers) == 9  # every offset of 3 x 3
    assert min(numbers.values()) > 400 / 9 / 2  # none of them is rare
    assert 160 < sum(mirror for _, _, mirror in found) < 240  # half of 400, give or take four standard deviations


def test_the_widest_shifts_occur_and_no_wider_ones() -> None:
    split = random_split(1)
    real = RealImages(split, PLAIN, 1, CPU, Augmentation(pad=2))
    images, _ = real.take(400)
    original = split.images[0, 0].numpy()
    found = {place for image in pixels_of(images)[:, 0].numpy() for place in places(image, original, pad=2)}
    assert found == {(down, right, False) for down in range(5) for right in range(5)}


def test_mirroring_alone_mirrors_left_and_right_about_half() -> None:
    split = random_split(300)
    images, labels = RealImages(split, PLAIN, 0, CPU, Augmentation(flip=True)).take(300)
    originals = split.images[labels]
    mirrored = (pixels_of(images) == originals.flip(3)).flatten(1).all(1)
    assert ((pixels_of(images) == originals).flatten(1).all(1) ^ mirrored).all()
    assert 115 < int(mirrored.sum()) < 185


def test_augmentation_is_drawn_again_every_time() -> None:
    real = RealImages(random_split(1), PLAIN, 0, CPU, Augmentation(pad=3, flip=True))
    assert len({tuple(real.take(1)[0].flatten().tolist()) for _ in range(20)}) > 10


# ---- larger images and dense labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 6), (10, 9), (6, 12)])
@pytest.mark.parametrize("pad", [0, 2])
def test_dense_labels_follow_the_very_same_crop_and_mirror(size: tuple[int, int], pad: int) -> None:
    split = placed(12, *size)
    real = RealImages(split, THREE, 0, CPU, Augmentation(pad=pad, flip=True))
    padded = void = 0
    for _ in range(5):
        images, labels = real.take(12)
        assert images.shape == (12, 3, 6, 6)
        assert labels.shape == (12, 6, 6)
        assert labels.dtype == torch.int64
        rows, columns, numbers = pixels_of(images).long().unbind(1)
        outside = rows == 0  # real rows begin at 1
        expected = label_at(rows, columns, numbers).long()
        ignored = outside | (expected == VOID)
        assert torch.equal(labels, expected.masked_fill(ignored, IGNORED))
        padded, void = padded + int(outside.sum()), void + int((ignored & ~outside).sum())
        steps = columns.diff(dim=2)[~(outside[:, :, 1:] | outside[:, :, :-1])]
        assert set(steps.tolist()) == {1, -1}  # whole pixels, some images mirrored
    assert (padded > 0) == (pad > 0)
    assert void > 0


def test_all_crops_of_a_larger_image_occur() -> None:
    real = RealImages(placed(1, 8, 9), THREE, 0, CPU)
    images, _ = real.take(300)
    corners = pixels_of(images)[:, :2, 0, 0]
    assert {tuple(corner) for corner in corners.tolist()} == {(1 + y, 1 + x) for y in range(3) for x in range(4)}


def test_larger_images_of_one_class_are_cropped_as_well() -> None:
    split = placed(5, 9, 7)
    images, labels = RealImages(Split(split.images, torch.arange(5)), THREE, 0, CPU).take(5)
    assert images.shape == (5, 3, 6, 6)
    assert torch.equal(pixels_of(images)[:, 2, 3, 3].long(), labels)


def test_void_and_padding_are_what_cross_entropy_leaves_out() -> None:
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED
    split = Split(torch.full((2, 3, 6, 6), 9, dtype=torch.uint8), torch.full((2, 6, 6), VOID, dtype=torch.uint8))
    _, labels = RealImages(split, THREE, 0, CPU, Augmentation(pad=4)).take(50)
    assert (labels == IGNORED).all()
    assert (split.labels == VOID).all()  # the originals are left alone
