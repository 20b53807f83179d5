"""The generated set: the same bytes everywhere, dense labels, and classes that colour alone does not distinguish."""

from __future__ import annotations

import math

import pytest
import torch

from bench import data
from bench.data import shapes
from bench.errors import UserError


@pytest.fixture(scope="module")
def dataset():
    return data.load("shapes", size=64)


def test_images_are_bytes_with_a_label_for_every_pixel(dataset):
    assert dataset.dense
    assert dataset.classes == ("ground", "disc", "box", "triangle", "stripes")
    for split, count in ((dataset.train, 2000), (dataset.test, 500)):
        assert (split.images.shape, split.images.dtype) == ((count, 3, 64, 64), torch.uint8)
        assert (split.labels.shape, split.labels.dtype) == ((count, 64, 64), torch.uint8)
        assert split.labels.unique().tolist() == [0, 1, 2, 3, 4]
        assert (split.images.min(), split.images.max()) == (0, 255)


def test_fingerprint_never_changes(dataset):
    assert dataset.fingerprint == "29696f25cb328b3a433f329b25000b76d97893c981ab35e34e32c2f819dd0048"
    assert dataset.altered == ()


def test_every_class_is_frequent_and_most_images_have_several_objects(dataset):
    share = dataset.train.labels.flatten().bincount() / dataset.train.labels.numel()
    assert 0.7 < share[0] < 0.85
    assert share[1:].min() > 0.03
    several = [(torch.nn.functional.one_hot(y.long(), 5).sum((0, 1)) > 0).sum() > 2 for y in dataset.train.labels[:200]]
    assert sum(several) / 200 > 0.4


def test_no_image_is_there_twice(dataset):
    images = torch.cat([dataset.train.images, dataset.test.images])
    assert len({image.numpy().tobytes() for image in images}) == 2500


def test_colour_does_not_tell_the_classes_apart(dataset):
    pixels, labels = dataset.train.images.movedim(1, -1).double(), dataset.train.labels
    means = torch.stack([pixels[labels == index].mean(0) for index in range(5)])
    assert (means.amax(0) - means.amin(0)).max() < 12  # of 255; the deviation within each class is some 70


def test_labels_lie_on_the_objects(dataset):
    """An object's colour differs from the ground around it by far more than its texture and the noise do."""
    images, labels = dataset.train.images.double(), dataset.train.labels
    for image, label in zip(images[:100], labels[:100], strict=True):
        ground = image[:, label == 0].mean(1)
        distance = (image - ground[:, None, None]).abs().mean(0)
        assert distance[label > 0].mean() > 1.3 * distance[label == 0].mean()


def test_the_table_of_cosines_is_the_same_on_every_machine():
    exact = [256 * math.cos(2 * math.pi * step / 64) for step in range(64)]
    assert all(abs(value - math.floor(value) - 0.5) > 1e-3 for value in exact)
    cosines, sines = shapes._rotations()
    assert (abs(cosines**2 + sines**2 - 256**2) < 512).all()


def test_it_is_always_there_and_cannot_be_fetched_or_resized(tmp_path):
    (status,) = data.status("shapes", tmp_path)
    assert (status.state, status.path) == ("ok", None)
    with pytest.raises(UserError, match="shapes is generated: nothing to download"):
        data.fetch("shapes", tmp_path)
    with pytest.raises(UserError, match="the images are 64x64, their shorter side should be 128"):
        data.load("shapes", size=128)
