"""CINIC-10: 90,000 + 90,000 colour images of 32x32 pixels in CIFAR-10's classes, from CIFAR-10 and from ImageNet.

``CINIC-10/{train,valid,test}`` have a folder for each class with 9,000 PNG files. The third part, ``valid``, is not
used: some train on it as well, which makes another data set of it.
"""

from __future__ import annotations

from pathlib import Path

from bench.data import cifar, class_folders
from bench.data.class_folders import ClassFolders
from bench.data.source import Archive, FileStatus, Pair, Source, Tree

CLASSES = cifar.SOURCES[0].classes
URL = "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz"
TRAIN, TEST = (ClassFolders(name, CLASSES, official=90_000, each=9_000, side=32) for name in ("train", "test"))


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The state of both splits, and of their wrong files: missing and, with ``thorough``, damaged ones."""
    return [status for split in (TRAIN, TEST) for status in class_folders.inspect(root, split, thorough)]


def read(root: Path, size: int) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, size, size), labels int64 (N,) in 0..9; see :func:`pairs`."""
    train, test = class_folders.pairs("cinic10", root, size, TRAIN.listed(root), TEST.listed(root))
    return train, test


SOURCES = (
    Source(
        name="cinic10",
        title="CINIC-10 natural images",
        classes=CLASSES,
        files=(),
        licence="CC BY 4.0, and ImageNet's terms for the images that come from there",
        citation="L. N. Darlow, E. J. Crowley, A. Antoniou, A. J. Storkey: CINIC-10 is not ImageNet or CIFAR-10, "
        "report EDI-INF-ANC-1802, University of Edinburgh, 2018",
        how_to_place=f"download {URL} and unpack it into the folder CINIC-10 of the data folder, so that "
        "CINIC-10/train and CINIC-10/test are there",
        archive=Archive(
            "CINIC-10.tar.gz", 687_544_992, "6ee4d0c996905fe93221de577967a372", (URL,), tops=("train", "valid", "test")
        ),
        tree=Tree(root="CINIC-10", inspect=inspect, read=read, also=("cinic-10", "cinic10")),
        test_images=90_000,
    ),
)
