"""Unpacking what was downloaded: only the files that are wanted, each of them whole and official or not at all.

The folder and name of a file are those of its :class:`SourceFile`; an archive's own paths and links are never followed.
Of a set of many files the archive as a whole is official, and so are the names in it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from bench.data.source import SourceFile
from bench.utils.http import RefusedError

BLOCK = 1 << 20  # bytes


def unpack_gz(archive: Path, file: SourceFile, folder: Path) -> None:
    """Put the contents of a ``.gz`` at ``file``'s place in the data folder.

    Raises RefusedError for contents that are not official, and what gzip raises for a file that it cannot read.
    """
    with gzip.open(archive) as contents:
        _put(contents, file, folder)


def unpack_tar(archive: Path, files: Sequence[SourceFile], folder: Path) -> None:
    """Put ``files`` from a ``.tar.gz`` at their places in the data folder; other members stay where they are.

    Raises RefusedError for a member with a path that points outside the archive, a file that is missing, not a regular
    file or not official, and what tarfile raises for a file that it cannot read.
    """
    left = {file.name: file for file in files}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise RefusedError(f"its member {member.name!r} points outside the archive")
            if (file := left.pop(path.as_posix(), None)) is None:
                continue
            contents = tar.extractfile(member) if member.isreg() else None  # of a link, it would follow the link
            if contents is None:
                raise RefusedError(f"its member {member.name!r} is not a regular file")
            if member.size != file.size:
                raise RefusedError(f"its member {member.name!r} has {member.size} bytes, official {file.size}")
            _put(contents, file, folder)
    if left:
        raise RefusedError(f"it does not contain {', '.join(left)}")


def unpack_tree(archive: Path, tops: Sequence[str], folder: Path) -> None:
    """Unpack the folders and files ``tops`` of a ``.zip`` or ``.tar.gz`` as the new ``folder``, whole or not at all.

    What lies above them in the archive is left away; other members stay where they are. Raises RefusedError for a
    member with a path that points outside the archive, one that is neither a file nor a folder, or if there is nothing
    to unpack, and what zipfile and tarfile raise for a file that they cannot read.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        for name, contents in _members(archive):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise RefusedError(f"its member {name!r} points outside the archive")
            first = next((index for index, each in enumerate(path.parts) if each in tops), None)
            if first is None:
                continue
            if contents is None:
                raise RefusedError(f"its member {name!r} is not a regular file")
            target = part.joinpath(*path.parts[first:])
            target.parent.mkdir(parents=True, exist_ok=True)
            with contents() as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, BLOCK)
        if not part.is_dir():
            raise RefusedError(f"it contains neither {' nor '.join(tops)}")
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]] | None]]:
    """The names of an archive's members, without folders, and how to open each; None for what is no regular file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    link = stat.S_ISLNK(info.external_attr >> 16)
                    yield info.filename, None if link else partial(packed.open, info)
        return
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if not member.isdir():
                yield member.name, partial(_opened, tar, member) if member.isreg() else None


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    contents = tar.extractfile(member)
    assert contents is not None, "a regular file was asked for"
    return contents


def _put(contents: IO[bytes] | gzip.GzipFile, file: SourceFile, folder: Path) -> None:
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with part.open("wb") as out:
            while block := contents.read(BLOCK):
                digest.update(block)
                out.write(block)
        if (found := digest.hexdigest()) != file.md5:
            raise RefusedError(f"the md5 of {target.name} in it is {found}, official {file.md5}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
