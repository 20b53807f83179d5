"""Data sets: official files in, tensors out; one module for each family of sets.

Nothing here knows about teachers, students or tasks, and nothing is downloaded except by :func:`fetch`.

A data set is a :class:`Source`: its files with their checksums, where they are published, how they are read. The
``SOURCES`` of all modules are registered below. No file is used that is not the official one, unless ``allow_altered``
says so. Importing this package imports no torch, so that listing data sets is instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.data import (
    caltech,
    camvid,
    cifar,
    cinic,
    digits,
    download,
    files,
    imagenet,
    imagenette,
    mnist,
    nyuv2,
    photos,
    pool,
    shapes,
    svhn,
    tiny_imagenet,
)
from bench.data.folders import protected_paths, search_folders
from bench.data.own_images import OwnImages, own_of, source_of
from bench.data.pool import Pool, load_pool
from bench.data.source import Dataset, FileStatus, Pair, Source, SourceFile, Split
from bench.errors import MissingData, UserError, nearest
from bench.utils.http import Progress

__all__ = [
    "SOURCES", "NAMES", "load", "load_source", "load_pool", "status", "status_of", "fetch", "search_folders",
    "demand_training_images",
    "protected_paths", "own_of", "parts_of", "source_of",
    "OwnImages", "Dataset", "Split", "Pool", "Source", "SourceFile", "FileStatus", "Progress",
]  # fmt: skip

SOURCES: dict[str, Source] = {
    source.name: source
    for family in (
        *(digits, mnist, cifar, svhn, cinic, tiny_imagenet, imagenette, imagenet),
        *(caltech, shapes, camvid, nyuv2, photos, pool),
    )
    for source in family.SOURCES
}
NAMES: tuple[str, ...] = tuple(SOURCES)


def load(name: str, *, size: int, folder: Path | None = None, allow_altered: bool = False) -> Dataset:
    """The data set ``name`` from the first of :func:`search_folders` that holds any of its files.

    ``size``: side in pixels that the images are resized to (bilinear, no cropping, rounded to uint8 once); of a
    segmentation set, the shorter side.
    ``allow_altered``: use files that are well-formed but not the official bytes; they are named in ``Dataset.altered``.
    Raises MissingData if a file is missing, and UserError for an unknown name or a file that cannot be used.
    """
    return load_source(find(name), size=size, folder=folder, allow_altered=allow_altered)


def status(name: str, folder: Path | None = None, *, thorough: bool = False) -> list[FileStatus]:
    """The state of each file of the data set ``name``, read from the folder that :func:`load` would use.

    Of a set of many image files: of each part, and of each file that is wrong. Names, numbers and the first headers
    are looked at; with ``thorough`` every file is decoded, which may take a minute.
    Raises UserError for an unknown name, and for nothing else: what is wrong with a file is in its status.
    """
    return status_of(find(name), folder, thorough=thorough)


def status_of(source: Source, folder: Path | None = None, *, thorough: bool = False) -> list[FileStatus]:
    """:func:`status` for a source that need not be registered."""
    return files.inspect(source, search_folders(folder), thorough)


def fetch(name: str, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Download what is missing, truncated or corrupted of the data set ``name``; returns the folder to load it from.

    The folder is ``folder``, or else where some of the files lie already, or else the first of :func:`search_folders`.
    A file is put in place after its checksum was verified, and official files are not fetched again.
    ``progress(file name, bytes so far, bytes in all)`` is called after each block that came in. Raises UserError if no
    mirror answers with the official file (the message has the URLs, and where to put the files by hand), or if an
    altered file is in the way. For a set that a package brings, nothing is fetched: the folder is the package's.
    """
    source = find(name)
    if source.bundled is not None:
        statuses = files.inspect(source, [])
        files.demand_usable(source, statuses, [], allow_altered=False)  # MissingData if its package is not installed
        return next(each.path.parent for each in statuses if each.path)
    if source.make is not None:
        raise UserError(f"{source.name} is generated: nothing to download")
    return download.fetch(source, folder, search_folders(folder), progress)


def demand_training_images(dataset: Dataset, source: Source, whose: str) -> None:
    """Raise MissingData for a set that lies there without training images; ``whose`` says what needs them."""
    if not len(dataset.train.images):
        raise MissingData(f"{whose} needs real training images, and {source.name} has none here; {source.how_to_place}")


def find(name: str) -> Source:
    """The registered source. Raises UserError for an unknown name."""
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}{nearest(name, SOURCES)}")
    return SOURCES[name]


def load_source(source: Source, *, size: int, folder: Path | None = None, allow_altered: bool = False) -> Dataset:
    """:func:`load` for a source that need not be registered, or that is tested on another."""
    if source.tested_on is not None:
        return _tested_on(source, source.tested_on, size, folder, allow_altered)
    if size < 1:
        raise UserError(f"image size {size}: must be at least 1 pixel")
    if source.kind == "unlabelled":
        raise UserError(f"{source.name} has no labels: it is a pool of images, not a task's data set")
    folders = search_folders(folder)
    statuses = files.inspect(source, folders)
    files.demand_usable(source, statuses, folders, allow_altered)

    from bench.data import images  # from here on torch is needed

    if source.tree is not None:
        found = files.home(source, folders)
        root = source.tree.folder(found) if found is not None else None
        assert root is not None, "a usable set was found somewhere"
        pairs: Sequence[Pair | Split] = source.tree.read(root, size)
    elif source.make is not None:
        pairs = source.make()
    else:
        assert source.read is not None
        pairs = source.read(source, files.contents(source, statuses))
    train, test = (each if isinstance(each, Split) else Split(*images.fit(*each, size)) for each in pairs)
    return Dataset(
        name=source.name,
        train=train,
        test=test,
        classes=source.classes,
        fingerprint=images.fingerprint(
            train.digest or train.images, train.labels, test.digest or test.images, test.labels
        ),
        altered=tuple(each.name for each in statuses if each.state == "altered"),
        labelled=source.labelled,
    )


def parts_of(source: Source) -> tuple[Source, ...]:
    """The sets whose files a source needs: itself, and the one that it is tested on."""
    if source.tested_on is None:
        return (source,)
    return replace(source, tested_on=None), source.tested_on


def _tested_on(source: Source, other: Source, size: int, folder: Path | None, allow_altered: bool) -> Dataset:
    """A set with the test images of another; with as many channels as its own have."""
    home, away = (
        load_source(each, size=size, folder=folder, allow_altered=allow_altered)
        for each in (parts_of(source)[0], other)
    )

    from bench.data import images, trees

    test = Split(trees.square_of(away.test.images, size, home.train.images.shape[1]), away.test.labels)
    return replace(
        home,
        test=test,
        fingerprint=images.fingerprint(home.train.images, home.train.labels, test.images, test.labels),
        altered=(*home.altered, *away.altered),
        labelled=away.labelled,
        home=home,
    )
