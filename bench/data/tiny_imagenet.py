"""Tiny-ImageNet: 100,000 + 10,000 photographs of 64x64 pixels in 200 classes, in the layout of Stanford's archive.

``tiny-imagenet-200/train`` has a folder for each class, with its JPEG files in ``images``. The test images are those of
``val/images``, as in the papers, and ``val/val_annotations.txt`` says of which class each is. The archive's own test
images have no labels and are not used.
"""

from __future__ import annotations

from pathlib import Path

from bench.data import class_folders, trees
from bench.data.class_folders import ClassFolders
from bench.data.source import Archive, FileStatus, MalformedError, Pair, Source, Tree
from bench.data.wnids import TINY_IMAGENET
from bench.errors import nearest

FOLDER = "tiny-imagenet-200"
SIDE = 64  # pixels
TRAIN = ClassFolders("train", TINY_IMAGENET, official=100_000, each=500, side=SIDE, inner="images")
TEST = 10_000  # images
LIST = "val/val_annotations.txt"
FIELDS = 6  # of a line: image, class, and the four sides of a box


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The state of both splits, and of their wrong files: missing and, with ``thorough``, damaged ones."""
    return [*class_folders.inspect(root, TRAIN, thorough), *_inspect_test(root, thorough)]


def read(root: Path, size: int) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, size, size), labels int64 (N,) in 0..199; see :func:`pairs`."""
    with trees.usable(root / LIST):
        labels = test_labels(root)
    test = ([root / "val" / "images" / name for name in labels], list(labels.values()))
    first, second = class_folders.pairs("tiny-imagenet", root, size, TRAIN.listed(root), test)
    return first, second


def test_labels(root: Path) -> dict[str, int]:
    """The label of each test image by its name, in the order of the list. Raises MalformedError that names the line."""
    file = root / LIST
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MalformedError("missing", "missing; without it nobody knows the classes of val/images") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedError("corrupted", f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    order = {name: label for label, name in enumerate(TRAIN.classes)}
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        if len(fields) != FIELDS:
            sentence = f"line {number}: {len(fields)} fields, expected {FIELDS} with tabs between them"
            last = number == len(lines)
            raise MalformedError("truncated" if last else "corrupted", f"{'ends early, ' if last else ''}{sentence}")
        name, wnid = fields[:2]
        if wnid not in order:
            raise MalformedError("corrupted", f"line {number}: no such class: {wnid!r}{nearest(wnid, order)}")
        if name in found:
            raise MalformedError("corrupted", f"line {number}: {name} stands there a second time")
        if Path(name).name != name:
            raise MalformedError("corrupted", f"line {number}: {name!r} is not the name of a file in val/images")
        found[name] = order[wnid]
    if not found:
        raise MalformedError("truncated", "empty")
    return found


def _inspect_test(root: Path, thorough: bool) -> list[FileStatus]:
    folder = root / "val" / "images"
    try:
        labels = test_labels(root)
    except MalformedError as error:
        return [trees.wrong(root / LIST, root, error.state, str(error))]
    there = trees.names_in(folder)
    bad = [trees.wrong(folder / name, root, "missing", "missing") for name in labels if name not in there]
    paths = [folder / name for name in labels if name in there]
    if not paths:
        return [trees.wrong(folder, root, "missing", "missing, or without the images of val_annotations.txt")]
    altered = []
    if len(labels) != TEST:
        altered.append(f"val_annotations.txt lists {len(labels):,} images, officially {TEST:,}")
    if unlisted := sorted(path.name for path in class_folders.images_in(folder) if path.name not in labels):
        altered.append(f"{trees.some(unlisted)}, which val_annotations.txt does not list")
    damaged, sizes = class_folders.looked_at(paths if thorough else paths[:1], root, SIDE, thorough)
    sentence = f"{len(paths):,} images of {len(set(labels.values())):,} classes"
    return [trees.part(folder, root, [*altered, *sizes], sentence), *trees.shortened([*bad, *damaged])]


SOURCES = (
    Source(
        name="tiny_imagenet",
        title="Tiny-ImageNet photographs",
        classes=TINY_IMAGENET,
        files=(),
        licence="ImageNet's: for non-commercial research and education",
        citation="Y. Le, X. Yang: Tiny ImageNet visual recognition challenge, CS 231N report, Stanford, 2015",
        how_to_place=f"download http://cs231n.stanford.edu/tiny-imagenet-200.zip and unpack it, so that {FOLDER} is a "
        "folder of the data folder",
        archive=Archive(
            "tiny-imagenet-200.zip",
            248_100_043,
            "90528d7ca1a48142e341f4ef8d21d0de",
            ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "https://cs231n.stanford.edu/tiny-imagenet-200.zip"),
            tops=("train", "val", "wnids.txt", "words.txt"),
        ),
        tree=Tree(root=FOLDER, inspect=inspect, read=read, also=("tiny_imagenet", "tiny-imagenet")),
        test_images=TEST,
    ),
)
