"""Pools of unlabelled images, for methods that distil with images which are not the task's own.

A pool is any folder of images, an ``.npy`` file, the training images of a registered data set, or, under the name
``pool``, what lies in the folder ``pool`` of the data folders: ``images.npy``, or else the images below it.

No label is read, and there is no official pool: a copy that was prepared in some way is as good as any other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import decoded, trees
from bench.data.source import FileStatus, MalformedError, Pair, Source, Tree
from bench.errors import MissingData, UserError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
ARRAY = "images.npy"
CHUNK = 2048  # images of an array that are converted at a time
FORMS = f"a folder of images ({', '.join(each[1:] for each in ENDINGS)}) or an .npy of uint8 (N, H, W, 3) or (N, H, W)"


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
    return Pool(name=what, images=result, fingerprint=images.fingerprint(result), altered=altered)


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
    """A pool's file or folder for a trial's identity: its last part and a hash of its content.

    Of a file it is all bytes, of a folder the names and sizes of the images below it. The path itself does not count.
    """
    if path.is_file():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256")
    else:
        found = hashlib.sha256()
        for each in image_files(path):
            found.update(f"{each.relative_to(path).as_posix()} {each.stat().st_size}\n".encode())
    return f"{path.name}@{found.hexdigest()[:12]}"


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
    return [trees.part(root, root, [], f"{len(paths)} images"), *trees.shortened(bad)]


def image_files(root: Path) -> list[Path]:
    """All images below a folder, in the order of their names, which is the same on every machine."""
    found = (each for each in root.rglob("*") if each.suffix.lower() in ENDINGS and not each.name.startswith("."))
    return sorted((each for each in found if each.is_file()), key=lambda each: each.relative_to(root).parts)


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
    except ValueError:
        raise MalformedError("corrupted", f"not a pool of images; needed is {FORMS}") from None
    if dtype.hasobject:
        raise MalformedError("corrupted", "an array of Python objects (pickle), which is never loaded")
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (3,)) or 0 in shape:
        raise MalformedError("corrupted", f"an array of {dtype} {shape}, expected uint8 (N, H, W, 3) or (N, H, W)")
    if size < (whole := int(np.prod(shape, dtype=np.int64))):
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
    ``altered``: the files of the data set that they come from which are not the official ones.
    """

    name: str
    images: Tensor
    fingerprint: str
    altered: tuple[str, ...]


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
