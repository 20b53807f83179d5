"""ImageNet: decoded once into files that are mapped, with or without training images, and used by a trial."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tree_files import truncate, write_image

from bench import data
from bench.cli import answer
from bench.data import decoded, imagenet
from bench.data.batches import RealImages, normalise
from bench.data.image_spec import Augmentation, ImageSpec
from bench.data.images import fingerprint
from bench.data.source import Split
from bench.errors import MethodError, MissingData, UserError
from bench.execution import prepare
from bench.harness import evaluation
from bench.harness.teachers.cache import train_teacher
from bench.models import build
from bench.records import load_records
from bench.spec.task import TeacherSpec, get_task, tasks
from bench.utils.stopping import Stopped

TWO = ("n01440764", "n01443537")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_is_official(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(imagenet, "TRAIN", replace(imagenet.TRAIN, classes=TWO, official=6))
    monkeypatch.setattr(imagenet, "TEST", replace(imagenet.TEST, classes=TWO, official=4, each=2))
    source = replace(data.SOURCES["imagenet"], classes=TWO)
    monkeypatch.setitem(data.SOURCES, "imagenet", source)
    prepare._dataset.cache_clear()
    yield
    prepare._dataset.cache_clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data" / "imagenet"
    for split, count, seed in (("train", 3, 0), ("val", 2, 50)):
        for label, name in enumerate(TWO):
            for number in range(count):
                file = root / split / name / f"ILSVRC2012_{split}_{number:08d}.JPEG"
                write_image(file, 60 + 10 * number, 48, seed=seed + 10 * label + number, mode="RGB" if number else "L")
    return root


def load(root: Path, size: int = 28) -> data.Dataset:
    return data.load("imagenet", size=size, folder=root.parent)


def kept(root: Path) -> list[str]:
    """The names of the cached files without their hash, but for locks."""
    folder = root.parent.parent / "cache" / "decoded"
    names = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
    return [f"{name[: name.rindex('-')]}{name[name.rindex('.') :]}" for name in names]


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_a_small_set_is_mapped_class_by_class(root: Path) -> None:
    dataset = load(root)
    assert dataset.altered == ()
    assert dataset.train.images.shape == (6, 3, 28, 28)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.images.shape == (4, 3, 28, 28)
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert dataset.train.mapped
    assert dataset.test.mapped
    assert kept(root) == [f"imagenet-{split}-28.{end}" for split in ("train", "val") for end in ("pixels", "sha256")]


def test_images_are_cut_as_torchvision_does(root: Path) -> None:
    """The same resize and the same crop; single pixels differ by one, since Pillow rounds twice."""
    from bench.utils.torchvision_compat import torchvision

    kinds = torchvision().transforms
    theirs = kinds.Compose([kinds.Resize(32), kinds.CenterCrop(28), kinds.PILToTensor()])
    found = load(root).train.images
    for index, path in enumerate(sorted((root / "train").rglob("*.JPEG"))):
        with Image.open(path) as image:
            difference = theirs(image.convert("RGB")).int() - found[index].int()
        assert difference.abs().max() <= 1, path
    assert imagenet.cut(path, 224).shape == (3, 224, 224)


def test_an_image_is_not_turned_by_its_exif_as_torchvision_does_not(root: Path) -> None:
    path = root / "val" / TWO[0] / "ILSVRC2012_val_00000001.JPEG"
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for how in ({}, {"exif": exif}):
        pixels.save(path, format="PNG", **how)  # lossless; one file of the real set is a PNG as well
        expected = torch.from_numpy(np.array(pixels)).movedim(2, 0)
        assert torch.equal(imagenet.cut(path, 42), expected[:, 3:45, (pixels.width - 42) // 2 :][:, :, :42])


def test_the_fingerprint_depends_on_the_pixels_alone(root: Path, tmp_path: Path) -> None:
    first = load(root)
    elsewhere = shutil.copytree(root, tmp_path / "elsewhere" / "ImageNet")
    assert load(elsewhere).fingerprint == first.fingerprint
    write_image(root / "val" / TWO[1] / "ILSVRC2012_val_00000001.JPEG", 70, 48, seed=999)
    assert load(root).fingerprint != first.fingerprint


def test_a_digest_is_that_of_the_bytes_and_others_fingerprints_stay(root: Path) -> None:
    import hashlib

    split = load(root).test
    assert split.digest == hashlib.sha256(split.images.contiguous().numpy().tobytes()).hexdigest()
    image = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    expected = hashlib.sha256(b"torch.uint8 (1, 3, 2, 2);" + bytes(range(12))).hexdigest()
    assert fingerprint(image) == expected


def test_what_was_decoded_is_not_decoded_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root)
    monkeypatch.setattr(imagenet, "cut", lambda path, size: pytest.fail("decoded again"))
    again = load(root)
    assert torch.equal(again.train.images, first.train.images)
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize("spoil", ["shorter", "changed", "no note"])
def test_a_file_that_is_not_as_it_was_made_is_made_again(spoil: str, root: Path) -> None:
    first = load(root).test.images.clone()
    (file,) = (root.parent.parent / "cache" / "decoded").glob("imagenet-val-28-*.pixels")
    content = file.read_bytes()
    if spoil == "no note":
        file.with_suffix(".sha256").unlink()
    file.unlink()
    file.write_bytes(content[:-1] if spoil == "shorter" else bytes(len(content)))
    assert torch.equal(load(root).test.images, first)


def test_mapped_images_are_not_in_memory_and_cannot_be_changed_for_others(root: Path) -> None:
    images = load(root).train.images
    before = images.clone()
    images.zero_()
    assert torch.equal(load(root).train.images, before)


# ---- without training images -----------------------------------------------------------------------------------------


def test_without_training_images_the_set_is_whole(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = load(root).fingerprint
    shutil.rmtree(root / "train")
    dataset = load(root)
    assert dataset.altered == ()
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (0, 4)
    assert dataset.train.images.shape == (0, 3, 28, 28)
    assert dataset.fingerprint != whole
    assert answer(["data", "status", "imagenet", "--data", str(root.parent)]) == 0
    shown = capsys.readouterr().out
    assert "\nimagenet: ImageNet photographs (ILSVRC 2012): ok\n" in shown
    assert f"{root / 'train'}: not there; methods and teachers that need real training images cannot run\n" in shown
    assert f"{root / 'val'}: 4 images of 2 classes\n" in shown


def test_what_needs_training_images_says_that_there_are_none(root: Path) -> None:
    shutil.rmtree(root / "train")
    image = ImageSpec(channels=3, size=28, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(MethodError, match=r"^there are no real images to make batches of$"):
        RealImages(load(root).train, image, 0, CPU)
    with pytest.raises(
        MissingData, match=r"^a pool needs real training images, and imagenet has none here; ask for acc"
    ):
        data.load_pool("imagenet", size=28, channels=3, folder=root.parent)
    task = get_task("imagenet/resnet34-resnet18")
    with pytest.raises(
        MissingData, match=r"^training a teacher of imagenet/resnet34-resnet18 needs real training imag"
    ):
        train_teacher(task, TeacherSpec(network="resnet18", recipe="cifar-quick"), load(root))


def test_as_a_pool_its_training_images_stay_mapped(root: Path) -> None:
    pool = data.load_pool("imagenet", size=28, channels=3, folder=root.parent)
    train = load(root).train.images
    assert torch.equal(pool.images, train)
    assert pool.images.untyped_storage().nbytes() == train.untyped_storage().nbytes()


# ---- a broken set, and too little room -------------------------------------------------------------------------------


def complaint(root: Path) -> str:
    with pytest.raises(UserError) as raised:
        load(root)
    return str(raised.value)


def test_nothing_there_says_where_to_get_it_and_where_to_put_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    message = complaint(tmp_path / "data" / "imagenet")
    assert message.startswith("imagenet: missing from ")
    assert "To fix it, ask for access at https://image-net.org/download, and put the images" in message
    with pytest.raises(UserError, match=r"^imagenet has no official archive to fetch: ask for access at"):
        data.fetch("imagenet", tmp_path / "data")


def test_a_missing_class_and_other_numbers_are_named(root: Path) -> None:
    (root / "val" / TWO[0] / "ILSVRC2012_val_00000000.JPEG").unlink()
    assert f"{root / 'val'}: altered: 1 images of {TWO[0]}, officially 2. Pass --allow-altered" in complaint(root)
    shutil.rmtree(root / "val" / TWO[0])
    assert f"missing from {root.parent}: imagenet/val/{TWO[0]}." in complaint(root)


def test_training_images_that_are_still_packed_are_named(root: Path) -> None:
    for name in TWO:
        shutil.rmtree(root / "train" / name)
        (root / "train" / f"{name}.tar").touch()
    (row,) = [each for each in data.status("imagenet", root.parent) if each.state == "missing"]
    assert row.message == f"{root / 'train'}: no images in its class folders ({', '.join(TWO)})"


def test_a_truncated_image_is_named_and_nothing_of_it_is_left(root: Path) -> None:
    bad = truncate(root / "val" / TWO[1] / "ILSVRC2012_val_00000000.JPEG")
    assert complaint(root) == f"{bad}: truncated: the image ends early"
    assert kept(root) == []


def test_too_little_room_says_how_much_is_needed_and_the_way_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    folder = root.parent.parent / "cache" / "decoded"
    assert complaint(root) == (
        f"imagenet-train: 6 images of 28x28 pixels are decoded once, into 0.0 GB, and {folder} has 0.0 GB left; "
        f"set DFKD_CACHE to a folder with more room, or move {root / 'train'} elsewhere: data-free methods need no "
        "training images"
    )
    assert decoded._gigabytes(1_281_167 * 3 * 224 * 224) == "192.9 GB"


def test_a_cache_that_cannot_be_written_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "file"))
    assert "the decoded images cannot be kept in " in complaint(root)
    assert "Not a directory; set DFKD_CACHE to a folder with room for them" in complaint(root)


def test_an_interrupted_decoding_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(root)
    expected, fingerprint_before = whole.train.images.clone(), whole.fingerprint
    shutil.rmtree(root.parent.parent / "cache")
    monkeypatch.setattr(decoded, "BLOCK", 2)
    asked = iter(["", "", "", "asked to stop"])  # after two blocks of val and one of train
    monkeypatch.setattr(decoded, "asked", lambda: next(asked))
    with pytest.raises(Stopped, match="asked to stop"):
        load(root)
    monkeypatch.setattr(decoded, "asked", lambda: "")
    (part,) = (root.parent.parent / "cache" / "decoded").glob(".imagenet-train-*.part")
    with part.open("ab") as file:
        file.write(b"half of an image")
    cut, seen = imagenet.cut, []
    monkeypatch.setattr(imagenet, "cut", lambda path, size: (seen.append(path.parts[-3]), cut(path, size))[1])
    again = load(root)
    assert seen.count("train") == 4
    assert torch.equal(again.train.images, expected)
    assert again.fingerprint == fingerprint_before


# ---- used ------------------------------------------------------------------------------------------------------------


def test_batches_of_mapped_images_are_those_of_images_in_memory(root: Path) -> None:
    image = ImageSpec(channels=3, size=28, mean=(0.5,) * 3, std=(0.2,) * 3)
    split = load(root).train
    mapped, whole = (RealImages(each, image, 3, CPU) for each in (split, Split(split.images.clone(), split.labels)))
    for _ in range(4):
        for ours, theirs in zip(mapped.take(4), whole.take(4), strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(mapped.survey(4)[0], whole.survey(4)[0])
    assert torch.equal(mapped.part(1, 2).take(2)[0], whole.part(1, 2).take(2)[0])


def test_mapped_images_go_to_a_device_in_batches_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's device without storage stands for a GPU, whose memory they would not fit into."""
    device = torch.device("meta")
    image = ImageSpec(channels=3, size=28, mean=(0.5,) * 3, std=(0.2,) * 3)
    split = load(root).train
    images = RealImages(split, image, 3, device, Augmentation(pad=2, flip=True))
    assert {each.device.type for each in (*images.take(4), *images.survey(4))} == {"meta"}
    assert {each.device.type for each in images.part(0, 2).take(2)} == {"meta"}
    images.choose(torch.tensor([1, 2]))
    assert images.take(5)[0].shape == (5, 3, 28, 28)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 28 * 28, 2)).to(device)
    monkeypatch.setattr(evaluation, "_classes_of_all", lambda _, batch: [batch.flatten(1).sum(1)])  # no autocast there
    assert evaluation.answers(network, split.images, image).device == device
    assert split.images.device == CPU


