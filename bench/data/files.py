"""Finding a data set's files and telling whether they are the official ones. Needs no torch."""

from __future__ import annotations

import gzip
import hashlib
import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.data.source import FileStatus, MalformedError, Source, SourceFile, State, Tree
from bench.errors import MissingData, UserError


def inspect(source: Source, folders: Sequence[Path], thorough: bool = False) -> list[FileStatus]:
    """The state of each of the source's files, in the source's order; of a tree see :class:`Tree`."""
    if source.bundled is not None:
        return [_bundled(source, source.bundled())]
    if source.make is not None:
        message = f"{source.name} is generated from a fixed seed"
        return [FileStatus(source.name, None, "ok", None, None, None, None, message)]
    found = home(source, folders)
    if source.tree is not None:
        return _inspect_tree(source.tree, found, folders, thorough)
    return [_inspect(source, file, found, folders) for file in source.files]


def home(source: Source, folders: Sequence[Path]) -> Path | None:
    """The first folder that holds any of the source's files.

    All of a set's files are taken from that one folder, even if a later one has a better copy of one: somebody who
    names a folder must not silently get other images, nor labels that belong to other images.
    """
    if source.tree is not None:
        tree = source.tree
        return next((folder for folder in folders if tree.folder(folder) is not None), None)
    places = _places(source, folders)
    return next((place for place in places if any(_locate(source, place, file) for file in source.files)), None)


def folder_of(status: FileStatus) -> Path | None:
    """The data folder in which a file was found; of one that a package of the system brings, the package's folder."""
    if status.path is None:
        return None
    folder = status.path.parents[status.name.count("/")]
    return folder if (folder / status.name).parent == status.path.parent else status.path.parent


def archive_seen(source: Source, folders: Sequence[Path]) -> Path | None:
    """The source's archive, official or not, where its files are or else in the first of ``folders`` that has it."""
    if source.archive is None:
        return None
    found = home(source, folders)
    places = [found] if found else folders
    return next((path for folder in places if _is_file(path := folder / source.archive.name)), None)


def demand_usable(source: Source, statuses: Sequence[FileStatus], folders: Sequence[Path], allow_altered: bool) -> None:
    """Raise unless all files are well-formed and, without ``allow_altered``, official.

    ``statuses`` are what :func:`inspect` found in ``folders``. Raises MissingData if a file is missing and UserError if
    one cannot be used; the message names all of them and what to do.
    """
    accepted = {"ok", "altered"} if allow_altered else {"ok"}
    bad = [status for status in statuses if status.state not in accepted]
    if bad:
        raise _unusable(source, statuses, bad, folders)


def contents(source: Source, statuses: Sequence[FileStatus]) -> Mapping[str, Any]:
    """What the source's ``parse`` made of each file, by file name, of files that :func:`demand_usable` let pass.

    Raises UserError for one that cannot be read after all.
    """
    paths = {status.name: status.path for status in statuses}
    return {file.name: _read(source, file, paths[file.name]) for file in source.files}


def _unusable(
    source: Source, statuses: Sequence[FileStatus], bad: Sequence[FileStatus], folders: Sequence[Path]
) -> UserError:
    problems = [status.message for status in bad if status.state != "missing"]
    missing = [status.name for status in bad if status.state == "missing"]
    if source.bundled is not None:
        return MissingData(f"{source.name}: {bad[0].message}. {source.how_to_place}")
    if source.tree is not None and Path(source.tree.root).is_absolute():  # a user's own folder
        kind = MissingData if missing else UserError
        return kind(f"{source.name}: {'; '.join(each.message for each in bad)}. To fix it, {source.how_to_place}")
    # the files of a set lie in one folder: what is found of them says which
    there = [folder for status in statuses if (folder := folder_of(status))][:1]
    if missing:
        places = ", ".join(map(str, there or _places(source, folders)))
        gz = " (plain and as .gz)" if any(file.gz_md5 for file in source.files) else ""
        problems.append(f"missing{gz} from {places}: {', '.join(missing)}")
    remedy = _remedy(source, {status.state for status in bad}, there, folders)
    return (MissingData if missing else UserError)(f"{source.name}: {'; '.join(problems)}. {remedy}")


def _remedy(source: Source, states: set[State], there: Sequence[Path], folders: Sequence[Path]) -> str:
    """What to do about a set with files in ``states``, ``there`` being the one folder with any of them, or nothing."""
    use = "Pass --allow-altered to use it anyway"
    if not source.fetchable:
        return f"{use}, or {source.how_to_place}" if states == {"altered"} else f"To fix it, {source.how_to_place}"
    ours = [folder for folder in there if folder != source.package]  # nothing is put among a package's files
    archive = archive_seen(source, folders)
    target = archive.parent if archive else next(iter(ours), None)
    fetch = f"`dfkd data fetch {source.name}{f' --data {shlex.quote(str(target))}' if target else ''}`"
    if states == {"altered"}:
        return f"{use}, or move it elsewhere and run {fetch}"
    first = "Move the altered files elsewhere, then run" if "altered" in states else "Run"
    if source.tree is not None and there:
        return f"Move {source.tree.folder(there[0])} elsewhere, then run {fetch}"
    if archive:
        return f"{first} {fetch}, which unpacks {archive}"
    return f"{first} {fetch}, or {'place the official files there by hand' if ours else source.how_to_place}"


