"""ImageNet (ILSVRC 2012): 1,281,167 + 50,000 photographs in 1,000 classes, in the layout that torchvision reads.

``imagenet/{train,val}`` have a folder for each class, named by its WordNet id. The test images are those of ``val``, as
in the papers. They are cut as torchvision's networks are tested: the shorter side 256 pixels for 224x224 from the
middle, and in the same proportion for other sizes; the EXIF is not looked at, as there.

The set fits into no memory. Its images are decoded once into files of plain pixels, which are mapped: 7.5 GB for
``val`` and 193 GB for ``train`` at 224x224. ``train`` may be missing, since data-free methods need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import class_folders, decoded, trees
from bench.data.class_folders import ClassFolders
from bench.data.source import FileStatus, Source, Split, Tree
from bench.data.wnids import IMAGENET

if TYPE_CHECKING:
    from torch import Tensor

TRAIN = ClassFolders("train", IMAGENET, official=1_281_167)
TEST = ClassFolders("val", IMAGENET, official=50_000, each=50)
CUT, SHORTER = 224, 256  # pixels: of the middle that is kept, and of the shorter side before


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The state of both splits, and of their wrong files: missing and, with ``thorough``, damaged ones.

    A folder without ``train`` is whole.
    """
    tests = class_folders.inspect(root, TEST, thorough)
    if (root / TRAIN.folder).is_dir():
        return [*class_folders.inspect(root, TRAIN, thorough), *tests]
    sentence = "not there; methods and teachers that need real training images cannot run"
    return [trees.part(root / TRAIN.folder, root, [], sentence), *tests]


def read(root: Path, size: int) -> tuple[Split, Split]:
    """Train and test: images uint8 (N, 3, size, size), mapped, and labels int64 (N,) in 0..999, class by class.

    Raises UserError that names an image which cannot be used, or if there is no room for the decoded ones.
    """
    folder = root / TRAIN.folder
    train = TRAIN.listed(root) if folder.is_dir() else ([], [])
    without = f", or move {folder} elsewhere: data-free methods need no training images"
    test = _split("imagenet-val", root, size, *TEST.listed(root))
    return _split("imagenet-train", root, size, *train, without), test


def cut(path: Path, size: int) -> Tensor:
    """An image's middle, uint8 (3, size, size). Raises UserError that names the file."""
    import torch

    from bench.data.images import square

    with trees.usable(path):
        pixels = trees.picture(path, turn=False)
    return square(torch.from_numpy(pixels.copy()).movedim(2, 0)[None], size, size * SHORTER // CUT)[0]


def _split(
    name: str, root: Path, size: int, paths: Sequence[Path], labels: Sequence[int], otherwise: str = ""
) -> Split:
    import torch

    images, digest = decoded.mapped(name, root, paths, size, partial(cut, size=size), otherwise)
    return Split(images, torch.tensor(labels, dtype=torch.int64), digest)


SOURCES = (
    Source(
        name="imagenet",
        title="ImageNet photographs (ILSVRC 2012)",
        classes=IMAGENET,
        files=(),
        licence="ImageNet's: for non-commercial research and education, to those who agree to its terms",
        citation="O. Russakovsky et al.: ImageNet large scale visual recognition challenge, International Journal of "
        "Computer Vision 115, 2015",
        how_to_place="ask for access at https://image-net.org/download, and put the images of ILSVRC 2012 into class "
        "folders of the data folder, as torchvision has them: imagenet/val/nXXXXXXXX and, only for methods that need "
        "real training images, imagenet/train/nXXXXXXXX",
        tree=Tree(root="imagenet", inspect=inspect, read=read, also=("ImageNet", "ILSVRC2012", "imagenet-1k")),
        test_images=TEST.official,
    ),
)
