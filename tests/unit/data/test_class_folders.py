"""Tiny-ImageNet, CINIC-10 and Imagenette: a small set of each in its layout, and what is wrong with broken ones."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
import torch
from tree_files import truncate, write_classes, write_image

from bench import data
from bench.cli import answer
from bench.data import cinic, imagenette, tiny_imagenet
from bench.data.source import Archive, Tree
from bench.data.wnids import IMAGENET, TINY_IMAGENET
from bench.errors import MissingData, UserError

TWO = ("n01443537", "n01629819")
CINIC_TWO = ("airplane", "automobile")
NETTE_TWO = ("n01440764", "n02102040")


@pytest.fixture(autouse=True)
def _small_is_official(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two classes, three training images and two test images of each."""
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tiny_imagenet, "TRAIN", replace(tiny_imagenet.TRAIN, classes=TWO, official=6, each=3))
    monkeypatch.setattr(tiny_imagenet, "TEST", 4)
    monkeypatch.setattr(cinic, "TRAIN", replace(cinic.TRAIN, classes=CINIC_TWO, official=6, each=3))
    monkeypatch.setattr(cinic, "TEST", replace(cinic.TEST, classes=CINIC_TWO, official=4, each=2))
    monkeypatch.setattr(imagenette, "TRAIN", replace(imagenette.TRAIN, classes=NETTE_TWO, official=6))
    monkeypatch.setattr(imagenette, "TEST", replace(imagenette.TEST, classes=NETTE_TWO, official=4))


