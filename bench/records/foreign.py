"""What others may have written, read with care: names that become paths, files, and JSON.

A results folder or an archive may come from anybody. So nothing of it is joined to a path unchecked, no symbolic link
in it is followed, and whatever is damaged is told in one sentence that names the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import UserError
from bench.utils.text import shown

ID = re.compile(r"[0-9a-f]{16}")  # of a trial, always matched as a whole
DEEPEST = 64  # objects and lists inside each other
LARGEST = 256 * 2**20  # bytes of a text file that is read
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # no link, and no waiting for a pipe's writer
WHOLE = 2**63  # whole numbers beyond are none of ours, and no column holds them
CHECKSUM = "checksum"  # of a record: over all its other keys
FILES = "files"  # of a record: the checksums of the files beside it


def is_id(name: object) -> bool:
    """Whether a name is that of a trial: 16 hex digits, and so safe as part of a path.

    >>> is_id("0123456789abcdef"), is_id("../../x"), is_id("0123456789abcdef\\n")
    (True, False, False)
    """
    return isinstance(name, str) and ID.fullmatch(name) is not None


def check_id(name: object, where: object) -> str:
    """The name, if it is a trial's.

    Raises:
        UserError: it is not.
    """
    if isinstance(name, str) and is_id(name):
        return name
    raise UserError(f"{where}: {brief(name)} is not the id of a trial, which has 16 hex digits")


def brief(value: object, longest: int = 60) -> str:
    """A value of others as it may stand in a sentence: on one line, without control characters, and not long.

    >>> brief("a\\x1b[31mb"), brief("x" * 100, 10)
    ("'a\\\\x1b[31mb'", "'xxxxxxxxxx...' (100 characters)")
    """
    text = value if isinstance(value, str) else repr(value)[: longest + 1]
    if len(text) <= longest:
        return f"'{shown(text)}'" if isinstance(value, str) else shown(text)
    told = f" ({len(text):,} characters)" if isinstance(value, str) else ""
    return f"'{shown(text[:longest])}...'{told}"


# ---- files ---------------------------------------------------------------------------------------------------------


def is_there(path: Path) -> bool:
    """Whether there is a file, and nothing else, at a place in a results folder.

    Raises:
        UserError: there is a symbolic link.
    """
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return False
    if stat.S_ISLNK(found.st_mode):
        refuse_link(path)
    return stat.S_ISREG(found.st_mode)


def refuse_links(folder: Path) -> None:
    """Raise UserError if a folder is a symbolic link, or there is anything in it but files and folders."""
    if folder.is_symlink():
        refuse_link(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                refuse_link(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                refuse_links(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                raise UserError(f"{shown(entry.path)} is neither a file nor a folder; remove it")


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A file of a results folder, open to be read.

    Raises:
        UserError: it is missing, a symbolic link or no file, or cannot be read.
    """
    try:
        with open(os.open(path, os.O_RDONLY | _CAREFUL), "rb") as file:  # noqa: PTH123  a handle, not a path
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{shown(str(path))} is not a file")
            yield file
    except (OSError, ValueError) as error:
        if path.is_symlink():
            refuse_link(path)
        raise UserError(f"cannot read {shown(str(path))}: {getattr(error, 'strerror', None) or error}") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file of a results folder; raises as ``opened``, and for what is very large."""
    with opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > LARGEST:
            raise UserError(f"{shown(str(path))} has {size:,} bytes; no such file has more than {LARGEST:,}")
        return file.read()


def read_text(path: Path) -> str:
    """The content of a text file of a results folder; raises as ``read_bytes``, and for what is not UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {shown(str(path))}: it is not UTF-8 text: {error.reason}") from None


def sha256_of(file: Path) -> str:
    """The hash of a file's content, in hex digits; raises as ``opened``."""
    with opened(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def refuse_link(path: Path) -> NoReturn:
    raise UserError(
        f"{shown(str(path))} is a symbolic link, and links inside results are not followed; replace it by a copy"
    )


# ---- JSON ----------------------------------------------------------------------------------------------------------


def parse(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object from text; raises as ``parse_any``, and for what is no object."""
    value = parse_any(text, where)
    if not isinstance(value, dict):
        raise UserError(f"{where} must contain a JSON object")
    return value


def parse_any(text: str | bytes, where: str) -> Any:
    """Any JSON value from text. ``where`` is named in the complaint.

    Raises:
        UserError: it is no JSON, names a key twice, is nested deeper than ``DEEPEST``, or holds NaN, infinity, a whole
            number beyond 64 bits, a NUL or half of a surrogate pair: programs differ in how they read these.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_number)
        _check_plain(value)
    except RecursionError:
        raise UserError(f"{where} is nested too deeply: more than {DEEPEST} levels") from None
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {shown(str(error))}") from None
    return value


def read_task_list(text: str, where: str) -> list[dict[str, Any]]:
    """The tasks of a ``tasks.json``, written out; raises as ``parse_any``, and for what is no list of tasks."""
    tasks = parse_any(text, where)
    if not isinstance(tasks, list) or not all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in tasks):
        raise UserError(f"{where} must hold a list of tasks")
    return tasks


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {brief(next(name for name in names if names.count(name) > 1))} is there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _check_plain(value: Any) -> None:
    """Raise ValueError for what ``parse_any`` refuses; without recursion."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        below: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is str:
                if not each.isascii() or "\0" in each:
                    _check_text(each)
            elif kind is float:
                if not math.isfinite(each):
                    raise ValueError("it has a number too large to be read")
            elif kind is int:
                if not -WHOLE <= each < WHOLE:
                    raise ValueError("it has a whole number of more than 64 bits")
            elif kind is dict:
                below += each
                below += each.values()
            elif kind is list:
                below += each
        level, depth = below, depth + 1


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("it has a text with a NUL")
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise ValueError("it has a text with half of a surrogate pair")


# ---- checksums -----------------------------------------------------------------------------------------------------

_CHANGED = (
    " has changed since it was written: its checksum does not fit; restore it from a copy, or run the trial again"
)


def checksum_of(record: Mapping[str, Any]) -> str:
    """The SHA-256 of a record's content apart from its checksum, in hex digits."""
    return hashlib.sha256(canonical({key: value for key, value in record.items() if key != CHECKSUM})).hexdigest()


def check_sums(record: Mapping[str, Any], where: str) -> None:
    """Raise UserError if a record, as plain values, is not what was written; older ones have no checksum."""
    held = record.get(CHECKSUM)
    if held is not None and held != checksum_of(record):
        raise UserError(f"{where}{_CHANGED}")


def check_file(files: Mapping[str, str], name: str, content: bytes | str, where: str) -> None:
    """Raise UserError if a file beside a record is not the one that was written with it.

    Args:
        files: those of the record; older ones have none.
        name: of the file in the trial's folder.
        content: what is in the file now, or its hash.
        where: the file, for the complaint.
    """
    if name in files and files[name] != (content if isinstance(content, str) else hashlib.sha256(content).hexdigest()):
        raise UserError(f"{where}{_CHANGED}")


def curve_lines(points: Sequence[Mapping[str, Any]]) -> str:
    """The text of ``curve.jsonl``; that of an archive's curve is made of its values again, for its checksum."""
    return "".join(json.dumps(point) + "\n" for point in points)
