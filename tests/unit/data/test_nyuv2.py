"""NYU Depth V2: the layout that the field's loader reads, its split, and what is wrong with broken files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mat_files import DOUBLE_CLASS, mat_file
from scipy.io import savemat
from tree_files import truncate, write_image, write_mask

from bench import data
from bench.data import nyuv2
from bench.errors import MissingData, UserError

TRAIN, TEST = [2, 5, 3], [1, 1449]
SIDES = (40, 30)  # width and height


@pytest.fixture
def small_is_official(monkeypatch, tmp_path):
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nyuv2, "COUNTS", {"train": len(TRAIN), "test": len(TEST)})
    monkeypatch.setattr(nyuv2, "MASKS", nyuv2.Masks(nyuv2.MASKS.values, *SIDES))


@pytest.fixture
def root(tmp_path, small_is_official):
    """A whole small set, whose masks have nothing on top, a bed in the middle and a window below."""
    root = tmp_path / "data" / "NYUv2"
    for name, numbers in (("train", TRAIN), ("test", TEST)):
        for number in numbers:
            write_image(root / "480_640" / "IMAGE" / f"{number - 1}.png", *SIDES, seed=number)
            write_mask(mask(root, name, number), *SIDES, values=[0, 1, 13])
    write_split(root, TRAIN, TEST)
    return root


def mask(root, name, number):
    return root / "nyuv2-meta-data" / f"{name}_labels_13" / f"new_nyu_class13_{number:04d}.png"


def write_split(root, train, test):
    path = root / "nyuv2-meta-data" / "splits.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"trainNdxs": np.array(train).reshape(-1, 1), "testNdxs": np.array(test).reshape(-1, 1)})
    return path


def load(root, **options):
    return data.load("nyuv2", size=15, folder=root.parent, **options)


def refused(root):
    with pytest.raises(UserError) as error:
        load(root)
    return str(error.value)


def test_the_thirteen_classes():
    assert data.SOURCES["nyuv2"].classes == nyuv2.CLASSES
    assert len(nyuv2.CLASSES) == 13
    assert (nyuv2.CLASSES[0], nyuv2.CLASSES[7], nyuv2.CLASSES[12]) == ("bed", "picture", "window")
    assert nyuv2.MASKS.values == (255, *range(13))
    assert nyuv2.COUNTS == {"train": 795, "test": 654}


def test_a_whole_set_loads_in_the_splits_order_with_0_as_void(root):
    dataset = load(root)
    assert dataset.altered == ()
    assert dataset.train.images.shape == (3, 3, 15, 20)
    assert dataset.test.labels.shape == (2, 15, 20)
    assert dataset.train.labels[0, :, 0].tolist() == [255] * 5 + [0] * 5 + [12] * 5
    write_split(root, [5], TEST)
    assert torch.equal(load(root, allow_altered=True).train.images[0], dataset.train.images[1])
    assert {each.state for each in data.status("nyuv2", root.parent)} == {"altered", "ok"}


def test_status_has_a_line_a_split(root):
    rows = data.status("nyuv2", root.parent, thorough=True)
    assert [row.name for row in rows] == [f"NYUv2/nyuv2-meta-data/{name}_labels_13" for name in ("train", "test")]
    assert rows[0].message.endswith("train_labels_13: 3 images of 40x30 pixels")


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        ([1, 2], [2, 3], "image 2 is in trainNdxs and in testNdxs"),
        ([1, 1], [2, 3], "trainNdxs has an image twice"),
        ([0, 1], [2, 3], "trainNdxs has values other than whole numbers from 1 to 1449"),
        ([1], [2, 1450], "testNdxs has values other than whole numbers from 1 to 1449"),
        ([1.5], [2], "trainNdxs has values other than whole numbers from 1 to 1449"),
        ([], [2], "it has no numbers trainNdxs"),
    ],
)
def test_a_split_that_cannot_be_used_is_named(root, train, test, sentence):
    path = write_split(root, train, test)
    assert refused(root).startswith(f"nyuv2: {path}: {sentence}. To fix it, put the images of nyu_depth_v2_")


def test_a_split_as_matlab_writes_it(root):
    """Doubles, which MATLAB stores in two bytes each where they are whole numbers."""
    before = load(root).train.images
    numbers = {"trainNdxs": TRAIN, "testNdxs": TEST}
    stored = {name: (DOUBLE_CLASS, np.array(each, np.uint16)[:, None]) for name, each in numbers.items()}
    (root / "nyuv2-meta-data" / "splits.mat").write_bytes(mat_file(**stored))
    assert torch.equal(load(root).train.images, before)


def test_a_split_that_is_no_matlab_file(root):
    path = root / "nyuv2-meta-data" / "splits.mat"
    for content in (b"", b"<!DOCTYPE html>" * 50, path.read_bytes()[:140]):
        path.write_bytes(content)
        assert f"{path}: no MATLAB file that scipy can read" in refused(root) or "it has no numbers" in refused(root)
    path.unlink()
    with pytest.raises(MissingData, match=r"NYUv2/nyuv2-meta-data/splits\.mat"):
        load(root)


def test_missing_and_damaged_files_are_named(root):
    path = write_mask(mask(root, "train", 5), *SIDES, values=[0, 14])
    assert refused(root) == f"{path}: a label of 14, the largest allowed is 13"
    path = truncate(root / "480_640" / "IMAGE" / "1.png")
    assert refused(root) == f"{path}: truncated: the image ends early"
    states = {each.name: each.state for each in data.status("nyuv2", root.parent, thorough=True)}
    assert states["NYUv2/480_640/IMAGE/1.png"] == "truncated"
    assert states["NYUv2/nyuv2-meta-data/train_labels_13/new_nyu_class13_0005.png"] == "corrupted"
    path.unlink()
    with pytest.raises(MissingData, match=r"NYUv2/480_640/IMAGE/1\.png"):
        load(root)


@pytest.mark.usefixtures("small_is_official")
def test_the_whole_folder_missing(tmp_path):
    with pytest.raises(MissingData, match=r"missing from .*: NYUv2\. To fix it, put the images of "):
        data.load("nyuv2", size=15, folder=tmp_path)


@pytest.mark.data("nyuv2", altered=True)
def test_the_real_set():
    dataset = data.load("nyuv2", size=120, allow_altered=True)
    assert len(dataset.train.images) == 795
    assert len(dataset.test.images) == 654
    labels = dataset.train.labels
    assert labels.unique().tolist() == [*range(13), 255]
    height = torch.arange(float(labels.shape[1]))[None, :, None].expand_as(labels)
    ceiling, floor = (height[labels == dataset.classes.index(name)].mean() for name in ("ceiling", "floor"))
    assert ceiling < labels.shape[1] / 3 < 2 * labels.shape[1] / 3 < floor


@pytest.mark.slow
def test_a_set_of_the_true_size(tmp_path, monkeypatch):
    """795 and 654 images of 640x480 with their masks, the split as MATLAB writes it; the files are links to a few."""
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data" / "NYUv2"
    order = np.random.default_rng(0).permutation(1449) + 1
    numbers = {"train": np.sort(order[:795]), "test": np.sort(order[795:])}
    pictures = [write_image(tmp_path / f"{seed}.png", 640, 480, seed) for seed in range(3)]
    stripes = [write_mask(tmp_path / f"mask{top}.png", 640, 480, [top, 0, 13, 5]) for top in (1, 7)]
    (root / "480_640" / "IMAGE").mkdir(parents=True)
    for name, of in numbers.items():
        (root / "nyuv2-meta-data" / f"{name}_labels_13").mkdir(parents=True)
        for number in of:
            (root / "480_640" / "IMAGE" / f"{number - 1}.png").hardlink_to(pictures[number % 3])
            mask(root, name, number).hardlink_to(stripes[number % 2])
    stored = {f"{name}Ndxs": (DOUBLE_CLASS, of.astype(np.uint16)[:, None]) for name, of in numbers.items()}
    (root / "nyuv2-meta-data" / "splits.mat").write_bytes(mat_file(**stored))
    dataset = data.load("nyuv2", size=30, folder=root.parent)
    assert dataset.altered == ()
    assert dataset.train.images.shape == (795, 3, 30, 40)
    assert dataset.test.labels.shape == (654, 30, 40)
    tops = [0 if number % 2 == 0 else 6 for number in numbers["test"]]  # class 1 is stored as 0
    assert dataset.test.labels[:, 0, 0].tolist() == tops
    assert dataset.train.labels.unique().tolist() == [0, 4, 6, 12, 255]
