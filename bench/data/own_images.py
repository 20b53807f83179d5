"""A user's own images as a data set: a folder in torchvision's ``ImageFolder`` layout, read as a pool is.

``train/CLASS/IMAGE`` and ``test/CLASS/IMAGE``: the names of the class folders, sorted, are the classes. Without
``train`` there are no training images; a folder with neither holds test images alone. Test images without class folders
have no labels. There may be no images at all, and then test images are made (:mod:`bench.data.synthetic`).

Nothing is opened until a task names the folder; then its pixels are hashed once, and the hash is the set's name.
Importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.data import decoded, pool, trees
from bench.data.image_spec import ImageSpec
from bench.data.source import UNKNOWN, FileStatus, MalformedError, Pair, Source, Tree
from bench.data.synthetic import COUNT, synthetic_images
from bench.errors import UserError, nearest, nearest_folder
from bench.utils.text import shown
from bench.utils.yaml import Strict

if TYPE_CHECKING:
    from torch import Tensor

KEYS = ("images", "classes")  # of a task's `data:`, where it is no name
NONE = "none"  # in the place of a folder
LAYOUT = "test/CLASS/IMAGE (without labels test/IMAGE) and, for training images, train/CLASS/IMAGE"
MOST = 2_000  # classes: a task goes to a method's process as one message
NAMED = 5  # classes that a message names


class OwnImages(Strict):
    """A user's own images as a task keeps them: what is known of them without opening one.

    ``images`` is the folder, absolute or below ``~``, or ``none``; ``content`` names its pixels, and with them the set.
    """

    images: str = Field(pattern=r"^(none|/.*|~/.*)$")
    content: str = Field(default="", pattern=r"^([0-9a-f]{12})?$")
    classes: tuple[str, ...] = Field(min_length=2)
    train: int = Field(default=0, ge=0, description="how many training images there are")
    test: int = Field(ge=1)
    labelled: bool = Field(default=True, description="whether the classes of the test images are known")

    @property
    def name(self) -> str:
        """The name of the data set: where the folder lies is no part of it."""
        return f"none-{len(self.classes)}" if self.folder is None else f"folder@{self.content}"

    @property
    def folder(self) -> Path | None:
        """Where the images lie, as an absolute path; None where there are none."""
        return None if self.images == NONE else Path(self.images).expanduser()


@dataclass(frozen=True)
class Layout:
    """The image files of a folder, by class in the order of the classes.

    ``train`` is empty where there are no training images. Test images are in ``test``, or else ``unlabelled``.
    """

    train: Mapping[str, Sequence[Path]]
    test: Mapping[str, Sequence[Path]]
    unlabelled: Sequence[Path]
    train_folder: Path
    test_folder: Path

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the class folders; none where no image has a label."""
        return tuple(self.test or self.train)

    @property
    def paths(self) -> list[Path]:
        """All files: training images first, class by class."""
        by_class = [path for split in (self.train, self.test) for paths in split.values() for path in paths]
        return [*by_class, *self.unlabelled]


def own_of(written: Mapping[str, Any], base: Path) -> OwnImages:
    """What a task's ``data: {images: FOLDER}`` stands for; relative paths start at ``base``.

    ``images: none`` stands for no images. ``classes`` is their number, where no folder's name tells it. The images are
    decoded once for their hash, which is cached until a file changes.

    Raises:
        UserError: a wrong key, no such folder, another layout, or a file that cannot be used; it is named.
    """
    for key in written:
        if key not in KEYS:
            raise UserError(f"unknown key {key!r}{nearest(str(key), KEYS)}")
    place = written.get("images")
    if not isinstance(place, str) or not place:
        raise UserError("images: must be the path of a folder, or none")
    told = written.get("classes")
    if told is not None and (not isinstance(told, int) or isinstance(told, bool) or not 2 <= told <= MOST):
        raise UserError(f"classes: must be a whole number from 2 to {MOST:,}, not {told!r}")
    if place == NONE:
        if told is None:
            raise UserError("without images nothing tells how many classes there are: {images: none, classes: NUMBER}")
        return OwnImages(images=NONE, classes=_numbered(told), test=COUNT, labelled=False)
    try:
        root = (base / Path(place).expanduser()).resolve()
    except RuntimeError:
        raise UserError(f"images: there is no home folder {place.partition('/')[0]}") from None
    found = layout(root)
    classes = found.classes
    if len(classes) > MOST:
        raise UserError(f"{root} has {len(classes):,} class folders; {MOST:,} are the most")
    if classes and told not in (None, len(classes)):
        raise UserError(f"classes: {told}, and {root} has {len(classes)} class folders ({_some(classes)})")
    if not classes and told is None:
        raise UserError(
            f"the images in {found.test_folder} have no class folders, so nothing tells how many classes there are: "
            f"{{images: {place}, classes: NUMBER}}"
        )
    classes = classes or _numbered(told or 0)
    return OwnImages(
        images=_without_user(root),
        content=content_of(root, found, len(classes)),
        classes=classes,
        train=sum(map(len, found.train.values())),
        test=sum(map(len, found.test.values())) or len(found.unlabelled),
        labelled=bool(found.test),
    )


