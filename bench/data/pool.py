"""Pools of unlabelled images, for methods that distil with images which are not the task's own.

A pool is any folder of images, an ``.npy`` file, the training images of a registered data set, or, under the name
``pool``, what lies in the folder ``pool`` of the data folders: ``images.npy``, or else the images below it.

No label is read, and there is no official pool: a copy that was prepared in some way is as good as any other.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import decoded, trees
from bench.data.source import FileStatus, MalformedError, Pair, Source, Tree
from bench.errors import MissingData, UserError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif",
)  # fmt: skip
UNREAD = frozenset({  # images that are counted and named, since nothing here decodes them
    ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".psd", ".svg", ".eps", ".ico", ".icns", ".tga", ".dds", ".exr", ".hdr",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".xcf", ".pcx", ".sgi", ".apng", ".mng",
})  # fmt: skip
SYSTEM = frozenset({  # folders that editors, servers and systems leave behind; hidden ones need no name
    "@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found",
})  # fmt: skip
ARRAY = "images.npy"
CHUNK = 2048  # images of an array that are converted at a time
FORMS = "a folder of images (png, jpg, webp, bmp, gif, tif, ppm, ...) or an .npy of uint8 (N, H, W, 3) or (N, H, W)"


def load_pool(what: str, *, size: int, channels: int, folder: Path | None = None, allow_altered: bool = False) -> Pool:
    """The pool ``what``: ``pool``, the name of a data set (its training images), or the path of a folder or ``.npy``.

    The images become ``size`` x ``size`` pixels (bilinear; of longer ones the middle) and have ``channels``, 1 or 3.
    ``folder`` and ``allow_altered`` as in :func:`bench.data.load`. Raises MissingData if there are no images, and
    UserError for a file that cannot be used, which it names.
    """
    from bench.data import images

    if channels not in (1, 3):
        raise UserError(f"a pool has images with 1 or 3 channels, not {channels}")
    if size < 1:
        raise UserError(f"image size {size}: must be at least 1 pixel")
    path = locate(what, folder)
    altered: tuple[str, ...] = ()
    if path is None:
        found, altered = _of_set(what, size, folder, allow_altered)
        result = trees.square_of(found, size, channels)
    else:
        result = _of_array(path, size, channels) if path.is_file() else _of_folder(path, size, channels)
    skipped = skipped_images(path) if path is not None and path.is_dir() else {}
    return Pool(what, result, images.fingerprint(result), altered, skipped)


def locate(what: str, folder: Path | None = None) -> Path | None:
    """The file or folder in which the pool's images lie, or None for the training images of a data set.

    Raises MissingData if ``pool`` is missing, and UserError for an unknown ``what``.
    """
    from bench import data
    from bench.data import files

    source = data.SOURCES.get(what)
    if source is None:
        path = Path(what).expanduser()
        if not path.exists():
            raise UserError(f"pool {what!r} is not a file, folder or data set{nearest(what, data.SOURCES)}")
        return path.absolute()
    if source.kind != "unlabelled" or source.make is not None:
        return None
    folders = data.search_folders(folder)
    files.demand_usable(source, files.inspect(source, folders), folders, allow_altered=True)
    home = files.home(source, folders)
    assert home is not None, "a usable pool was found somewhere"
    return _array_or_folder(home / ROOT)


def content_name(path: Path) -> str:
    """A pool's file or folder for a trial's identity: a hash of its pixels.

    The same images in the same order have the same name, whatever their files are called and wherever they lie. They
    are decoded once; the hash is kept in the cache of decoded images until a file changes.

    Raises:
        MissingData: there are no images. UserError: a file cannot be used; it is named.
    """
    return f"pool@{decoded.cached_text('pool-content', path, _files_of(path), lambda: _content(path))[:12]}"


def _files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else image_files(path)


def _content(path: Path) -> str:
    """sha256 over the images' sizes and pixels as RGB, in their order."""
    import numpy as np

    digest = hashlib.sha256()
    if path.is_file():
        with trees.usable(path):
            header(path)
        for each in np.load(path, mmap_mode="r", allow_pickle=False):
            add_pixels(digest, each if each.ndim == 3 else np.repeat(each[:, :, None], 3, axis=2))
        return digest.hexdigest()
    paths = image_files(path)
    if not paths:
        raise MissingData(f"{path}: no images found; needed is {FORMS}")
    for each in paths:
        with trees.usable(each):
            add_pixels(digest, trees.picture(each))
    return digest.hexdigest()


