"""NYU Depth V2 with 13 classes: indoor scenes, in the layout that DFAD's loader reads (data-free segmentation).

Below the folder ``NYUv2`` lie the images of ``nyu_depth_v2_labeled.mat`` as ``480_640/IMAGE/0.png`` to ``1448.png``,
and in ``nyuv2-meta-data`` the masks of ankurhanda/nyuv2-meta-data as ``train_labels_13/new_nyu_class13_0001.png`` and
so on, likewise in ``test_labels_13``, beside the official ``splits.mat`` (``trainNdxs`` and ``testNdxs``). The masks
and the split count from 1, and the images from 0: mask 0001 belongs to image 0.

The masks' value 0 is void, and 1 to 13 are the classes. Train has 795 images and test 654. No checksums are published:
a copy counts as official by the split's lengths and the images' size of 640x480 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.data import dense, trees
from bench.data.dense import LabelledImage, LabelledSplit, Masks
from bench.data.source import FileStatus, MalformedError, Pair, Source, Tree

CLASSES = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
)  # fmt: skip
MASKS = Masks(values=dense.values(len(CLASSES), void=0), width=640, height=480)
COUNTS = {"train": 795, "test": 654}
IMAGES = 1449  # labelled ones in all
META = "nyuv2-meta-data"


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The states of both splits and of their wrong files."""
    try:
        found = splits(root)
    except MalformedError as error:
        return [trees.wrong(root / META / "splits.mat", root, error.state, str(error))]
    return [status for split in found for status in dense.inspect(root, split, MASKS, thorough)]


def read(root: Path, size: int) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, H, W), labels uint8 (N, H, W) in 0..12 and 255 for void.

    The shorter side is ``size`` pixels. Raises UserError that names the file which cannot be used.
    """
    with trees.usable(root / META / "splits.mat"):
        found = splits(root)
    return dense.read_both("nyuv2", root, found, MASKS, size)


def splits(root: Path) -> list[LabelledSplit]:
    """Train and test as ``splits.mat`` has them. Raises MalformedError for a file that cannot be used."""
    variables = _variables(root / META / "splits.mat")
    numbers = {name: _numbers(variables, f"{name}Ndxs") for name in COUNTS}
    if twice := set(numbers["train"]) & set(numbers["test"]):
        raise MalformedError("corrupted", f"image {min(twice)} is in trainNdxs and in testNdxs")
    found = []
    for name, count in COUNTS.items():
        folder = root / META / f"{name}_labels_13"
        scenes = (
            LabelledImage(
                root / "480_640" / "IMAGE" / f"{number - 1}.png", folder / f"new_nyu_class13_{number:04d}.png"
            )
            for number in numbers[name]
        )
        found.append(LabelledSplit(folder, tuple(scenes), count))
    return found


def _variables(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MalformedError("missing", "missing")
    from scipy.io import loadmat

    try:
        return loadmat(path, variable_names=[f"{name}Ndxs" for name in COUNTS])
    except Exception as error:  # scipy answers a damaged file with whatever its parts raise
        raise MalformedError("corrupted", f"no MATLAB file that scipy can read: {error}") from None


def _numbers(variables: dict[str, Any], name: str) -> list[int]:
    """The images of a split, from 1 on, in the file's order."""
    import numpy as np

    found = variables.get(name)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iuf" or found.size == 0:
        raise MalformedError("corrupted", f"it has no numbers {name}")
    numbers = [int(each) for each in found.reshape(-1)]
    if not (np.equal(found.reshape(-1), numbers).all() and min(numbers) >= 1 and max(numbers) <= IMAGES):
        raise MalformedError("corrupted", f"{name} has values other than whole numbers from 1 to {IMAGES}")
    if len(set(numbers)) < len(numbers):
        raise MalformedError("corrupted", f"{name} has an image twice")
    return numbers


SOURCES = (
    Source(
        name="nyuv2",
        title="NYU Depth V2 indoor scenes, 13 classes",
        classes=CLASSES,
        files=(),
        licence="for research, with citation",
        citation="N. Silberman, D. Hoiem, P. Kohli, R. Fergus: Indoor segmentation and support inference from RGBD "
        "images, ECCV, 2012; the form with 13 classes: C. Couprie, C. Farabet, L. Najman, Y. LeCun: Indoor semantic "
        "segmentation using depth information, ICLR, 2013",
        how_to_place="put the images of nyu_depth_v2_labeled.mat (https://cs.nyu.edu/~silberman/datasets) as "
        f"NYUv2/480_640/IMAGE/0.png to 1448.png into the data folder, and beside 480_640 as {META} the repository "
        "https://github.com/ankurhanda/nyuv2-meta-data, its train_labels_13 and test_labels_13 unpacked, with the "
        "official splits.mat in it",
        kind="segmentation",
        tree=Tree(root="NYUv2", inspect=inspect, read=read),
    ),
)
