"""Caltech-101: torchvision's layout, a split of our own, and what is wrong with broken sets."""

from __future__ import annotations

import pytest
import torch
from tree_files import truncate, write_image

from bench import data
from bench.data import caltech
from bench.errors import MissingData, UserError

SMALL = {"Faces": 11, "ant": 5, "bass": 4}


@pytest.fixture
def small_is_official(monkeypatch, tmp_path):
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(caltech, "COUNTS", SMALL)


@pytest.fixture
def root(tmp_path, small_is_official):
    root = tmp_path / "data" / "caltech101"
    for label, (name, count) in enumerate(SMALL.items()):
        for number in range(1, count + 1):
            write_image(image(root, name, number), 24, 16, seed=100 * label + number)
    write_image(image(root, "BACKGROUND_Google", 1), 24, 16)
    (root / "101_ObjectCategories" / "ant" / "Thumbs.db").write_text("not an image")
    return root


def image(root, name, number):
    return root / "101_ObjectCategories" / name / f"image_{number:04d}.jpg"


def load(root, **options):
    return data.load("caltech101", size=8, folder=root.parent, **options)


def states(root, **options):
    return {each.name: each.state for each in data.status("caltech101", root.parent, **options)}


def test_the_official_numbers():
    assert len(caltech.COUNTS) == 101
    assert sum(caltech.COUNTS.values()) == 8677
    assert list(caltech.COUNTS) == sorted(caltech.COUNTS)
    assert sum(count // 5 for count in caltech.COUNTS.values()) == 1695
    assert data.SOURCES["caltech101"].classes == tuple(caltech.COUNTS)


def test_every_fifth_image_of_a_class_is_a_test_image(root):
    dataset = load(root)
    assert dataset.altered == ()
    assert dataset.train.images.shape == (17, 3, 8, 8)
    assert dataset.train.labels.tolist() == [0] * 9 + [1] * 4 + [2] * 4
    assert dataset.test.labels.tolist() == [0, 0, 1]
    assert dataset.test.labels.dtype == torch.int64
    before = dataset.test.images
    write_image(image(root, "Faces", 10), 24, 16, seed=999)
    changed = (load(root).test.images != before).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]


def test_status_is_one_line(root):
    (row,) = data.status("caltech101", root.parent, thorough=True)
    folder = root / "101_ObjectCategories"
    assert (row.name, row.state) == ("caltech101/101_ObjectCategories", "ok")
    assert row.message == f"{folder}: 20 images of 3 classes"


def test_grey_and_upright_images_become_colour_squares(root):
    write_image(image(root, "Faces", 1), 16, 40, mode="L")
    first = load(root).train.images[0]
    assert torch.equal(first[0], first[1])


def test_missing_images_and_classes_are_missing_data(root):
    image(root, "Faces", 3).unlink()
    for number in range(1, 5):
        image(root, "bass", number).unlink()
    with pytest.raises(MissingData, match=r"ObjectCategories/Faces/image_0003\.jpg, .*ObjectCategories/bass\. To fix"):
        load(root, allow_altered=True)
    states_found = states(root)
    assert states_found.pop("caltech101/101_ObjectCategories") == "ok"
    assert set(states_found.values()) == {"missing"}


def test_other_numbers_and_classes_are_altered_and_named(root):
    write_image(image(root, "ant", 6), 24, 16)
    write_image(image(root, "zebra", 1), 24, 16)
    with pytest.raises(UserError) as error:
        load(root)
    assert str(error.value).startswith(
        f"caltech101: {root / '101_ObjectCategories'}: altered: zebra where no such class is; "
        "6 images of ant, officially 5. Pass --allow-altered to use it anyway, or download https://data.caltech.edu/"
    )
    dataset = load(root, allow_altered=True)
    assert dataset.altered == ("caltech101/101_ObjectCategories",)
    assert len(dataset.train.labels) + len(dataset.test.labels) == 21


def test_a_damaged_image_is_named_by_load_and_by_verify(root):
    bad = truncate(image(root, "ant", 2))
    with pytest.raises(UserError) as error:
        load(root)
    assert str(error.value) == f"{bad}: truncated: the image ends early"
    assert states(root)["caltech101/101_ObjectCategories"] == "ok"
    assert states(root, thorough=True)["caltech101/101_ObjectCategories/ant/image_0002.jpg"] == "truncated"


def test_nothing_there(root):
    folder = root / "101_ObjectCategories"
    folder.rename(root / "elsewhere")
    with pytest.raises(MissingData, match=r"caltech101/101_ObjectCategories\. To fix it, download "):
        load(root)


@pytest.mark.usefixtures("small_is_official")
def test_the_whole_folder_missing(tmp_path):
    with pytest.raises(MissingData, match=r"missing from .*: caltech101\. To fix it, download https://"):
        data.load("caltech101", size=8, folder=tmp_path)


@pytest.mark.data("caltech101")
def test_the_real_set():
    dataset = data.load("caltech101", size=32)
    assert len(dataset.train.labels) == 6982
    assert len(dataset.test.labels) == 1695


@pytest.mark.slow
def test_a_set_of_the_true_size_and_names(tmp_path, monkeypatch):
    """Every class with its official number, JPEGs of about 300x200, some grey or upright, and what lies beside them.

    The files are hard links to a few pictures: their number and names are the real set's, their contents are not.
    """
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DFKD_DATA", raising=False)
    folder = tmp_path / "data" / "caltech101" / "101_ObjectCategories"
    kinds = [(300, 200, "RGB"), (300, 225, "RGB"), (199, 300, "RGB"), (300, 300, "L"), (251, 300, "RGB")]
    models = [
        write_image(tmp_path / f"{seed}.jpg", width, height, seed, mode)
        for seed, (width, height, mode) in enumerate(kinds)
    ]
    for place, (name, count) in enumerate({**caltech.COUNTS, "BACKGROUND_Google": 467}.items()):
        (folder / name).mkdir(parents=True)
        for number in range(1, count + 1):
            (folder / name / f"image_{number:04d}.jpg").hardlink_to(models[(number + place) % len(models)])
    (folder / "BACKGROUND_Google" / "tmp").touch()
    (folder / "._Faces").touch()
    (folder.parent / "Annotations").mkdir()
    assert {each.state for each in data.status("caltech101", tmp_path / "data", thorough=True)} == {"ok"}
    dataset = data.load("caltech101", size=16, folder=tmp_path / "data")
    assert dataset.altered == ()
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (6982, 1695)
    assert dataset.test.labels.bincount().tolist() == [count // 5 for count in caltech.COUNTS.values()]
    assert dataset.train.images.shape[1:] == (3, 16, 16)
