"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32x32 pixels, as the pickles of the "python version".

The layout is torchvision's own. Checksums are those that torchvision knows; sizes are those of the official files.
CIFAR-100 has its 100 fine labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bench.data import unpickle
from bench.data.source import Archive, MalformedError, Pair, Source, SourceFile
from bench.data.unpickle import Array, text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 32  # pixels
ROW = 3 * SIDE * SIDE  # bytes of an image: its red plane, then green, then blue


@dataclass(frozen=True)
class Batch:
    """What one file of images holds: an Array (N, 3072) of unsigned bytes, and N labels."""

    pixels: Array
    labels: list[int]


def parse(source: Source, file: SourceFile, data: bytes, *, prefix: str = "") -> Batch | None:
    """The images and labels of a batch, or None for the file with the classes' names, which are only compared.

    ``prefix`` stands before ``labels`` and ``label_names`` in the file's keys. Raises MalformedError.
    """
    found = unpickle.plain(data, file.size)
    if not isinstance(found, dict):
        raise MalformedError("corrupted", f"not the CIFAR format: it holds a {type(found).__name__}, not a dict")
    entries = {text(key): value for key, value in found.items()}
    if file.images is None:
        _check_names(source, _entry(entries, f"{prefix}label_names"))
        return None
    pixels, labels = _entry(entries, "data"), _entry(entries, f"{prefix}labels")
    return Batch(_pixels(pixels, file.images), _labels(labels, file.images, len(source.classes)))


def read(source: Source, contents: Mapping[str, Batch | None]) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, 32, 32), labels int64 (N,), in the files' order."""
    *train, test = (batch for file in source.files if (batch := contents[file.name]) is not None)
    return _pair(train), _pair([test])


def _pair(batches: Sequence[Batch]) -> Pair:
    import numpy as np
    import torch

    images = np.concatenate([_rows(batch.pixels) for batch in batches])
    labels = [label for batch in batches for label in batch.labels]
    return torch.from_numpy(images).view(-1, 3, SIDE, SIDE), torch.tensor(labels, dtype=torch.int64)


def _rows(pixels: Array) -> NDArray[np.uint8]:
    import numpy as np

    values = np.frombuffer(pixels.data, np.uint8)
    return values.reshape(pixels.shape[::-1]).T if pixels.fortran else values.reshape(pixels.shape)


def _entry(entries: Mapping[str, object], key: str) -> object:
    if key not in entries:
        there = ", ".join(sorted(entries)) or "nothing"
        raise MalformedError("corrupted", f"corrupted: it has no {key!r}, but {there}")
    return entries[key]


def _check_names(source: Source, names: object) -> None:
    found = [text(name) for name in names] if isinstance(names, list) else []
    if len(found) != len(source.classes):
        raise MalformedError(
            "corrupted", f"corrupted: it names {len(found)} classes, official are {len(source.classes)}"
        )
    for index, (name, official) in enumerate(zip(found, source.classes, strict=True)):
        if name != official:
            raise MalformedError("corrupted", f"mislabelled: it calls class {index} {name!r}, official is {official!r}")


def _pixels(pixels: object, images: int) -> Array:
    wanted = f"{images}x{ROW} unsigned bytes"
    if not isinstance(pixels, Array):
        raise MalformedError("corrupted", f"corrupted: its data are a {type(pixels).__name__}, not {wanted}")
    if pixels.shape != (images, ROW) or pixels.code != "u1":
        found = "x".join(map(str, pixels.shape))
        raise MalformedError("corrupted", f"corrupted: its data are {found} of type {pixels.code}, not {wanted}")
    if not isinstance(pixels.data, bytes | bytearray) or len(pixels.data) != images * ROW:
        raise MalformedError("corrupted", f"corrupted: its data are not the expected {images * ROW} bytes")
    return pixels


def _labels(labels: object, images: int, classes: int) -> list[int]:
    if not isinstance(labels, list) or set(map(type, labels)) != {int}:
        raise MalformedError("corrupted", "corrupted: its labels are not a list of whole numbers")
    if len(labels) != images:
        raise MalformedError("corrupted", f"corrupted: {images} images, but {len(labels)} labels")
    if (wrong := next((label for label in (min(labels), max(labels)) if not 0 <= label < classes), None)) is not None:
        raise MalformedError("corrupted", f"corrupted: label {wrong}, but there are {classes} classes")
    return labels


def _how_to_place(archive: Archive, files: Sequence[SourceFile]) -> str:
    folder = files[0].name.partition("/")[0]
    names = ", ".join(file.name.partition("/")[2] for file in files)
    return (
        f"download {archive.urls[0]}, unpack it with `tar xzf {archive.name}`, "
        f"and name the folder that then contains {folder} ({names}) in it with --data or DFKD_DATA"
    )


def _source(
    name: str, title: str, classes: tuple[str, ...], archive: Archive, files: tuple[SourceFile, ...], prefix: str = ""
) -> Source:
    return Source(
        name=name,
        title=title,
        classes=classes,
        files=files,
        licence="none stated; for research, with citation",
        citation="A. Krizhevsky: Learning multiple layers of features from tiny images, technical report, 2009",
        how_to_place=_how_to_place(archive, files),
        parse=partial(parse, prefix=prefix),
        read=read,
        archive=archive,
        test_images=10_000,
    )


def _archive(name: str, size: int, md5: str) -> Archive:
    return Archive(name, size, md5, (f"https://www.cs.toronto.edu/~kriz/{name}",))


def _file(name: str, size: int, md5: str, images: int | None = None) -> SourceFile:
    return SourceFile(name, size, md5, images=images)


_TEN = "airplane automobile bird cat deer dog frog horse ship truck"
_HUNDRED = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""

SOURCES = (
    _source(
        "cifar10",
        "CIFAR-10 natural images",
        tuple(_TEN.split()),
        _archive("cifar-10-python.tar.gz", 170498071, "c58f30108f718f92721af3b95e74349a"),
        (
            _file("cifar-10-batches-py/data_batch_1", 31035704, "c99cafc152244af753f735de768cd75f", 10_000),
            _file("cifar-10-batches-py/data_batch_2", 31035320, "d4bba439e000b95fd0a9bffe97cbabec", 10_000),
            _file("cifar-10-batches-py/data_batch_3", 31035999, "54ebc095f3ab1f0389bbae665268c751", 10_000),
            _file("cifar-10-batches-py/data_batch_4", 31035696, "634d18415352ddfa80567beed471001a", 10_000),
            _file("cifar-10-batches-py/data_batch_5", 31035623, "482c414d41f54cd18b22e5b47cb7c3cb", 10_000),
            _file("cifar-10-batches-py/test_batch", 31035526, "40351d587109b95175f43aff81a1287e", 10_000),
            _file("cifar-10-batches-py/batches.meta", 158, "5ff9c542aee3614f3951f8cda6e48888"),
        ),
    ),
    _source(
        "cifar100",
        "CIFAR-100 natural images",
        tuple(_HUNDRED.split()),
        _archive("cifar-100-python.tar.gz", 169001437, "eb9058c3a382ffc7106e4002c42a8d85"),
        (
            _file("cifar-100-python/train", 155249918, "16019d7e3df5f24257cddd939b257f8d", 50_000),
            _file("cifar-100-python/test", 31049707, "f0ef6b0ae62326f3e7ffdfab6717acfc", 10_000),
            _file("cifar-100-python/meta", 1473, "7973b15100ade9c7d40fb424638fde48"),
        ),
        prefix="fine_",
    ),
)
