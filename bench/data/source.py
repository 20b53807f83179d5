"""What a data set is: its published facts (:class:`Source`) and its images in memory (:class:`Dataset`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = Literal["ok", "missing", "altered", "truncated", "corrupted"]
Kind: TypeAlias = Literal["classification", "segmentation", "unlabelled"]
Pair: TypeAlias = "tuple[Tensor, Tensor]"  # images (N, C, H, W); labels int64 (N,), or uint8 (N, H, W) for segmentation

UNKNOWN = -1  # the label of test images whose classes nobody knows: a student is compared with its teacher
VOID = 255  # the label of a pixel that belongs to no class: not trained on, not scored


class MalformedError(Exception):
    """A file's contents cannot be this data set. ``state`` as in :class:`FileStatus`; the text says what is wrong."""

    def __init__(self, state: State, sentence: str) -> None:
        super().__init__(sentence)
        self.state = state


# Tensors have no single truth value, so that a generated __eq__ could only raise: hence eq=False on these two.
@dataclass(frozen=True, eq=False)
class Split:
    """One split: ``images`` uint8 (N, C, H, W) in 0..255, and ``labels``, each an index into the classes.

    Labels are int64 (N,) for classification, and uint8 (N, H, W) with :data:`VOID` for segmentation.
    ``digest`` is the sha256 of the images' bytes where they are mapped from a file, because they need not fit into
    memory; it is empty for images in memory. What is mapped is read where it is indexed, and never copied as a whole.
    """

    images: Tensor
    labels: Tensor
    digest: str = ""

    @property
    def mapped(self) -> bool:
        """Whether the images lie in a file and not in memory."""
        return bool(self.digest)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    ``fingerprint``: sha256 (64 hex digits) over the shapes and bytes of the four tensors. It depends on the files and
    the size alone, not on the machine.
    ``altered``: the files used although their checksum is not the official one; empty without ``allow_altered``.
    ``labelled``: whether the classes of the test images are known; their labels are :data:`UNKNOWN` otherwise.
    ``home``: where the test images are another set's, the set with its own, on which teachers are trained and scored.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    altered: tuple[str, ...]
    labelled: bool = True
    home: Dataset | None = None

    @property
    def dense(self) -> bool:
        """Whether every pixel has its own label (segmentation)."""
        return self.train.labels.ndim == 3


@dataclass(frozen=True)
class SourceFile:
    """One published file; sizes are in bytes.

    One with a ``gz_md5`` is published gzipped: it may lie unpacked, or gzipped under its name with ``.gz`` added.
    """

    name: str  # relative to the data folder, with forward slashes
    size: int
    md5: str
    gz_size: int | None = None
    gz_md5: str | None = None
    urls: tuple[str, ...] = ()  # of the .gz or else of the file, in the order in which they are tried
    images: int | None = None  # how many it has to hold, where its form does not tell


@dataclass(frozen=True)
class Archive:
    """A published ``.tar.gz`` that holds a set's files under their names; the size is in bytes.

    Of a set of many files it may be a ``.zip`` as well. ``tops`` are the folders and files of it that are unpacked;
    what lies above them in the archive is left away.
    """

    name: str  # one that was downloaded by hand is looked for under this name in the data folder
    size: int
    md5: str
    urls: tuple[str, ...]  # in the order in which they are tried
    tops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """How a set of many image files is read, which lies in its own folder below a data folder.

    ``inspect(root)`` gives the state of its parts (a split, a list, a class) and of each single file that is wrong, by
    looking at names, sizes and headers only; with ``thorough=True`` every file is decoded. ``read(root, size)`` gives
    the train and test pairs with uint8 images: for classification of ``size`` x ``size`` pixels, for segmentation with
    the shorter side ``size`` pixels long, and labels resized to match without inventing any. A set that need not fit
    into memory gives two splits with mapped images instead. It raises UserError that names the file for one that cannot
    be used.
    """

    root: str  # relative to the data folder; a user's own folder is absolute
    inspect: Callable[..., list[FileStatus]]
    read: Callable[[Path, int], tuple[Pair | Split, Pair | Split]]
    also: tuple[str, ...] = ()  # other names that the folder has on people's disks

    def folder(self, place: Path) -> Path | None:
        """Its folder in a data folder, by the first of its names that is there."""
        for name in (self.root, *self.also):
            try:
                if (place / name).is_dir():
                    return place / name
            except OSError:  # below a folder that may not be entered
                continue
        return None


@dataclass(frozen=True)
class Source:
    """The published facts of a data set, and how its files become tensors. Not one image is opened to make one.

    A set is one of four things: a few published ``files``, a ``tree`` of many, ``bundled`` with an installed package,
    or generated by ``make``.

    ``parse(source, file, data)`` gives what an unpacked file holds, in the form that ``read`` takes. It raises
    :class:`MalformedError` for a file that ``read`` could not use.
    ``read(source, contents)`` gives the train and test pairs from what was parsed, by file name. Images are at their
    native size: uint8, or floating point in 0..255 where rounding has to wait until after the resize.
    ``archive`` is what the files are published in, where they have no separate address.
    ``package`` is a folder into which a package of the system puts the files, without the folders in their names. It
    is looked at last.
    ``bundled()`` is for a set that an installed package brings: the path, or None where the package is not installed.
    ``test_images`` is how many test images the official files have; None: not stated here.
    ``make()`` gives the train and test pairs of a set that is generated, from a fixed seed, at its native size.
    ``labelled`` says whether the classes of the test images are known.
    ``tested_on`` is another set with the same classes, whose test images stand in the place of this one's.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    files: tuple[SourceFile, ...]
    licence: str
    citation: str
    how_to_place: str
    read: Callable[[Source, Mapping[str, Any]], tuple[Pair, Pair]] | None = None
    parse: Callable[[Source, SourceFile, bytes], Any] | None = None
    archive: Archive | None = None
    package: Path | None = None
    bundled: Callable[[], Path | None] | None = None
    kind: Kind = "classification"
    tree: Tree | None = None
    make: Callable[[], tuple[Pair, Pair]] | None = None
    test_images: int | None = None
    labelled: bool = True
    tested_on: Source | None = None

    @property
    def fetchable(self) -> bool:
        """Whether there is something to download."""
        return bool(self.files) or self.archive is not None


@dataclass(frozen=True)
class FileStatus:
    """What was found of one file.

    ``state``: ``ok``: the official bytes; ``missing``; ``altered``: well-formed, but not the official bytes;
    ``truncated``: it ends early; ``corrupted``: not a file of this kind, or unreadable. ``message`` is one sentence
    without a full stop that names the file. Sizes are in bytes. Of a ``.gz`` that unpacks but is not the official
    archive, sizes and checksums are those of its contents.
    """

    name: str
    path: Path | None
    state: State
    expected_size: int | None
    actual_size: int | None
    expected_md5: str | None
    actual_md5: str | None
    message: str