STUDY = """\
name: s
tasks: [imagenet/resnet34-resnet18]
methods: [noise: {batch: 4}, kd: {batch: 4}]
budget: {steps: 1}
points: 1
image_metrics: [class_balance, nearest_training_distance]
"""


@pytest.fixture
def small_task(monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path) -> Path:
    """The task at 32x32, and a checkpoint with torchvision's names, whose last layer knows the test images."""
    task = get_task("imagenet/resnet34-resnet18")
    small = task.model_copy(update={"image": task.image.model_copy(update={"size": 32})})
    monkeypatch.setitem(tasks(), task.name, small)  # type: ignore[index]
    torch.manual_seed(0)
    network = build(small.teacher.network, small.image, 2)
    test = data.load("imagenet", size=32, folder=root.parent).test
    seen: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network.eval()(normalise(test.images, small.image))
        wanted = torch.nn.functional.one_hot(test.labels, 2).float()
        network.fc.weight.copy_(torch.linalg.lstsq(seen[0], wanted, driver="gelsd").solution.T)
        network.fc.bias.zero_()
    torch.save(network.state_dict(), tmp_path / "resnet34-b627a593.pth")
    return tmp_path


@pytest.mark.parametrize(("train", "kd"), [(True, "ok"), (False, "missing_data")])
def test_trials_with_an_imported_teacher(train: bool, kd: str, small_task: Path, root: Path) -> None:
    """A data-free trial needs no training images, and one that does is a record without them."""
    if not train:
        shutil.rmtree(root / "train")
    place = ["--data", str(root.parent)]
    checkpoint = str(small_task / "resnet34-b627a593.pth")
    assert answer(["teacher", "import", checkpoint, "--task", "imagenet/resnet34-resnet18", *place]) == 0
    key = next(path.name for path in (small_task / "cache" / "teachers").iterdir() if path.is_dir())
    study = small_task / "study.yaml"
    study.write_text(STUDY + f"teachers: {{imagenet/resnet34-resnet18: {key}}}\n")
    results = small_task / "out"
    run = ["run", str(study), "--results", str(results), "--executor", "inline", "--isolation", "none", *place]
    assert answer(run) == (0 if train else 1)
    found = {record.trial.method: record for record in load_records(results)}
    assert {name: record.status for name, record in found.items()} == {"noise": "ok", "kd": kd}
    assert found["noise"].image_metrics["class_balance"].value is not None
    said = str(found["noise"].image_metrics["nearest_training_distance"])
    if train:
        assert "imagenet has 6 training images, too many to compare with all of them; `real_images: 10000`" in said
    else:
        assert "the task has no training images to compare with" in said
        assert found["kd"].reason.startswith(
            "kd needs real training images, and imagenet has none here; ask for access at https://image-net.org"
        )
