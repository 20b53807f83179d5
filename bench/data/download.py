"""Downloading a data set's files: the only place where the data sets touch the network."""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from bench.data.files import home, inspect, md5_of_file
from bench.data.source import Source, SourceFile
from bench.errors import UserError

Progress: TypeAlias = Callable[[str, int, int], None]  # file name, bytes so far, bytes in all

BLOCK = 1 << 18  # bytes
TIMEOUT = 30.0  # seconds without an answer


class RefusedError(Exception):
    """What came over the network is not the official file."""


def fetch(source: Source, folder: Path | None, folders: Sequence[Path], progress: Progress | None) -> Path:
    """Bring all files of ``source`` into ``folder``, else where some of them lie already, else into ``folders[0]``.

    Files that are official already are left alone, truncated and corrupted ones are replaced, and an altered one is an
    error: it may be somebody's work. Each file is stored unpacked. Returns the data folder. Raises UserError.
    """
    target = folders[0] if folder is not None else home(source, folders) or folders[0]
    statuses = inspect(source, [target])
    if altered := [status.message for status in statuses if status.state == "altered"]:
        raise UserError(f"{source.name}: {'; '.join(altered)}. Move it away, then fetch again")
    wanted = [file for file, status in zip(source.files, statuses, strict=True) if status.state != "ok"]
    for position, file in enumerate(wanted):
        problems = []
        for url in file.urls:
            try:
                _bring(file, url, target / file.name, progress)
                break
            except (OSError, http.client.HTTPException, ValueError, EOFError, zlib.error, RefusedError) as error:
                problems.append(f"{url}: {error}")
        else:
            raise UserError(_failure(source, target, problems, wanted[position:]))
    return target


def _failure(source: Source, target: Path, problems: Sequence[str], left: Sequence[SourceFile]) -> str:
    lines = [f"{source.name} could not be fetched: {'; '.join(problems)}.", "To place the files by hand, download"]
    for file in left:
        path = target / file.name
        hides = f", and delete {path}" if path.exists() else ""  # an unpacked file goes before an archive
        lines += [f"  {file.urls[0]}", f"    to {path}.gz{hides}"]
    return "\n".join(lines)


def _bring(file: SourceFile, url: str, target: Path, progress: Progress | None) -> None:
    """Download ``url`` and put its contents at ``target``, which appears whole and official or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    packed = part.with_suffix(".gz.part")
    try:
        _transfer(file, url, packed, progress)
        _demand(packed, file.gz_md5, "the archive's")
        with gzip.open(packed) as archive, part.open("wb") as out:
            shutil.copyfileobj(archive, out, BLOCK)
        _demand(part, file.md5, "the contents'")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)


def _transfer(file: SourceFile, url: str, target: Path, progress: Progress | None) -> None:
    done = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, target.open("wb") as out:
        while block := answer.read(BLOCK):
            out.write(block)
            done += len(block)
            if done > file.gz_size:  # a login page, or a server that never stops
                raise RefusedError(f"more than the official {file.gz_size} bytes")
            if progress is not None:
                progress(file.name, done, file.gz_size)
    if done < file.gz_size:
        raise RefusedError(f"ended after {done} of {file.gz_size} bytes")


def _demand(path: Path, md5: str, whose: str) -> None:
    if (found := md5_of_file(path)) != md5:
        raise RefusedError(f"{whose} md5 is {found}, official {md5}")