def write_tiny(data_folder: Path) -> Path:
    root = data_folder / "tiny-imagenet-200"
    for label, name in enumerate(TWO):
        for number in range(3):
            write_image(root / "train" / name / "images" / f"{name}_{number}.JPEG", 64, 64, seed=10 * label + number)
        (root / "train" / name / f"{name}_boxes.txt").write_text("")
    for number in range(4):
        write_image(root / "val" / "images" / f"val_{number}.JPEG", 64, 64, seed=100 + number, mode="RGB")
    lines = [f"val_{number}.JPEG\t{TWO[number % 2]}\t0\t32\t44\t62\n" for number in range(4)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(root / "test" / "images" / "test_0.JPEG", 64, 64)
    (root / "wnids.txt").write_text("\n".join(TWO))
    return root


def write_cinic(data_folder: Path) -> Path:
    root = data_folder / "CINIC-10"
    write_classes(root, "train", CINIC_TWO, 3, side=32)
    write_classes(root, "valid", CINIC_TWO, 1, side=32)
    return write_classes(root, "test", CINIC_TWO, 2, side=32, first=500)


def write_nette(data_folder: Path) -> Path:
    root = data_folder / "imagenette2-320"
    for split, count, seed in (("train", 3, 0), ("val", 2, 50)):
        for label, name in enumerate(NETTE_TWO):
            for number in range(count):
                file = root / split / name / f"ILSVRC2012_{split}_{number}.JPEG"
                write_image(file, 40, 32, seed=seed + 10 * label + number, mode="RGB" if number else "L")
    return root


SETS: dict[str, Callable[[Path], Path]] = {
    "tiny_imagenet": write_tiny,
    "cinic10": write_cinic,
    "imagenette": write_nette,
}
ALL = pytest.mark.parametrize("name", SETS)


def states(name: str, folder: Path, **options: Any) -> dict[str, str]:
    return {each.name: each.state for each in data.status(name, folder, **options)}


def complaint(name: str, folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as raised:
        data.load(name, size=16, folder=folder, **options)
    return str(raised.value)


# ---- what is official ------------------------------------------------------------------------------------------------


def test_the_classes_are_the_official_ones_in_the_order_of_their_folders() -> None:
    assert (len(IMAGENET), len(TINY_IMAGENET)) == (1000, 200)
    assert all(list(names) == sorted(set(names)) for names in (IMAGENET, TINY_IMAGENET, [*imagenette.CLASSES]))
    assert set(TINY_IMAGENET) < set(IMAGENET)
    assert set(imagenette.CLASSES) < set(IMAGENET)
    assert (IMAGENET[0], IMAGENET[217], IMAGENET[999]) == ("n01440764", "n02102040", "n15075141")
    assert (TINY_IMAGENET[0], TINY_IMAGENET[194], TINY_IMAGENET[199]) == ("n01443537", "n09193705", "n12267677")
    assert data.SOURCES["cinic10"].classes == data.SOURCES["cifar10"].classes
    assert data.SOURCES["imagenette"].classes == data.SOURCES["imagenette_160"].classes


def test_imagenettes_archive_and_classes_are_those_that_torchvision_knows() -> None:
    from bench.utils.torchvision_compat import torchvision

    theirs = torchvision().datasets.Imagenette
    archive = data.SOURCES["imagenette"].archive
    assert archive is not None
    assert theirs._ARCHIVES["320px"] == (archive.urls[0], archive.md5)
    assert {wnid: names[0] for wnid, names in theirs._WNID_TO_CLASS.items()} == imagenette.CLASSES


# ---- a whole set -----------------------------------------------------------------------------------------------------


@ALL
def test_a_small_set_is_read_class_by_class(name: str, tmp_path: Path) -> None:
    SETS[name](tmp_path)
    dataset = data.load(name, size=16, folder=tmp_path)
    assert dataset.altered == ()
    assert dataset.train.images.shape == (6, 3, 16, 16)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.images.shape == (4, 3, 16, 16)
    assert dataset.test.labels.tolist() == ([0, 1, 0, 1] if name == "tiny_imagenet" else [0, 0, 1, 1])
    assert dataset.test.labels.dtype == torch.int64
    assert len(dataset.train.images.flatten(1).unique(dim=0)) == 6
    again = data.load(name, size=16, folder=tmp_path)
    assert again.fingerprint == dataset.fingerprint
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 1


def test_images_of_the_official_size_are_not_resized(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    root = write_cinic(tmp_path)
    with Image.open(root / "train" / "airplane" / "0.png") as image:
        expected = torch.from_numpy(np.array(image)).movedim(2, 0)
    assert torch.equal(data.load("cinic10", size=32, folder=tmp_path).train.images[0], expected)


def test_a_test_images_label_is_that_of_its_line(tmp_path: Path) -> None:
    root = write_tiny(tmp_path)
    before = data.load("tiny_imagenet", size=64, folder=tmp_path).test
    file = root / "val" / "val_annotations.txt"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    after = data.load("tiny_imagenet", size=64, folder=tmp_path).test
    assert torch.equal(after.images, before.images.flip(0))
    assert torch.equal(after.labels, before.labels.flip(0))


@ALL
def test_status_has_one_line_for_each_split(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = SETS[name](tmp_path)
    train, test = data.status(name, tmp_path, thorough=True)
    assert (train.state, test.state) == ("ok", "ok")
    assert train.message == f"{root / 'train'}: 6 images of 2 classes"
    assert test.message.endswith(": 4 images of 2 classes")
    assert answer(["data", "status", name, "--data", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"\n{name}: {data.SOURCES[name].title}: ok\n" in shown
    assert f"  ok         {train.message}\n" in shown
    assert answer(["data", "verify", name, "--data", str(tmp_path)]) == 0
    assert answer(["data", "path", name, "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{name}: ok\n{tmp_path}\n"


@pytest.mark.parametrize(
    ("name", "other"), [("cinic10", "cinic10"), ("cinic10", "cinic-10"), ("tiny_imagenet", "tiny-imagenet")]
)
def test_other_usual_names_of_the_folder_are_found(name: str, other: str, tmp_path: Path) -> None:
    SETS[name](tmp_path).rename(tmp_path / other)
    assert set(states(name, tmp_path).values()) == {"ok"}
    assert len(data.load(name, size=16, folder=tmp_path).train.labels) == 6


def test_a_set_that_is_nowhere_says_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = complaint("cinic10", tmp_path)
    assert message.startswith("cinic10: missing from ")
    assert ". Run `dfkd data fetch cinic10`, or download https://datashare.is.ed.ac.uk/" in message
    assert answer(["data", "status", "cinic10", "imagenette_160", "--data", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "the folder CINIC-10 (or cinic-10, cinic10) was not found in" in shown
    assert "to fix it: `dfkd data fetch cinic10`, or download" in shown
    assert "to fix it: download https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz" in shown


# ---- a broken set ----------------------------------------------------------------------------------------------------


@ALL
def test_a_missing_class_folder_is_named(name: str, tmp_path: Path) -> None:
    root = SETS[name](tmp_path)
    second = sorted(path for path in (root / "train").iterdir())[1]
    second.rename(root / "elsewhere")
    with pytest.raises(MissingData) as raised:
        data.load(name, size=16, folder=tmp_path, allow_altered=True)
    assert str(raised.value).startswith(
        f"{name}: missing from {tmp_path}: {root.name}/train/{second.name}. Move {root} "
    )
    assert states(name, tmp_path)[f"{root.name}/train/{second.name}"] == "missing"


@ALL
def test_a_missing_split_is_named(name: str, tmp_path: Path) -> None:
    root = SETS[name](tmp_path)
    (root / "train").rename(root / "elsewhere")
    assert f"missing from {tmp_path}: {root.name}/train." in complaint(name, tmp_path)


def test_classes_that_are_not_sorted_into_folders_are_one_line(tmp_path: Path) -> None:
    root = write_cinic(tmp_path)
    for name in CINIC_TWO:
        (root / "test" / name).rename(root / "test" / f"{name}s")
    message = {each.name: each.message for each in data.status("cinic10", tmp_path)}["CINIC-10/test"]
    assert message == f"{root / 'test'}: no images in its class folders (airplane, automobile)"


@ALL
def test_other_classes_are_altered_and_named(name: str, tmp_path: Path) -> None:
    root = SETS[name](tmp_path)
    write_image(root / "train" / "n99999999" / "0.png", 64, 64)
    assert f"{root / 'train'}: altered: n99999999 where no such class is. Pass --allow-altered" in complaint(
        name, tmp_path
    )
    dataset = data.load(name, size=16, folder=tmp_path, allow_altered=True)
    assert dataset.altered == (f"{root.name}/train",)
    assert len(dataset.train.labels) == 6


@ALL
def test_other_numbers_of_images_are_altered_and_named(name: str, tmp_path: Path) -> None:
    root = SETS[name](tmp_path)
    next((root / "train").rglob("*_0.JPEG" if name != "cinic10" else "0.png")).unlink()
    said = "5 images, officially 6" if name == "imagenette" else "2 images of "
    assert f"altered: {said}" in complaint(name, tmp_path)


@ALL
def test_a_truncated_image_is_named_by_load_and_by_verify(name: str, tmp_path: Path) -> None:
    root = SETS[name](tmp_path)
    bad = truncate(sorted(path for path in (root / "train").rglob("*") if path.suffix in (".JPEG", ".png"))[4])
    assert complaint(name, tmp_path) == f"{bad}: truncated: the image ends early"
    assert set(states(name, tmp_path).values()) == {"ok"}
    assert states(name, tmp_path, thorough=True)[bad.relative_to(tmp_path).as_posix()] == "truncated"


def test_images_of_another_size_are_altered(tmp_path: Path) -> None:
    root = write_tiny(tmp_path)
    file = write_image(root / "train" / TWO[0] / "images" / f"{TWO[0]}_0.JPEG", 48, 64)
    message = f"altered: {file.name} has 48x64 pixels, officially 64x64"
    assert message in complaint("tiny_imagenet", tmp_path)
    other = write_image(root / "train" / TWO[1] / "images" / f"{TWO[1]}_2.JPEG", 64, 48)
    assert f"{message}, {other.name} has 64x48" in str(data.status("tiny_imagenet", tmp_path, thorough=True)[0].message)


LINE = "val_1.JPEG\tn01629819\t0\t32\t44\t62\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda text: text.replace("n01629819", "n01629818", 1),
            "line 2: no such class: 'n01629818'; did you mean 'n016",
        ),
        (lambda text: text.replace(LINE, LINE.replace("\t", " ")), "line 2: 1 fields, expected 6 with tabs between"),
        (lambda text: text[:-15], "ends early, line 4: 2 fields, expected 6"),
        (lambda text: text + LINE, "line 5: val_1.JPEG stands there a second time"),
        (
            lambda text: text.replace("val_1", "../val_1"),
            "line 2: '../val_1.JPEG' is not the name of a file in val/images",
        ),
        (lambda text: "", "val_annotations.txt: empty"),
        (
            lambda text: text.replace(LINE, ""),
            "val_annotations.txt lists 3 images, officially 4; val_1.JPEG, which val_",
        ),
        (
            lambda text: text + LINE.replace("_1", "_9"),
            "missing from {place}: tiny-imagenet-200/val/images/val_9.JPEG.",
        ),
    ],
)
def test_a_wrong_list_of_test_images_says_what_is_wrong(
    change: Callable[[str], str], sentence: str, tmp_path: Path
) -> None:
    file = write_tiny(tmp_path) / "val" / "val_annotations.txt"
    file.write_text(change(file.read_text()))
    assert sentence.format(place=tmp_path) in complaint("tiny_imagenet", tmp_path)


def test_without_the_list_nobody_knows_the_classes(tmp_path: Path) -> None:
    (write_tiny(tmp_path) / "val" / "val_annotations.txt").unlink()
    (row,) = [each for each in data.status("tiny_imagenet", tmp_path) if each.state == "missing"]
    assert row.message.endswith("val_annotations.txt: missing; without it nobody knows the classes of val/images")


# ---- fetching --------------------------------------------------------------------------------------------------------


def packed(kind: str, root: Path, above: str) -> bytes:
    """The set's folder as an archive, with ``above`` before each name."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w") as target:
            target.mkdir(f"{above}train/")
            for path in files:
                target.write(path, f"{above}{path.relative_to(root).as_posix()}")
    else:
        with tarfile.open(fileobj=content, mode="w:gz") as target:
            for path in files:
                target.add(path, f"{above}{path.relative_to(root).as_posix()}")
    return content.getvalue()


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Register what was packed as a set's official archive."""

    def register(name: str, content: bytes) -> Path:
        source = data.SOURCES[name]
        assert source.archive is not None
        site = tmp_path / "site" / source.archive.name
        site.parent.mkdir(exist_ok=True)
        site.write_bytes(content)
        digest = md5(content, usedforsecurity=False).hexdigest()
        archive = Archive(site.name, len(content), digest, (site.as_uri(),), tops=source.archive.tops)
        monkeypatch.setitem(data.SOURCES, name, replace(source, archive=archive))
        return site

    return register


@pytest.mark.parametrize(
    ("name", "kind", "above"),
    [
        ("tiny_imagenet", "zip", "tiny-imagenet-200/"),
        ("cinic10", "tar", "./"),
        ("imagenette", "tar", "imagenette2-320/"),
    ],
)
def test_a_fetched_set_is_whole(
    name: str, kind: str, above: str, tmp_path: Path, publish: Callable[[str, bytes], Path]
) -> None:
    root = SETS[name](tmp_path / "packed")
    publish(name, packed(kind, root, above))
    seen: list[int] = []
    target = tmp_path / "target"
    assert data.fetch(name, target, lambda *step: seen.append(step[1])) == target
    assert seen
    assert set(states(name, target, thorough=True).values()) == {"ok"}
    assert [path.name for path in target.iterdir()] == [root.name]
    wanted = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    there = {path.relative_to(target / root.name) for path in target.rglob("*") if path.is_file()}
    assert there == {path for path in wanted if (name, path.parts[0]) != ("tiny_imagenet", "test")}
    seen.clear()
    assert data.fetch(name, target, lambda *step: seen.append(step[1])) == target  # nothing is fetched twice
    assert not seen


def test_an_archive_that_was_downloaded_by_hand_is_unpacked(
    tmp_path: Path, publish: Callable[[str, bytes], Path]
) -> None:
    site = publish("cinic10", packed("tar", write_cinic(tmp_path / "packed"), ""))
    target = tmp_path / "target"
    target.mkdir()
    site.rename(target / "CINIC-10.tar.gz")
    assert f"`dfkd data fetch cinic10 --data {target}`, which unpacks {target / 'CINIC-10.tar.gz'}" in complaint(
        "cinic10", target
    )
    data.fetch("cinic10", target)
    assert set(states("cinic10", target).values()) == {"ok"}


def test_an_incomplete_set_is_left_to_its_owner(tmp_path: Path, publish: Callable[[str, bytes], Path]) -> None:
    root = write_cinic(tmp_path)
    publish("cinic10", packed("tar", root, ""))
    (root / "train" / "airplane" / "0.png").unlink()
    with pytest.raises(UserError, match=rf"altered: 2 images of airplane, officially 3\. Move {root} elsewhere, then "):
        data.fetch("cinic10", tmp_path)
    assert not (root / "train" / "airplane" / "0.png").exists()


def member(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as target:
        info = tarfile.TarInfo("train/airplane/0.png")
        info.size = 4
        target.addfile(info, io.BytesIO(b"data"))
        bad = tarfile.TarInfo(name)
        bad.type, bad.linkname = kind, "/etc/passwd"
        target.addfile(bad, io.BytesIO(b""))
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (member("train/../../x"), "its member 'train/../../x' points outside the archive"),
        (member("/train/x"), "its member '/train/x' points outside the archive"),
        (member("train/x", tarfile.SYMTYPE), "its member 'train/x' is not a regular file"),
        (b"no archive", "not a gzip file"),
    ],
)
def test_what_an_archive_must_not_contain_leaves_nothing(
    content: bytes, sentence: str, tmp_path: Path, publish: Callable[[str, bytes], Path]
) -> None:
    publish("cinic10", content)
    target = tmp_path / "target"
    with pytest.raises(UserError, match=sentence):
        data.fetch("cinic10", target)
    assert list(target.iterdir()) == []


def test_an_archive_of_something_else_is_refused(tmp_path: Path, publish: Callable[[str, bytes], Path]) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        target.writestr("README", "nothing")
    publish("tiny_imagenet", content.getvalue())
    with pytest.raises(UserError, match=r"it contains neither train nor val nor wnids\.txt nor words\.txt"):
        data.fetch("tiny_imagenet", tmp_path / "target")


def test_a_link_in_a_zip_is_refused(tmp_path: Path, publish: Callable[[str, bytes], Path]) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        link = zipfile.ZipInfo("train/x")
        link.external_attr = 0o120777 << 16
        target.writestr(link, "/etc/passwd")
    publish("tiny_imagenet", content.getvalue())
    with pytest.raises(UserError, match=r"its member 'train/x' is not a regular file"):
        data.fetch("tiny_imagenet", tmp_path / "target")


def test_another_archive_than_the_official_one_is_refused(
    tmp_path: Path, publish: Callable[[str, bytes], Path]
) -> None:
    site = publish("imagenette", packed("tar", write_nette(tmp_path / "packed"), ""))
    content = site.read_bytes()
    site.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"the archive's md5 is [0-9a-f]{32}, official [0-9a-f]{32}"):
        data.fetch("imagenette", tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


@ALL
def test_the_fence_covers_the_set(name: str, tmp_path: Path) -> None:
    """Real images are below a protected folder, and so are those that were decoded."""
    SETS[name](tmp_path)
    data.load(name, size=16, folder=tmp_path)
    protected = data.protected_paths(tmp_path)
    (kept,) = (tmp_path / "cache" / "decoded").iterdir()
    assert any(kept.is_relative_to(each) for each in protected)
    assert tmp_path in protected


def test_status_as_json_says_where_a_set_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_nette(tmp_path)
    assert answer(["data", "status", "imagenette", "--data", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert [file["path"] for file in row["files"]] == [str(root / "train"), str(root / "val")]
    assert row["state"] == "ok"


def test_a_tree_is_found_by_the_first_of_its_names(tmp_path: Path) -> None:
    tree = Tree("A", lambda root: [], lambda root, size: pytest.fail("read"), also=("B", "C"))
    assert tree.folder(tmp_path) is None
    (tmp_path / "C").mkdir()
    assert tree.folder(tmp_path) == tmp_path / "C"
    (tmp_path / "B").mkdir()
    assert tree.folder(tmp_path) == tmp_path / "B"