def _places(source: Source, folders: Sequence[Path]) -> list[Path]:
    return [*folders, *([source.package] if source.package else [])]


def _locate(source: Source, folder: Path, file: SourceFile) -> Path | None:
    path = folder / (Path(file.name).name if folder == source.package else file.name)
    return next((each for each in _forms(path, file) if _is_file(each)), None)


def _forms(path: Path, file: SourceFile) -> Iterator[Path]:
    yield path
    if file.gz_md5:
        yield path.with_name(f"{path.name}.gz")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that may not be entered holds nothing for us
        return False


def _inspect_tree(tree: Tree, found: Path | None, folders: Sequence[Path], thorough: bool) -> list[FileStatus]:
    if found is not None and (folder := tree.folder(found)) is not None:
        return tree.inspect(folder, thorough=thorough)
    names = f"{tree.root} (or {', '.join(tree.also)})" if tree.also else tree.root
    message = f"the folder {names} was not found in {', '.join(map(str, folders))}"
    if Path(tree.root).is_absolute():
        message = f"no such folder: {tree.root}"
    return [FileStatus(tree.root, None, "missing", None, None, None, None, message)]


def _inspect(source: Source, file: SourceFile, found: Path | None, folders: Sequence[Path]) -> FileStatus:
    path = _locate(source, found, file) if found else None
    if path is not None:
        return _judge(source, file, path)
    places = ", ".join(map(str, _places(source, folders)))
    gz = f" (or {Path(file.name).name}.gz)" if file.gz_md5 else ""
    message = f"{file.name}{gz} is {f'missing from {found}' if found else f'not found in {places}'}"
    return FileStatus(file.name, None, "missing", file.size, None, file.md5, None, message)


def _judge(source: Source, file: SourceFile, path: Path) -> FileStatus:
    packed = path.suffix == ".gz"
    expected: tuple[int | None, str | None] = (file.gz_size, file.gz_md5) if packed else (file.size, file.md5)
    actual: tuple[int | None, str | None] = (None, None)

    def report(state: State, sentence: str) -> FileStatus:
        numbers = (expected[0], actual[0], expected[1], actual[1])
        return FileStatus(file.name, path, state, *numbers, f"{path}: {sentence}")

    try:
        stat = path.stat()
        actual = (stat.st_size, _md5(path, stat.st_size, stat.st_mtime_ns))
        if actual[1] == expected[1]:
            return report("ok", "the official file")
        data = path.read_bytes()
        if packed:
            data = _unpack(data, file)
            expected, actual = (file.size, file.md5), (len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
            if actual[1] == expected[1]:
                return report("ok", "another gzip archive of the official contents")
        _parse(source, file, data)
    except OSError as error:
        return report("corrupted", f"cannot be read: {error.strerror or error}")
    except MalformedError as error:
        return report(error.state, str(error))
    return report("altered", f"altered: md5 {actual[1]}, official {expected[1]}")


def _unpack(data: bytes, file: SourceFile) -> bytes:
    try:
        return gzip.decompress(data)
    except EOFError:
        early = len(data) < (file.gz_size or 0)
        short = f"{len(data)} of {file.gz_size} bytes" if early else "the gzip stream ends early"
        raise MalformedError("truncated", f"truncated: {short}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise MalformedError("corrupted", f"not a complete gzip file: {error}") from None


def _parse(source: Source, file: SourceFile, data: bytes) -> Any:
    assert source.parse is not None, "a source with files says how they are parsed"
    return source.parse(source, file, data)


def _read(source: Source, file: SourceFile, path: Path | None) -> Any:
    assert path is not None, "only files that were found are read"
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = _unpack(data, file)
        # also of files with the official checksum: a source that states wrong facts must not end in a traceback
        return _parse(source, file, data)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MalformedError as error:
        raise UserError(f"{path}: {error}") from None


def _bundled(source: Source, path: Path | None) -> FileStatus:
    if path is None:
        message = f"{source.title} is missing: the package that contains it is not installed"
        return FileStatus(source.name, None, "missing", None, None, None, None, message)
    size = path.stat().st_size if path.is_file() else None
    return FileStatus(path.name, path, "ok", None, size, None, None, f"{path}: comes with an installed package")


@lru_cache(maxsize=256)
def _md5(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - size and time are there for the cache alone
    """The file's md5, worked out once in a process for as long as its size and time of change stay the same."""
    return md5_of_file(path)


def md5_of_file(path: Path) -> str:
    """32 hex digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