def layout(root: Path) -> Layout:
    """The image files of a folder by class, looking at names alone.

    Raises:
        UserError: no such folder, another layout, classes that differ between train and test, or a link out of it.
    """
    if not root.is_dir():
        raise UserError(f"no such folder: {root}{nearest_folder(root)}")
    train_folder, test_folder = root / "train", root / "test"
    if train_folder.is_dir() and not test_folder.is_dir():
        raise UserError(f"{root} has no folder test: needed is {LAYOUT}")
    if not test_folder.is_dir():
        test_folder = root
    train = _by_class(root, train_folder) if train_folder.is_dir() else {}
    unlabelled = [] if _class_folders(test_folder) else _inside(root, test_folder)
    test = {} if unlabelled else _by_class(root, test_folder)
    if not test and not unlabelled:
        raise UserError(f"no images found in {test_folder}; needed is {LAYOUT}")
    if train and test and train.keys() != test.keys():
        parts = [
            f"only {split}/ has {_some(sorted(more))}"
            for split, more in (("train", train.keys() - test.keys()), ("test", test.keys() - train.keys()))
            if more
        ]
        raise UserError(f"{root}: train and test must have the same classes: {'; '.join(parts)}")
    if len(classes := test or train) == 1:
        raise UserError(f"{root}: a task needs at least two classes, and the only class folder is {_some([*classes])}")
    return Layout(train, test, unlabelled, train_folder, test_folder)


def content_of(root: Path, found: Layout, classes: int) -> str:
    """12 hex digits of a hash of classes and pixels: the same wherever the folder lies."""
    whole = decoded.cached_text("own-content", root, found.paths, lambda: _content(found))
    told = "" if found.classes else f";{classes}"
    return hashlib.sha256(f"{whole}{told}".encode()).hexdigest()[:12]


@cache
def source_of(own: OwnImages, image: ImageSpec) -> Source:
    """The data set of a user's own images, for the geometry of a task.

    Raises:
        UserError: a folder's images have 1 or 3 channels, and the task's another number.
    """
    if own.folder is None:
        return Source(
            name=own.name,
            title="No images: test images are made, and scores are agreement with the teacher",
            classes=own.classes,
            files=(),
            licence="none",
            citation="none",
            how_to_place="",
            make=partial(_made, image),
            test_images=own.test,
            labelled=False,
        )
    if image.channels not in (1, 3):
        raise UserError(f"images of a folder have 1 or 3 channels, not {image.channels}")
    return Source(
        name=own.name,
        title=f"The images of {own.images}",
        classes=own.classes,
        files=(),
        licence="that of its images",
        citation="that of its images",
        how_to_place=f"put them back into {own.images}, or correct the path in the task's file",
        tree=Tree(root=str(own.folder), inspect=inspect, read=partial(_read, own, image.channels)),
        test_images=own.test,
        labelled=own.labelled,
    )


def source_at(root: Path) -> Source:
    """A folder that no task has named yet, to be inspected."""
    where = _without_user(root.absolute())
    return Source(
        name=where,
        title="A folder of images",
        classes=(),
        files=(),
        licence="that of its images",
        citation="that of its images",
        how_to_place=f"sort the images into {where}: {LAYOUT}",
        tree=Tree(root=str(root.absolute()), inspect=inspect, read=_not_read),
    )


