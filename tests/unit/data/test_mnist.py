"""The real MNIST and Fashion-MNIST, where they are there."""

from __future__ import annotations

import gzip

import pytest
import torch

from bench import data
from bench.utils.torchvision_compat import torchvision

FAMILY = [
    pytest.param("mnist", marks=pytest.mark.data("mnist")),
    pytest.param("fashion_mnist", marks=pytest.mark.data("fashion_mnist")),
]
FIRST_LABELS = {"mnist": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "fashion_mnist": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]}
FIRST_TEST_LABELS = {"mnist": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9], "fashion_mnist": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]}
PUBLISHED = {"mnist": (0.1307, 0.3081), "fashion_mnist": (0.2860, 0.3530)}
AT_32 = {
    "mnist": "916f1a03bc339a3aea945d03f10743e1e09d496219d44272e4e8f4b378cb09f8",
    "fashion_mnist": "f28a712d857a7f1428f5217da2c89a09628983018f30a3f9c068883c08eb1440",
}


@pytest.mark.parametrize("name", FAMILY)
def test_native_size_has_the_published_counts_labels_and_statistics(name):
    dataset = data.load(name, size=28)
    assert dataset.altered == ()
    assert dataset.train.images.shape == (60_000, 1, 28, 28)
    assert dataset.test.images.shape == (10_000, 1, 28, 28)
    assert dataset.train.labels[:10].tolist() == FIRST_LABELS[name]
    assert dataset.test.labels[:10].tolist() == FIRST_TEST_LABELS[name]
    if name == "fashion_mnist":
        assert dataset.train.labels.bincount().tolist() == [6000] * 10
    pixels = dataset.train.images.double() / 255
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx(PUBLISHED[name], abs=5e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_resized_images_are_the_same_on_every_machine(name):
    dataset = data.load(name, size=32)
    assert dataset.train.images.shape == (60_000, 1, 32, 32)
    assert dataset.train.images.dtype == torch.uint8
    assert dataset.fingerprint == AT_32[name]


@pytest.mark.parametrize("name", FAMILY)
def test_images_are_those_of_torchvisions_reader(name, tmp_path):
    torchvision()
    from torchvision.datasets.mnist import read_image_file

    path = data.status(name)[2].path
    plain = tmp_path / "plain"  # torchvision reads unpacked files only
    plain.write_bytes(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    assert torch.equal(data.load(name, size=28).test.images[:, 0], read_image_file(str(plain)))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_facts_agree_with_torchvision(name):
    torchvision()
    from torchvision.datasets import MNIST, FashionMNIST

    known = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[name]
    source = data.SOURCES[name]
    assert [(file.urls[0].rsplit("/", 1)[1], file.gz_md5) for file in source.files] == known.resources
    for file, (archive, _) in zip(source.files, known.resources, strict=True):
        assert file.urls == tuple(mirror + archive for mirror in known.mirrors)
        assert file.name == f"{known.__name__}/raw/{archive.removesuffix('.gz')}"
    if name == "fashion_mnist":
        assert source.classes == tuple(known.classes)
