"""Segmentation sets of many files: image and mask pairs, looked at and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import decoded, trees
from bench.data.source import VOID, FileStatus, MalformedError, Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Masks:
    """How a set's masks become labels: the mask's value ``i`` is the label ``values[i]``, and all others are errors.

    ``width`` and ``height`` are those of the official images in pixels.
    """

    values: tuple[int, ...]
    width: int
    height: int


@dataclass(frozen=True)
class LabelledImage:
    """One image and its mask."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class LabelledSplit:
    """A split as its list has it: ``path`` is what stands for it in messages, ``official`` the number of its images."""

    path: Path
    scenes: tuple[LabelledImage, ...]
    official: int


def inspect(root: Path, split: LabelledSplit, masks: Masks, thorough: bool) -> list[FileStatus]:
    """The state of the split, then of its wrong files: missing ones, and damaged ones as far as they are opened.

    Of the images that are there the first one's header is read, and with ``thorough`` every file is decoded.
    """
    scenes = split.scenes
    folders = {path.parent for scene in scenes for path in (scene.image, scene.mask)}
    there = {folder: trees.names_in(folder) for folder in folders}
    bad = [
        trees.wrong(path, root, "missing", "missing")
        for scene in scenes
        for path in (scene.image, scene.mask)
        if path.name not in there[path.parent]
    ]
    gone = {each.name for each in bad}
    whole = [scene for scene in scenes if not gone & {_name(scene.image, root), _name(scene.mask, root)}]
    size, palettes = None, trees.Palettes()
    for scene in whole if thorough else whole[:1]:
        for path in (scene.image, scene.mask):
            try:
                size = _look(scene, path, masks, size, thorough, palettes)
            except MalformedError as error:
                bad.append(trees.wrong(path, root, error.state, str(error)))
                break
    altered = []
    if size not in (None, (masks.width, masks.height)):
        altered.append(f"{_by(size)} where the official images are {masks.width}x{masks.height}")
    if len(scenes) != split.official:
        altered.append(f"{len(scenes)} images where the official split has {split.official}")
    count = f"{len(whole)} of {len(scenes)}" if gone else f"{len(scenes)}"
    sentence = f"{count} images" + (f" of {_by(size)} pixels" if size else "")
    part = [trees.part(split.path, root, altered, sentence)] if whole else []
    return [*part, *trees.shortened(bad)]


def read(split: LabelledSplit, masks: Masks, size: int, palettes: trees.Palettes | None = None) -> Pair:
    """Images uint8 (N, 3, H, W) and labels uint8 (N, H, W), their shorter side ``size``, in the list's order.

    Images are resized bilinearly, and labels take the nearest. ``palettes`` are those of splits read before. Raises
    UserError that names the first bad file.
    """
    import numpy as np
    import torch

    from bench.data.images import resize, resize_labels, shorter_side

    table = torch.tensor(masks.values, dtype=torch.uint8)
    images, labels = [], []
    first: tuple[int, int] | None = None
    palettes = trees.Palettes() if palettes is None else palettes
    for scene in split.scenes:
        with trees.usable(scene.image):
            image = trees.picture(scene.image)
            first = _same(_size(image), first)
        with trees.usable(scene.mask):
            mask = trees.mask(scene.mask, len(masks.values), palettes)
            _same_as_image(_size(mask), scene, first)
        target = shorter_side(first[1], first[0], size)
        images.append(resize(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], target))
        labels.append(resize_labels(table[torch.from_numpy(mask.astype(np.int64))][None], target))
    return torch.cat(images), torch.cat(labels)


def read_both(name: str, root: Path, splits: Sequence[LabelledSplit], masks: Masks, size: int) -> tuple[Pair, Pair]:
    """The train and test pairs of the set ``name``, of two ``splits``, through the cache of decoded images."""

    def make() -> dict[str, Tensor]:
        palettes = trees.Palettes()
        pairs = [read(split, masks, size, palettes) for split in splits]
        return {f"{index}.{which}": each for index, pair in enumerate(pairs) for which, each in enumerate(pair)}

    files = [path for split in splits for scene in split.scenes for path in (scene.image, scene.mask)]
    kept = decoded.cached(name, root, files, size, make)
    return (kept["0.0"], kept["0.1"]), (kept["1.0"], kept["1.1"])


def values(classes: int, void: int) -> tuple[int, ...]:
    """What a mask's values stand for, where the classes are in order around the value that means void."""
    return (*range(void), VOID, *range(void, classes))


def _look(
    scene: LabelledImage,
    path: Path,
    masks: Masks,
    size: tuple[int, int] | None,
    thorough: bool,
    palettes: trees.Palettes,
) -> tuple[int, int]:
    """(width, height) of the split's images so far. Raises MalformedError if the file does not go with the others."""
    if path == scene.image:
        return _same(_size(trees.picture(path)) if thorough else trees.header(path), size)
    assert size is not None, "an image is looked at before its mask"
    found = _size(trees.mask(path, len(masks.values), palettes)) if thorough else trees.header(path)
    _same_as_image(found, scene, size)
    return size


def _same(found: tuple[int, int], first: tuple[int, int] | None) -> tuple[int, int]:
    if first is not None and found != first:
        raise MalformedError("corrupted", f"{_by(found)} pixels, the images before it have {_by(first)}")
    return found


def _same_as_image(found: tuple[int, int], scene: LabelledImage, size: tuple[int, int]) -> None:
    if found != size:
        sentence = f"a mask of {_by(found)} pixels for an image of {_by(size)} ({scene.image.name})"
        raise MalformedError("corrupted", sentence)


def _size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _by(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root.parent).as_posix()
