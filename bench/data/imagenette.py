"""Imagenette: 9,469 + 3,925 photographs of ten easily told classes of ImageNet, as fastai publishes them.

The second edition, whose shorter sides have 320 or 160 pixels, as two data sets: resized to a task's size, their pixels
differ. ``imagenette2-320/{train,val}`` have a folder for each class, named by its WordNet id; torchvision has the same.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench.data import class_folders
from bench.data.class_folders import ClassFolders
from bench.data.source import Archive, FileStatus, Pair, Source, Tree

CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
TRAIN = ClassFolders("train", tuple(CLASSES), official=9_469)
TEST = ClassFolders("val", tuple(CLASSES), official=3_925)
SITE = "https://s3.amazonaws.com/fast-ai-imageclas"


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The state of both splits, and of their wrong files: missing and, with ``thorough``, damaged ones."""
    return [status for split in (TRAIN, TEST) for status in class_folders.inspect(root, split, thorough)]


def read(name: str, root: Path, size: int) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, size, size), labels int64 (N,) in 0..9; see :func:`pairs`."""
    train, test = class_folders.pairs(name, root, size, TRAIN.listed(root), TEST.listed(root))
    return train, test


def _source(name: str, pixels: int, archive: Archive | None) -> Source:
    folder = f"imagenette2-{pixels}"
    return Source(
        name=name,
        title=f"Imagenette photographs, shorter side {pixels} pixels",
        classes=tuple(CLASSES.values()),
        files=(),
        licence="Apache 2.0, and ImageNet's terms for the images",
        citation="J. Howard and fastai: Imagenette, https://github.com/fastai/imagenette, 2019",
        how_to_place=f"download {SITE}/{folder}.tgz and unpack it, so that {folder} is a folder of the data folder",
        archive=archive,
        tree=Tree(root=folder, inspect=inspect, read=partial(read, name)),
        test_images=TEST.official,
    )


SOURCES = (
    _source(
        "imagenette",
        320,
        Archive(
            "imagenette2-320.tgz",
            341_663_724,
            "3df6f0d01a2c9592104656642f5e78a3",
            (f"{SITE}/imagenette2-320.tgz",),
            tops=("train", "val"),
        ),
    ),
    _source("imagenette_160", 160, None),  # its archive's size is not known for certain
)
