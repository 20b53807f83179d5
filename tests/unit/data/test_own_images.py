"""A user's own images: a folder of class folders becomes a data set, named by its pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tree_files import truncate, write_classes, write_image

from bench import data
from bench.cli import answer
from bench.data.image_spec import ImageSpec
from bench.data.own_images import OwnImages, layout, own_of, source_of
from bench.errors import MissingData, UserError

GOLDEN = "d3be4d6c3d02946c"  # of the made images, 1 x 8 x 8


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes with three training images and two test images each."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    write_classes(folder, "train", ["cat", "Dog"], 3)
    return write_classes(folder, "test", ["cat", "Dog"], 2, first=500)


def own(root: Path) -> OwnImages:
    return own_of({"images": root.name}, root.parent)


def image(channels: int) -> ImageSpec:
    return ImageSpec(channels=channels, size=8, mean=(0.5,) * channels, std=(0.25,) * channels)


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as error:
        own(root)
    return str(error.value)


def test_classes_are_the_sorted_names_of_the_folders_and_images_have_the_tasks_size(root: Path) -> None:
    write_image(root / "train" / "cat" / "deep" / "er.jpg", 40, 20)
    found = own(root)
    assert (found.classes, found.train, found.test) == (("Dog", "cat"), 7, 4)
    dataset = data.load_source(source_of(found, image(3)), size=8)
    assert dataset.train.images.shape == (7, 3, 8, 8)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert (dataset.name, dataset.classes, dataset.altered) == (found.name, ("Dog", "cat"), ())
    native = data.load_source(source_of(found, image(3)), size=16)
    first = np.asarray(Image.open(root / "test" / "Dog" / "0.png"))
    assert np.array_equal(native.test.images[0].movedim(0, 2).numpy(), first)
    grey = data.load_source(source_of(found, image(1)), size=8)
    assert grey.test.images.shape == (4, 1, 8, 8)
    assert grey.fingerprint != dataset.fingerprint
    with pytest.raises(UserError, match="images of a folder have 1 or 3 channels, not 2"):
        source_of(found, image(2))


def test_the_name_is_that_of_the_pixels_and_not_of_the_place(root: Path, tmp_path: Path) -> None:
    found = own(root)
    moved = root.rename(tmp_path / "elsewhere")
    (moved / "test" / "cat" / "1.png").rename(moved / "test" / "cat" / "9.png")
    assert own(moved).name == found.name
    assert own(moved).images != found.images
    write_image(moved / "test" / "cat" / "9.png", 16, 16, seed=77)
    assert own(moved).name != found.name


def test_images_that_change_after_the_task_was_read_are_refused(root: Path) -> None:
    found = own(root)
    write_image(root / "test" / "cat" / "0.png", 16, 16, seed=99)
    with pytest.raises(UserError, match="the images are not those of folder@"):
        data.load_source(source_of(found, image(3)), size=8)
    for path in root.rglob("*.png"):
        path.unlink()
    root.rename(root.with_name("gone"))
    with pytest.raises(MissingData, match=rf"no such folder: {root}\. To fix it, put them back"):
        data.load_source(source_of(found, image(3)), size=8)


def test_without_train_there_are_no_training_images(root: Path) -> None:
    for path in sorted((root / "train").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "train").rmdir()
    found = own(root)
    dataset = data.load_source(source_of(found, image(1)), size=8)
    assert found.train == len(dataset.train.images) == len(dataset.train.labels) == 0
    assert dataset.test.images.shape == (4, 1, 8, 8)


def test_other_layouts_are_refused_in_one_sentence(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder: .*imags; did you mean 'images'\?"):
        own_of({"images": "imags"}, tmp_path)
    with pytest.raises(UserError, match="unknown key 'folder'"):
        own_of({"folder": "images"}, tmp_path)
    with pytest.raises(UserError, match="images: there is no home folder ~nobody-here"):
        own_of({"images": "~nobody-here/images"}, tmp_path)
    with pytest.raises(UserError, match="images: must be the path of a folder, or none"):
        own_of({"images": 3}, tmp_path)
    write_image(root / "train" / "bird" / "a.png", 8, 8)
    assert "train and test must have the same classes: only train/ has bird" in refusal(root)
    write_image(root / "test" / "fish" / "a.png", 8, 8)
    assert "only train/ has bird; only test/ has fish" in refusal(root)
    (root / "test" / "bird").mkdir()
    assert f"{root / 'test'} has class folders without images: bird" in refusal(root)
    write_image(root / "train" / "loose.png", 8, 8)
    assert "train/loose.png: the image lies in no class folder" in refusal(root)
    (root / "test").rename(tmp_path / "test")
    assert f"{root} has no folder test" in refusal(root)
    write_classes(tmp_path / "one", "test", ["cat"], 1)
    assert "at least two classes, and the only class folder is cat" in refusal(tmp_path / "one")
    (tmp_path / "empty").mkdir()
    assert f"no images found in {tmp_path / 'empty'}; needed is test/CLASS/IMAGE" in refusal(tmp_path / "empty")


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(root: Path, tmp_path: Path) -> None:
    (root / "test" / "cat" / "same.png").symlink_to(root / "test" / "cat" / "0.png")
    assert own(root).test == 5
    outside = write_image(tmp_path / "out" / "a.png", 8, 8)
    link = root / "test" / "cat" / "out.png"
    link.symlink_to(outside)
    assert f"{link} is a link out of {root}" in refusal(root)
    link.unlink()
    (root / "test" / "cat" / "more").symlink_to(outside.parent)
    assert "more is a link out of" in refusal(root)


def test_a_damaged_image_is_named_with_its_reason(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["data", "verify", str(root)]) == 0
    assert f"{root}: ok" in capsys.readouterr().out
    bad = truncate(root / "test" / "cat" / "0.png")
    (root / "test" / "Dog" / "a.heic").write_bytes(b"no")
    assert f"{bad}: truncated: the image ends early" in refusal(root)
    assert answer(["data", "verify", str(root)]) == 1
    assert f"{bad}: truncated" in capsys.readouterr().out
    assert answer(["data", "status", str(root), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert [file["name"] for file in row["files"]] == ["images/train", "images/test"]
    assert "4 images of 2 classes, and 1 of types that are not read (Dog/a.heic)" in row["files"][1]["message"]
    assert answer(["data", "path", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}\n"
    (root / "test").rename(root / "tests")
    assert answer(["data", "verify", str(root)]) == 1
    assert f"{root} has no folder test" in capsys.readouterr().out


def test_hidden_and_system_folders_are_no_classes(root: Path) -> None:
    write_image(root / "test" / ".thumbs" / "a.png", 8, 8)
    write_image(root / "test" / "@eaDir" / "a.png", 8, 8)
    assert layout(root).classes == ("Dog", "cat")


def test_transparency_and_orientation_are_as_in_pools(root: Path) -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    clear.save(root / "test" / "Dog" / "0.png")
    dataset = data.load_source(source_of(own(root), image(3)), size=16)
    assert torch.equal(dataset.test.images[0], torch.full((3, 16, 16), 255, dtype=torch.uint8))


# ---- without labels --------------------------------------------------------------------------------------------------


def test_images_without_class_folders_have_no_labels(tmp_path: Path, root: Path) -> None:
    flat = tmp_path / "flat"
    for seed in range(3):
        write_image(flat / "test" / f"{seed}.png", 16, 16, seed=seed)
    assert f"the images in {flat / 'test'} have no class folders" in refusal(flat)
    assert "{images: flat, classes: NUMBER}" in refusal(flat)
    found = own_of({"images": "flat", "classes": 4}, tmp_path)
    assert (found.classes, found.train, found.test, found.labelled) == (("0", "1", "2", "3"), 0, 3, False)
    dataset = data.load_source(source_of(found, image(1)), size=8)
    assert not dataset.labelled
    assert dataset.test.labels.tolist() == [-1, -1, -1]
    assert own_of({"images": "flat", "classes": 5}, tmp_path).name != found.name
    (flat / "test").rename(tmp_path / "bare")  # images in the folder itself are test images
    assert own_of({"images": "bare", "classes": 4}, tmp_path).name == found.name
    assert answer(["data", "verify", str(tmp_path / "bare")]) == 0
    write_image(tmp_path / "bare" / "cat" / "x.png", 8, 8)
    assert "bare/0.png: the image lies in no class folder" in refusal(tmp_path / "bare")
    with pytest.raises(UserError, match=r"classes: 3, and .* has 2 class folders \(Dog, cat\)"):
        own_of({"images": "images", "classes": 3}, tmp_path)
    for wrong in (1, 2.5, True, "ten"):
        with pytest.raises(UserError, match="classes: must be a whole number from 2"):
            own_of({"images": "flat", "classes": wrong}, tmp_path)


def test_training_images_may_have_labels_where_test_images_have_none(root: Path) -> None:
    for path in sorted((root / "test").rglob("*.png")):
        path.rename(root / "test" / f"{path.parent.name}-{path.name}")
    for name in ("cat", "Dog"):
        (root / "test" / name).rmdir()
    found = own(root)
    assert (found.classes, found.train, found.test, found.labelled) == (("Dog", "cat"), 6, 4, False)
    dataset = data.load_source(source_of(found, image(1)), size=8)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(dataset.test.labels.tolist()) == {-1}


def test_without_images_they_are_made_and_are_the_same_everywhere(tmp_path: Path, root: Path) -> None:
    with pytest.raises(UserError, match=r"without images nothing tells how many classes there are: \{images: none"):
        own_of({"images": "none"}, tmp_path)
    found = own_of({"images": "none", "classes": 3}, tmp_path)
    assert (found.name, found.folder, found.classes) == ("none-3", None, ("0", "1", "2"))
    dataset = data.load_source(source_of(found, image(1)), size=8)
    assert dataset.test.images.shape == (512, 1, 8, 8)
    assert len(dataset.train.images) == 0
    assert not dataset.labelled
    assert len({bytes(each.numpy().tobytes()) for each in dataset.test.images}) > 500
    assert dataset.fingerprint[:16] == GOLDEN
    smooth, generated = dataset.test.images.double().split(256)
    step = [(each[..., 1:] - each[..., :-1]).abs().mean() for each in (smooth, generated)]
    assert step[0] < step[1]
    assert 90 < dataset.test.images.double().mean() < 166  # around the task's mean
    other = ImageSpec(channels=3, size=12, mean=(0.1, 0.5, 0.9), std=(0.1, 0.1, 0.1))
    colours = data.load_source(source_of(found, other), size=12).test.images.double()
    assert colours.shape == (512, 3, 12, 12)
    assert (colours.mean((0, 2, 3)).diff() > 80).all()
