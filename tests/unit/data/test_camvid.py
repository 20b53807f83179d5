"""CamVid: the tutorial's layout, its lists, what is wrong with broken files, and the real set where it is there."""

from __future__ import annotations

import pytest
import torch
from tree_files import truncate, write_image, write_mask

from bench import data
from bench.cli import answer
from bench.data import camvid
from bench.errors import MissingData, UserError

NAMES = {"train": ("a", "b", "c"), "test": ("d", "e")}
SIDES = (48, 36)  # width and height


@pytest.fixture
def small_is_official(monkeypatch, tmp_path):
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(camvid, "COUNTS", {split: len(names) for split, names in NAMES.items()})
    monkeypatch.setattr(camvid, "MASKS", camvid.Masks(camvid.MASKS.values, *SIDES))


@pytest.fixture
def root(tmp_path, small_is_official):
    """A whole small CamVid, in whose masks the sky is on top, then void, then road."""
    root = tmp_path / "data" / "CamVid"
    for split, names in NAMES.items():
        for seed, name in enumerate(names):
            write_image(root / split / f"{name}.png", *SIDES, seed=seed)
            write_mask(root / f"{split}annot" / f"{name}.png", *SIDES, values=[0, 11, 3])
        write_list(root, split, "CamVid/{0}/{1}.png CamVid/{0}annot/{1}.png")
    return root


def write_list(root, split, line):
    (root / f"{split}.txt").write_text("".join(line.format(split, name) + "\n" for name in NAMES[split]))


def load(root, size=18, **options):
    return data.load("camvid", size=size, folder=root.parent, **options)


def states(root, **options):
    return {each.name: each.state for each in data.status("camvid", root.parent, **options)}


def refused(root):
    with pytest.raises(UserError) as error:
        load(root)
    return str(error.value)


def test_a_whole_set_loads_with_void_as_255_and_the_shorter_side_at_the_size(root):
    dataset = load(root)
    assert dataset.altered == ()
    assert dataset.dense
    assert dataset.train.images.shape == (3, 3, 18, 24)
    assert dataset.test.labels.shape == (2, 18, 24)
    assert dataset.train.images.dtype == dataset.train.labels.dtype == torch.uint8
    assert dataset.train.labels.unique().tolist() == [0, 3, 255]
    assert dataset.train.labels[0, :, 0].tolist() == [0] * 6 + [255] * 6 + [3] * 6
    assert dataset.classes[3] == "road"
    assert states(root) == states(root, thorough=True) == {"CamVid/train": "ok", "CamVid/test": "ok"}


def test_native_size_changes_no_pixel_and_the_order_is_the_lists(root):
    (root / "train.txt").write_text("".join(f"train/{name}.png trainannot/{name}.png\n" for name in "cab"))
    from PIL import Image

    images = load(root, size=36).train.images
    for image, name in zip(images, "cab", strict=True):
        assert image.permute(1, 2, 0).numpy().tobytes() == Image.open(root / "train" / f"{name}.png").tobytes()


