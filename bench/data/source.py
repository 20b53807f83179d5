"""What a data set is: its published facts (:class:`Source`) and its images in memory (:class:`Dataset`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = Literal["ok", "missing", "altered", "truncated", "corrupted"]
Pair: TypeAlias = "tuple[Tensor, Tensor]"  # images (N, C, H, W), labels int64 (N,)


class MalformedError(Exception):
    """A file's contents cannot be this data set. ``state`` as in :class:`FileStatus`; the text says what is wrong."""

    def __init__(self, state: State, sentence: str) -> None:
        super().__init__(sentence)
        self.state = state


# Tensors have no single truth value, so that a generated __eq__ could only raise: hence eq=False on these two.
@dataclass(frozen=True, eq=False)
class Split:
    """One split: ``images`` uint8 (N, C, H, W) in 0..255; ``labels`` int64 (N,), each an index into the classes."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    ``fingerprint``: sha256 (64 hex digits) over the shapes and bytes of the four tensors. It depends on the files and
    the size alone, not on the machine.
    ``altered``: the files used although their checksum is not the official one; empty without ``allow_altered``.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    altered: tuple[str, ...]


@dataclass(frozen=True)
class SourceFile:
    """One published file. It may lie unpacked, or gzipped under its name with ``.gz`` added; sizes are in bytes."""

    name: str  # relative to the data folder, with forward slashes
    size: int
    md5: str
    gz_size: int
    gz_md5: str
    urls: tuple[str, ...]  # of the .gz, in the order in which they are tried


def nothing_to_check(source: Source, file: SourceFile, data: bytes) -> None:
    """The check of a source whose files have no form that can be told from their bytes."""


@dataclass(frozen=True)
class Source:
    """The published facts of a data set, and how its files become tensors. Not one image is opened to make one.

    ``read(source, contents)`` gives the train and test pairs from the unpacked contents by file name. Images are at
    their native size: uint8, or floating point in 0..255 where rounding has to wait until after the resize.
    ``check(source, file, data)`` raises :class:`MalformedError` for unpacked contents that ``read`` could not use.
    ``bundled()`` is for a set that an installed package brings: the path, or None where the package is not installed.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    files: tuple[SourceFile, ...]
    licence: str
    citation: str
    how_to_place: str
    read: Callable[[Source, Mapping[str, bytes]], tuple[Pair, Pair]]
    check: Callable[[Source, SourceFile, bytes], None] = nothing_to_check
    bundled: Callable[[], Path | None] | None = None


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
