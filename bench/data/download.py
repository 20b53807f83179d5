"""Downloading a data set's files, and putting them in place once they are verified."""

from __future__ import annotations

import os
import shlex
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.data.archives import unpack_gz, unpack_tar, unpack_tree
from bench.data.files import archive_seen, folder_of, home, inspect, md5_of_file
from bench.data.source import Archive, Source, SourceFile, Tree
from bench.errors import UserError
from bench.utils.http import FAILURES, Progress, RefusedError, transfer

# what a transfer or an archive may raise
BROKEN = (*FAILURES, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def fetch(source: Source, folder: Path | None, folders: Sequence[Path], progress: Progress | None) -> Path:
    """Bring all files of ``source`` into ``folder``, else where some of them lie already, else into ``folders[0]``.

    Files that are official already are left alone, truncated and corrupted ones are replaced, and an altered one is an
    error: it may be someone's work. Each file is stored unpacked. An archive that lies in the data folder already is
    taken instead of a download. A set of many files comes whole or not at all. Returns the data folder. Raises
    UserError, also for an incomplete set of many files.
    """
    if folder is None or not source.files:
        statuses = inspect(source, folders if folder is None or not source.fetchable else [folder])
        if all(status.state == "ok" for status in statuses) and (found := folder_of(statuses[0])):
            return found
    if not source.fetchable:
        raise UserError(f"{source.name} has no official archive to fetch: {source.how_to_place}")
    source = replace(source, package=None)  # nothing is put among a package's files
    target = folders[0] if folder is not None else _folder_for(source, folders)
    if source.tree is not None and source.archive is not None:
        _bring_tree(source, source.archive, source.tree, target, progress)
        return target
    statuses = inspect(source, [target])
    if altered := [status.message for status in statuses if status.state == "altered"]:
        raise UserError(f"{source.name}: {'; '.join(altered)}. Move it elsewhere, then fetch again")
    wanted = [file for file, status in zip(source.files, statuses, strict=True) if status.state != "ok"]
    if source.archive is not None and wanted:
        _bring_archive(source, source.archive, lambda path: unpack_tar(path, wanted, target), target, progress)
    elif source.archive is None:
        _bring_files(source, wanted, target, progress)
    return target


def _folder_for(source: Source, folders: Sequence[Path]) -> Path:
    archive = archive_seen(source, folders)
    return home(source, folders) or (archive.parent if archive else folders[0])


def _bring_tree(source: Source, archive: Archive, tree: Tree, target: Path, progress: Progress | None) -> None:
    if (there := tree.folder(target)) is not None:
        wrong = "; ".join(each.message for each in inspect(source, [target]) if each.state != "ok")
        raise UserError(f"{source.name}: {wrong}. Move {there} elsewhere, then fetch again")
    _bring_archive(source, archive, lambda path: unpack_tree(path, archive.tops, target / tree.root), target, progress)


def _bring_archive(
    source: Source, archive: Archive, unpack: Callable[[Path], None], target: Path, progress: Progress | None
) -> None:
    problems = []
    placed = target / archive.name
    if placed.is_file():
        try:
            _demand(placed, archive)
            return unpack(placed)
        except BROKEN as error:
            problems.append(f"{placed}: {error}")
    for url in archive.urls:
        try:
            with _downloaded(archive, url, target, archive.name, progress) as path:
                return unpack(path)
        except BROKEN as error:
            problems.append(f"{url}: {error}")
    again = f"`dfkd data fetch {source.name} --data {shlex.quote(str(target))}`"
    raise UserError(
        f"{source.name} could not be fetched: {'; '.join(problems)}.\nTo place the files by hand, download\n"
        f"  {archive.urls[0]}\n    to {placed}, and run {again}, which unpacks it"
    )


def _bring_files(source: Source, wanted: Sequence[SourceFile], target: Path, progress: Progress | None) -> None:
    for position, file in enumerate(wanted):
        problems = []
        for url in file.urls:
            try:
                _bring(file, url, target, progress)
                break
            except BROKEN as error:
                problems.append(f"{url}: {error}")
        else:
            raise UserError(_failure(source, target, problems, wanted[position:]))


def _failure(source: Source, target: Path, problems: Sequence[str], left: Sequence[SourceFile]) -> str:
    lines = [f"{source.name} could not be fetched: {'; '.join(problems)}.", "To place the files by hand, download"]
    for file in left:
        path = target / file.name
        hides = f", and delete {path}" if file.gz_md5 and path.exists() else ""  # an unpacked file goes before a .gz
        lines += [f"  {file.urls[0]}", f"    to {path}{'.gz' if file.gz_md5 else ''}{hides}"]
    return "\n".join(lines)


def _bring(file: SourceFile, url: str, target: Path, progress: Progress | None) -> None:
    """Download ``url`` and put its contents at their place, where they appear whole and official or not at all."""
    if file.gz_size is not None and file.gz_md5 is not None:
        archive = Archive(f"{file.name}.gz", file.gz_size, file.gz_md5, file.urls)
        with _downloaded(archive, url, target, file.name, progress) as path:
            unpack_gz(path, file, target)
    else:
        with _downloaded(Archive(file.name, file.size, file.md5, file.urls), url, target, file.name, progress) as path:
            path.replace(target / file.name)


@contextmanager
def _downloaded(archive: Archive, url: str, folder: Path, shown: str, progress: Progress | None) -> Iterator[Path]:
    """The verified download as a file beside its place, which is gone after the block. ``shown`` is its name for
    ``progress``."""
    place = folder / archive.name
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        transfer(url, part, archive.size, shown, progress)
        _demand(part, archive)
        yield part
    finally:
        part.unlink(missing_ok=True)


def _demand(path: Path, archive: Archive) -> None:
    if (found := md5_of_file(path)) != archive.md5:
        whose = "the archive's" if archive.name.endswith((".gz", ".tgz", ".zip")) else "the file's"
        raise RefusedError(f"{whose} md5 is {found}, official {archive.md5}")
