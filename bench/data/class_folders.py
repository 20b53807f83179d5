"""Sets whose images lie in a folder for each class: their splits looked at, and listed for reading.

A split has the official classes and no others, each with images. Other numbers of images, other classes and images of
another size are altered; a class without images is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import decoded, trees
from bench.data.source import FileStatus, MalformedError, Pair
from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".jpeg", ".jpg", ".png")  # in lower case


@dataclass(frozen=True)
class ClassFolders:
    """A split: ``folder`` has a folder for each of ``classes``, with its images in it or in its folder ``inner``.

    ``official`` is how many images there are of all classes together, and ``each`` of each class, where they are the
    same. ``side`` is the official images' in pixels, where all are squares of one size.
    """

    folder: str
    classes: tuple[str, ...]
    official: int
    each: int | None = None
    side: int | None = None
    inner: str = ""

    def images(self, root: Path, name: str) -> list[Path]:
        """The image files of a class, by name; none where there is no folder."""
        return images_in(root / self.folder / name / self.inner)

    def listed(self, root: Path) -> tuple[list[Path], list[int]]:
        """All image files, class by class, and their labels.

        Raises:
            UserError: a class has no images.
        """
        paths, labels = [], []
        for label, name in enumerate(self.classes):
            found = self.images(root, name)
            if not found:
                raise UserError(f"{root / self.folder / name / self.inner}: no images")
            paths += found
            labels += [label] * len(found)
        return paths, labels


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name; none where there is no folder. Hidden ones are none."""
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries]
    except OSError:
        return []
    return [folder / name for name in sorted(names) if name.lower().endswith(ENDINGS) and not name.startswith(".")]


def inspect(root: Path, split: ClassFolders, thorough: bool) -> list[FileStatus]:
    """The state of a split, then of its wrong folders and files; with ``thorough`` every image is decoded."""
    folder = root / split.folder
    if not folder.is_dir():
        return [trees.wrong(folder, root, "missing", "missing")]
    found = {name: split.images(root, name) for name in split.classes}
    bad = [
        trees.wrong(folder / name, root, "missing", "missing, or without images")
        for name, images in found.items()
        if not images
    ]
    altered = []
    others = trees.names_in(folder) - set(split.classes)
    if strange := sorted(each for each in others if not each.startswith(".") and (folder / each).is_dir()):
        altered.append(f"{trees.some(strange)} where no such class is")
    total = sum(map(len, found.values()))
    if not bad and split.each is not None:
        wrong = {name: len(images) for name, images in found.items() if len(images) != split.each}
        if wrong:
            told = [f"{count:,} images of {name}, officially {split.each:,}" for name, count in wrong.items()]
            altered.append(trees.some(told))
    if not bad and total != split.official and not altered:
        altered.append(f"{total:,} images, officially {split.official:,}")
    paths = [path for images in found.values() for path in images]
    damaged, sizes = looked_at(paths if thorough else paths[:1], root, split.side, thorough)
    if len(bad) == len(split.classes):
        return [trees.wrong(folder, root, "missing", f"no images in its class folders ({trees.some(split.classes)})")]
    sentence = f"{total:,} images of {len(split.classes) - len(bad):,} classes"
    return [trees.part(folder, root, [*altered, *sizes], sentence), *trees.shortened([*bad, *damaged])]


def looked_at(
    paths: Sequence[Path], root: Path, side: int | None, thorough: bool
) -> tuple[list[FileStatus], list[str]]:
    """The states of damaged files, and in words whether images have another size than ``side`` x ``side``."""
    damaged, others = [], []
    for path in paths:
        try:
            size = trees.picture(path).shape[1::-1] if thorough else trees.header(path)
        except MalformedError as error:
            damaged.append(trees.wrong(path, root, error.state, str(error)))
            continue
        if side is not None and size != (side, side):
            others.append(f"{path.name} has {size[0]}x{size[1]} pixels, officially {side}x{side}")
    return damaged, [trees.some(others)] if others else []


def pairs(name: str, root: Path, size: int, *splits: tuple[Sequence[Path], Sequence[int]]) -> Iterator[Pair]:
    """Of each split of files and labels: images uint8 (N, 3, size, size) and labels int64 (N,), in the files' order.

    The shorter side is resized to ``size`` and the middle of the longer one kept. They come from the cache of decoded
    images. Raises UserError that names the image which cannot be used.
    """
    import torch

    paths = [path for each, _ in splits for path in each]
    images: Tensor = decoded.cached(name, root, paths, size, lambda: {"images": trees.squares(paths, size, 3)})[
        "images"
    ]
    for part, (_, labels) in zip(images.split([len(each) for each, _ in splits]), splits, strict=True):
        yield part, torch.tensor(labels, dtype=torch.int64)