def add_pixels(digest: hashlib._Hash, pixels: NDArray[np.uint8]) -> None:
    """Add an image (H, W, 3) to a hash: its size, then its pixels."""
    import numpy as np

    digest.update(f"{pixels.shape[0]}x{pixels.shape[1]};".encode())
    digest.update(np.ascontiguousarray(pixels).data)


def demand_pool(what: str, folder: Path | None = None, allow_altered: bool = False) -> None:
    """Look for the pool ``what`` without reading its images.

    Raises MissingData if its files are missing, and UserError for one that cannot be used or for a ``what`` that is
    nothing.
    """
    from bench import data
    from bench.data import files

    path = locate(what, folder)
    if path is None:
        source, folders = data.find(what), data.search_folders(folder)
        files.demand_usable(source, files.inspect(source, folders), folders, allow_altered)
    elif path.is_file():
        with trees.usable(path):
            header(path)
    elif not image_files(path):
        raise MissingData(f"{path}: no images found; needed is {FORMS}")


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The state of the pool in a folder, and of the files in it that cannot be used."""
    path = _array_or_folder(root)
    if path != root:
        try:
            count, height, width = header(path)[:3]
        except MalformedError as error:
            return [trees.wrong(path, root, error.state, str(error))]
        return [trees.part(path, root, [], f"{count} images of {width}x{height} pixels")]
    paths = image_files(root)
    if not paths:
        return [trees.wrong(root, root, "missing", f"no {ARRAY} and no images")]
    bad = []
    for each in paths if thorough else paths[:1]:
        try:
            trees.picture(each) if thorough else trees.header(each)
        except MalformedError as error:
            bad.append(trees.wrong(each, root, error.state, str(error)))
    sentence = f"{len(paths)} images{unread_words(root)}"
    return [trees.part(root, root, [], sentence), *trees.shortened(bad)]


def unread_words(root: Path) -> str:
    """How many images below a folder are of types that are not read, and the first names; empty where none are."""
    unread = unread_files(root)
    names = ", ".join(each.relative_to(root).as_posix() for each in unread[: trees.SHOWN])
    more = ", ..." if len(unread) > trees.SHOWN else ""
    return f", and {len(unread)} of types that are not read ({names}{more})" if unread else ""


def image_files(root: Path) -> list[Path]:
    """All images below a folder, in the order of their names, which is the same on every machine.

    Hidden files and folders and those of :data:`SYSTEM` are no part of it. Linked folders are followed.

    Raises:
        UserError: a linked folder leads back to one that it lies in.
    """
    return [path for path in _below(root) if path.suffix.lower() in readable()]


def skipped_images(root: Path) -> dict[str, int]:
    """How many images of types that are not read lie below a folder, by their ending without the dot."""
    return dict(sorted(Counter(path.suffix.lower()[1:] for path in unread_files(root)).items()))


def unread_files(root: Path) -> list[Path]:
    """The images below a folder whose type is not read here, in the order of their names."""
    return [path for path in _below(root) if path.suffix.lower() in (UNREAD | set(ENDINGS)) - readable()]


@cache
def readable() -> frozenset[str]:
    """The endings of :data:`ENDINGS` that this Pillow decodes: AVIF is not in every build."""
    from PIL import features

    return frozenset(ENDINGS if features.check("avif") else (each for each in ENDINGS if each != ".avif"))


def _below(root: Path) -> list[Path]:
    """All files below a folder but hidden ones, links followed, in the order of their names."""
    found: list[Path] = []
    waiting: list[tuple[Path, tuple[tuple[int, int], ...]]] = [(root, (_identity(root),))]
    while waiting:
        folder, above = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror or error}") from None
        for entry in entries:
            if is_hidden(entry.name):
                continue
            path = folder / entry.name
            if not entry.is_dir():
                if not entry.is_file() and path.exists() and path.suffix.lower() in ENDINGS:
                    raise UserError(f"{path} is no file but a pipe, a socket or a device; remove it")
                found.append(path)
            elif (own := _identity(path)) in above:
                raise UserError(f"{path} is a link to a folder that it lies in; remove it, or name another folder")
            else:
                waiting.append((path, (*above, own)))
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a set of images."""
    return name.startswith(".") or name.lower() in SYSTEM