@pytest.mark.parametrize(
    "line",
    [
        "/SegNet/CamVid/{0}/{1}.png /SegNet/CamVid/{0}annot/{1}.png",
        "{0}/{1}.png {0}annot/{1}.png",
        "  ./{0}/{1}.png\t{0}annot/{1}.png  \n",
        "C:\\SegNet\\CamVid\\{0}\\{1}.png C:\\SegNet\\CamVid\\{0}annot\\{1}.png",
        "{1}.png {1}.png",
    ],
)
def test_lists_may_have_other_beginnings(root, line):
    expected = load(root).fingerprint
    for split in NAMES:
        write_list(root, split, line)
    assert load(root).fingerprint == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train/a.png\n", "line 1: 1 paths, expected an image and its mask"),
        ("\ntrain/a.png trainannot/a.png x\n", "line 2: 3 paths, expected an image and its mask"),
        ("../../a.png trainannot/a.png\n", "line 1: ../../a.png points outside the folder"),
        ("train/a.png ../a.png\n", "line 1: ../a.png points outside the folder"),
        ("C:/a.png trainannot/a.png\n", "line 1: C:/a.png points outside the folder"),
        ("train/a.png trainannot/a.png\n" * 2, "line 2: train/a.png is already in line 1"),
        ("\n", "an empty list"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_with_the_line(root, text, sentence):
    (root / "train.txt").write_text(text)
    assert refused(root).startswith(f"camvid: {root / 'train.txt'}: {sentence}. To fix it, copy the folder CamVid of ")
    assert states(root) == {"CamVid/train.txt": "truncated" if text == "\n" else "corrupted", "CamVid/test": "ok"}


def test_a_path_is_looked_for_below_the_root_whatever_stands_before_it(root):
    write_image(root.parent / "outside" / "x.png", *SIDES)
    (root / "train.txt").write_text("/etc/../outside/x.png trainannot/a.png\n")
    assert states(root)["CamVid/outside/x.png"] == "missing"


def test_a_list_that_is_no_text(root):
    (root / "train.txt").write_bytes(b"\xff\xfe\x00")
    assert f"{root / 'train.txt'}: no text" in refused(root)


def test_missing_things_are_missing_data_and_named(root):
    (root / "trainannot" / "b.png").unlink()
    with pytest.raises(MissingData, match=r"CamVid/trainannot/b\.png"):
        load(root)
    (root / "test.txt").unlink()
    with pytest.raises(MissingData, match=r"CamVid/trainannot/b\.png, CamVid/test\.txt"):
        load(root)


def test_many_missing_files_are_counted(root):
    lines = [f"train/{number}.png trainannot/{number}.png\n" for number in range(100)]
    (root / "train.txt").write_text("".join(lines))
    rows = data.status("camvid", root.parent)
    # no row says that a split is there of which no image is
    assert [row.name for row in rows[:2]] == ["CamVid/train/0.png", "CamVid/trainannot/0.png"]
    assert len(rows) == 5 + 1 + 1
    assert (rows[5].message, rows[5].state) == ("and 195 more such files", "missing")


def test_a_split_with_a_missing_file_says_how_many_images_are_there(root):
    (root / "trainannot" / "b.png").unlink()
    assert "2 of 3 images" in data.status("camvid", root.parent)[0].message


@pytest.mark.usefixtures("small_is_official")
def test_the_whole_folder_missing(tmp_path):
    with pytest.raises(MissingData, match=r"missing from .*: CamVid\. To fix it, copy the folder CamVid of "):
        data.load("camvid", size=18, folder=tmp_path)
    with pytest.raises(UserError, match="camvid has no official archive to fetch: copy the folder CamVid of "):
        data.fetch("camvid", tmp_path)


def smaller_mask(root):
    return write_mask(root / "trainannot" / "b.png", 24, 18, [0])


def high_label(root):
    return write_mask(root / "trainannot" / "b.png", *SIDES, values=[0, 12])


def coloured_mask(root):
    return write_image(root / "trainannot" / "b.png", *SIDES)


def cut_image(root):
    return truncate(root / "train" / "b.png")


def empty_image(root):
    return truncate(root / "train" / "b.png", 0)


def no_image(root):
    (root / "train" / "b.png").write_text("<!DOCTYPE html>")
    return root / "train" / "b.png"


def other_size(root):
    write_mask(root / "trainannot" / "b.png", 24, 18, [0])
    return write_image(root / "train" / "b.png", 24, 18)


@pytest.mark.parametrize(
    ("harm", "state", "sentence"),
    [
        (smaller_mask, "corrupted", "a mask of 24x18 pixels for an image of 48x36 (b.png)"),
        (high_label, "corrupted", "a label of 12, the largest allowed is 11"),
        (coloured_mask, "corrupted", "not a label image: mode RGB, expected one 8-bit channel"),
        (cut_image, "truncated", "truncated: the image ends early"),
        (empty_image, "truncated", "empty"),
        (no_image, "corrupted", "no image"),
        (other_size, "corrupted", "24x18 pixels, the images before it have 48x36"),
    ],
)
def test_a_damaged_file_is_named_by_load_and_by_verify(root, capsys, harm, state, sentence):
    path = harm(root)
    assert refused(root) == f"{path}: {sentence}"
    rows = data.status("camvid", root.parent, thorough=True)
    (bad,) = [row for row in rows if row.state != "ok"]
    assert (bad.path, bad.state, bad.message) == (path, state, f"{path}: {sentence}")
    assert answer(["data", "verify", "camvid", "--data", str(root.parent)]) == 1
    assert capsys.readouterr().out == f"camvid: 2 ok, 1 {state}\n  {path}: {sentence}\n"


def test_status_has_a_line_a_split(root, capsys):
    assert answer(["data", "status", "camvid", "--data", str(root.parent)]) == 0
    text = capsys.readouterr().out
    assert f"  ok         {root / 'train'}: 3 images of 48x36 pixels\n" in text
    assert f"  ok         {root / 'test'}: 2 images of 48x36 pixels\n" in text
    assert answer(["data", "path", "camvid", "--data", str(root.parent)]) == 0
    assert capsys.readouterr().out == f"{root.parent}\n"


def test_another_size_and_another_number_are_altered_and_load_when_allowed(root, monkeypatch):
    monkeypatch.setattr(camvid, "COUNTS", {"train": 4, "test": 2})
    monkeypatch.setattr(camvid, "MASKS", camvid.Masks(camvid.MASKS.values, 96, 72))
    official = "48x36 where the official images are 96x72"
    assert refused(root).startswith(
        f"camvid: {root / 'train'}: altered: {official}; 3 images where the official split has 4; "
        f"{root / 'test'}: altered: {official}. Pass --allow-altered to use it anyway, or copy the folder CamVid of "
    )
    assert load(root, allow_altered=True).altered == ("CamVid/train", "CamVid/test")


def test_the_validation_images_are_not_needed(root):
    assert not (root / "val").exists()
    assert len(load(root).test.images) == 2


def test_images_are_decoded_once_and_again_when_a_file_or_the_size_changes(root, tmp_path, monkeypatch):
    first = load(root).fingerprint
    write_mask(root / "trainannot" / "b.png", *SIDES, values=[1, 2, 4, 5, 6, 7])
    changed = load(root).fingerprint
    assert changed != first
    assert load(root, size=9).train.images.shape == (3, 3, 9, 12)
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 3
    monkeypatch.setattr(camvid.dense, "read", lambda *_: pytest.fail("decoded again"))
    assert load(root).fingerprint == changed


# ---- the real set ---------------------------------------------------------------------------------------------------


# measured on the prepared copy of shared/data, halved from the official images
MEAN = [0.4136, 0.4273, 0.4340]
STD = [0.3019, 0.3057, 0.3018]
SHARES = [0.1763, 0.2424, 0.0102, 0.3282, 0.0467, 0.1014, 0.0122, 0.0117, 0.0611, 0.0067, 0.0030]
REAL = pytest.mark.data("camvid", altered=True)


@pytest.fixture(scope="module")
def real():
    """At 240x180, the size of the prepared copy; the official images are resized to it."""
    return data.load("camvid", size=180, allow_altered=True)


@pytest.mark.slow
@REAL
def test_numbers_classes_and_the_share_of_void(real):
    assert real.train.images.shape == (367, 3, 180, 240)
    assert real.test.images.shape == (233, 3, 180, 240)
    for split in (real.train, real.test):
        assert split.labels.unique().tolist() == [*range(11), 255]
        assert 0.03 < (split.labels == 255).float().mean() < 0.05


@REAL
def test_statistics_are_those_that_were_measured(real):
    """None are published. The official images, halved with another filter, deviate a little less."""
    pixels = real.train.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(MEAN, abs=2e-3)
    assert pixels.movedim(1, 0).flatten(1).std(1).tolist() == pytest.approx(STD, abs=1e-2)
    shares = real.train.labels.flatten().bincount(minlength=256)[:11].double()
    assert (shares / shares.sum()).tolist() == pytest.approx(SHARES, abs=2e-3)


@REAL
def test_labels_lie_where_their_things_are(real):
    labels = real.train.labels
    height = torch.arange(180.0)[None, :, None].expand_as(labels)
    mean_height = [height[labels == index].mean().item() / 180 for index in range(11)]
    sky, road = real.classes.index("sky"), real.classes.index("road")
    assert mean_height[sky] == min(mean_height) < 0.3  # from the top
    assert 0.7 < mean_height[road] == max(mean_height)


@REAL
def test_labels_and_images_go_together(real):
    """The sky is brighter than the rest of its own image, in almost all of them."""
    pairs = [
        (image[labels == 0].mean(), image[labels != 0].mean())
        for image, labels in zip(real.test.images.float().mean(1), real.test.labels, strict=True)
        if (labels == 0).any()
    ]
    assert sum(bool(sky > rest) for sky, rest in pairs) > 0.97 * len(pairs)