def inspect(root: Path, thorough: bool = False) -> list[FileStatus]:
    """The state of train and test, and of the files in them that cannot be used."""
    try:
        found = layout(root)
    except UserError as error:
        message = f"{error}"
        return [FileStatus(root.name, root, "corrupted", None, None, None, None, message)]
    bad = []
    for path in found.paths if thorough else found.paths[:1]:
        try:
            trees.picture(path) if thorough else trees.header(path)
        except MalformedError as error:
            bad.append(trees.wrong(path, root, error.state, str(error)))
    parts = []
    for folder, split in ((found.train_folder, found.train), (found.test_folder, found.test)):
        if split:
            sentence = f"{sum(map(len, split.values())):,} images of {len(split)} classes"
            parts.append(trees.part(folder, root, [], sentence + pool.unread_words(folder)))
    if found.unlabelled:
        sentence = f"{len(found.unlabelled):,} images without labels{pool.unread_words(found.test_folder)}"
        parts.append(trees.part(found.test_folder, root, [], sentence))
    return [*parts, *trees.shortened(bad)]


def _read(own: OwnImages, channels: int, root: Path, size: int) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, channels, size, size), labels int64 (N,), class by class.

    The shorter side is resized to ``size`` and the middle of the longer one kept. Raises UserError that names an image
    which cannot be used, or says that the folder is not what it was.
    """
    found = layout(root)
    if content_of(root, found, len(own.classes)) != own.content:
        raise UserError(f"{root}: the images are not those of {own.name}; they have changed since the task was read")
    paths = found.paths
    images = decoded.cached(
        f"own{channels}", root, paths, size, lambda: {"images": trees.squares(paths, size, channels)}
    )["images"]
    train, test = images[: own.train], images[own.train :]
    return (train, _labels(found.train)), (test, _labels(found.test) if own.labelled else _unknown(len(test)))


def _made(image: ImageSpec) -> tuple[Pair, Pair]:
    """No training images, and test images that are made."""
    import torch

    images = synthetic_images(image.channels, image.size, image.mean, image.std)
    nothing = torch.zeros(0, *image.shape, dtype=torch.uint8)
    return (nothing, torch.zeros(0, dtype=torch.int64)), (images, _unknown(len(images)))


def _unknown(count: int) -> Tensor:
    import torch

    return torch.full((count,), UNKNOWN, dtype=torch.int64)


def _labels(split: Mapping[str, Sequence[Path]]) -> Tensor:
    import torch

    counts = torch.tensor([len(paths) for paths in split.values()], dtype=torch.int64)
    return torch.arange(len(counts)).repeat_interleave(counts)


def _not_read(root: Path, size: int) -> tuple[Pair, Pair]:  # noqa: ARG001 - what every tree is asked for
    raise UserError(f"{root}: name it in a task, as data: {{images: {root}}}")


def _by_class(root: Path, folder: Path) -> dict[str, list[Path]]:
    """The images of a split by the name of their class folder, sorted."""
    found: dict[str, list[Path]] = {name: [] for name in _class_folders(folder)}
    for path in _inside(root, folder):
        inner = path.relative_to(folder).parts
        if len(inner) == 1:
            raise UserError(f"{path}: the image lies in no class folder; needed is {LAYOUT}")
        found[inner[0]].append(path)
    if empty := [name for name, paths in found.items() if not paths]:
        raise UserError(f"{folder} has class folders without images: {_some(empty)}")
    return found


def _inside(root: Path, folder: Path) -> list[Path]:
    """The image files below a folder; UserError for a link that leads out of ``root``."""
    paths, home = pool.image_files(folder), root.resolve()
    linked = [each for each in {path.parent for path in paths} if not each.resolve().is_relative_to(home)]
    linked += [path for path in paths if path.is_symlink() and not path.resolve().is_relative_to(home)]
    if linked:
        raise UserError(f"{min(linked)} is a link out of {root}, where no guard is; put the images into the folder")
    return paths


def _class_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if each.is_dir() and not pool.is_hidden(each.name)]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}") from None
    for name in names:
        if not name.isprintable():
            raise UserError(
                f"{folder}: the class {shown(name)!r} has characters that cannot be shown; rename the folder"
            )
    return sorted(names)


def _content(found: Layout) -> str:
    """sha256 over the names of splits and classes, and over each image's size and pixels as RGB, in their order."""
    digest = hashlib.sha256()

    def add(paths: Sequence[Path]) -> None:
        for path in paths:
            with trees.usable(path):
                pool.add_pixels(digest, trees.picture(path))

    for split, classes in (("train", found.train), ("test", found.test)):
        for name, paths in classes.items():
            digest.update(f"{split}/{name}:{len(paths)};".encode())
            add(paths)
    if found.unlabelled:
        digest.update(f"test:{len(found.unlabelled)};".encode())
        add(found.unlabelled)
    return digest.hexdigest()


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _without_user(path: Path) -> str:
    """The path as text, without the user's name in it."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except (ValueError, RuntimeError):
        return str(path)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