def _identity(folder: Path) -> tuple[int, int]:
    try:
        stat = folder.stat()
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}") from None
    return stat.st_dev, stat.st_ino


def header(path: Path) -> tuple[int, ...]:
    """The shape of an ``.npy`` file, (N, H, W, 3) or (N, H, W), from its header alone. Raises MalformedError."""
    import numpy as np

    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            size = path.stat().st_size - file.tell()
    except OSError as error:
        raise MalformedError("corrupted", f"cannot be read: {error.strerror or error}") from None
    except Exception:  # a header is parsed as Python, which has many ways to say no
        raise MalformedError("corrupted", f"not a pool of images; needed is {FORMS}") from None
    if dtype.hasobject:
        raise MalformedError("corrupted", "an array of Python objects (pickle), which is never loaded")
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (3,)) or min(shape) < 1:
        raise MalformedError("corrupted", f"an array of {dtype} {shape}, expected uint8 (N, H, W, 3) or (N, H, W)")
    if size < (whole := math.prod(shape)):
        raise MalformedError("truncated", f"truncated: {size} of {whole} bytes of pixels")
    return tuple(shape)


def _array_or_folder(root: Path) -> Path:
    return root / ARRAY if (root / ARRAY).is_file() else root


def _of_set(name: str, size: int, folder: Path | None, allow_altered: bool) -> tuple[Tensor, tuple[str, ...]]:
    from bench import data

    source = data.find(name)
    if source.make is not None:  # dense labels are of one size; without them, the images may be of any
        return source.make()[0][0], ()
    dataset = data.load_source(source, size=size, folder=folder, allow_altered=allow_altered)
    data.demand_training_images(dataset, source, "a pool")
    return dataset.train.images, dataset.altered


def _of_array(path: Path, size: int, channels: int) -> Tensor:
    import numpy as np
    import torch

    with trees.usable(path):
        shape = header(path)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    result = torch.empty(shape[0], channels, size, size, dtype=torch.uint8)
    for start in range(0, shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        result[part] = trees.square_of(_channels_first(np.array(array[part])), size, channels)
    return result


def _of_folder(root: Path, size: int, channels: int) -> Tensor:
    paths = image_files(root)
    if not paths:
        raise MissingData(f"{root}: no images found; needed is {FORMS}")

    name = f"pool{channels}"
    return decoded.cached(name, root, paths, size, lambda: {"images": trees.squares(paths, size, channels)})["images"]


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, C, H, W) from (N, H, W, C) or (N, H, W)."""
    import torch

    images = torch.from_numpy(pixels.copy())
    return images.unsqueeze(1) if images.ndim == 3 else images.movedim(3, 1)


def _no_pairs(root: Path, size: int) -> tuple[Pair, Pair]:  # noqa: ARG001 - what every tree is asked for
    raise UserError(f"{root}: a pool has no labels")


@dataclass(frozen=True, eq=False)
class Pool:
    """Unlabelled images in memory.

    ``images``: uint8 (N, C, size, size) in 0..255. ``fingerprint``: sha256 over their shape and bytes.
    ``altered``: the files of the data set that they come from which are not the official ones. ``skipped``: how many
    images of the folder were left out, by ending, since their type is not read.
    """

    name: str
    images: Tensor
    fingerprint: str
    altered: tuple[str, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)


ROOT = "pool"
SOURCES = (
    Source(
        name="pool",
        title="A pool of unlabelled images",
        classes=(),
        files=(),
        licence="that of its images",
        citation="that of its images",
        how_to_place=f"put {ARRAY}, of uint8 (N, H, W, 3) or (N, H, W), or any images into the folder pool of the data "
        "folder",
        kind="unlabelled",
        tree=Tree(root=ROOT, inspect=inspect, read=_no_pairs),
    ),
)
