"""The results folder: trials are written whole or not at all, and nothing that finished is lost.

::

    RESULTS/results.json          {"schema": 1}
    RESULTS/trials/<id>/          record.json, curve.jsonl and the trial's other files
    RESULTS/work/<id>/            unfinished trials, never read here
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from bench.errors import UserError, nearest_folder
from bench.records.foreign import (
    check_file,
    check_sums,
    curve_lines,
    is_id,
    is_there,
    parse,
    read_bytes,
    read_text,
    refuse_link,
    refuse_links,
    sha256_of,
)
from bench.records.schema import SCHEMA, CurvePoint, Record, as_json, sealed, writable
from bench.utils.text import shown

FULL = {errno.ENOSPC, errno.EDQUOT}
ARCHIVE = "records.parquet"  # a folder that has this instead of trials is read as this
OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST}
UNFINISHED = ".new"  # beside the trials: those that are being written; gone when there are none
UNSEALED = ("log.txt",)  # of a trial's files: for people to read, and nothing is computed of it


def open_folder(folder: Path, create: bool = False) -> Path:
    """Check that ``folder`` is a results folder that this version reads; the rest is as in ``open_results``."""
    marker = folder / "results.json"
    if create:
        refuse_archive(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                _make_marker(marker)
    if not marker.is_file():
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is neither a results folder nor an archive, whose name ends in .parquet")
        if (folder.parent / "results.json").is_file():
            raise UserError(f"{folder} is not a results folder, but a part of one: name {folder.parent}")
        what = "is not a results folder (it has no results.json)" if folder.exists() else "does not exist"
        near = nearest_folder(folder) if not folder.exists() else "; name one" if any(folder.iterdir()) else ""
        remedy = near or f"; `dfkd run STUDY.yaml --results {shlex.quote(str(folder))}` creates one"
        raise UserError(f"{folder} {what}{remedy}")
    check_schema(read_json(marker), marker)
    if create:
        with writing(folder):
            (folder / "trials").mkdir(exist_ok=True)
            probe = folder / f".probe.{os.getpid()}.tmp"
            write_file(probe, "")
            probe.unlink()
    return folder


def write_trial(results: Path, record: Record, curve: list[dict[str, Any]], files: Mapping[str, Path]) -> Path:
    """Write a finished trial, whole or not at all, and return its folder.

    A trial that had finished with status ok is kept as it is; an earlier failure is replaced.

    Args:
        results: a folder that ``open_folder`` has checked.
        record: what ``record.json`` will hold.
        curve: one mapping per evaluation, see ``CurvePoint``; numbers that are not finite become null.
        files: name in the trial's folder -> file to copy there. The sources stay, so a failed write can be repeated.

    Raises:
        UserError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    trials = results / "trials"
    # Beside the trials, so that what is left of a write is found without a look at all of them.
    target, temporary = trials / record.id, trials / UNFINISHED / f"{record.id}.{os.getpid()}.tmp"
    if _is_ok(target):
        return target
    if clash := {"record.json", "curve.jsonl"} & set(files):
        raise ValueError(f"{sorted(clash)}: write_trial writes these itself")
    if missing := [str(source) for source in files.values() if not source.is_file()]:
        raise FileNotFoundError(", ".join(missing))
    points = [CurvePoint.model_validate(writable(point)).model_dump(mode="json") for point in curve]
    with writing(results):
        try:
            trials.mkdir(exist_ok=True)
            _sweep(temporary.parent, record.id)
            _make(temporary)
            for name, source in files.items():
                shutil.copyfile(source, temporary / name)
                sync(temporary / name)
            write_file(temporary / "curve.jsonl", curve_lines(points))
            held = sorted({*files, "curve.jsonl"} - set(UNSEALED))
            sums = {name: sha256_of(temporary / name) for name in held}
            write_file(temporary / "record.json", as_json(sealed(record, sums)))
            sync(temporary)
            _put_in_place(temporary, target)
            sync(trials)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            with suppress(OSError):  # not empty: others are writing
                temporary.parent.rmdir()
    return target


def replace_record(folder: Path, record: Record) -> None:
    """Put another record in the place of a finished trial's, whole or not at all; its id must be the same.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old record is still there.
    """
    if load_record(folder).id != record.id:
        raise ValueError(f"{folder} holds another trial than {record.id}")
    part = folder / f".record.{os.getpid()}.tmp"
    with writing(folder):
        try:
            write_file(part, as_json(sealed(record)))
            part.replace(folder / "record.json")
            sync(folder)
        finally:
            part.unlink(missing_ok=True)


def load_record(folder_or_file: Path) -> Record:
    """Read and check one record.

    Raises:
        UserError: there is none, or it is damaged; the message names the file and the key.
    """
    path = _of_trial(folder_or_file, "record.json") if folder_or_file.is_dir() else folder_or_file
    return record_of(read_text(path), f"{path}", "; delete the trial's folder to run it again")


def load_finished(folder: Path) -> Record:
    """The record of a finished trial's folder, as the suite leaves it: with a curve, and the trial's id for a name.

    Raises:
        UserError: as ``load_record``, or the folder has no curve, another name, or a symbolic link in it.
    """
    record = load_record(folder)
    _of_trial(folder, "curve.jsonl")
    refuse_links(folder)
    if record.id != folder.name:
        raise UserError(
            f"{folder} holds the trial {record.id}, and a trial's folder is named after its id; rename it, or "
            "delete it if that folder already exists"
        )
    return record


def record_of(text: str, where: str, remedy: str = "") -> Record:
    """A record from the text of a ``record.json``, checked; ``where`` is named in the complaint."""
    value = parse(text, where)
    record = parse_record(value, where, remedy)
    check_sums(value, where)
    return record


def parse_record(value: Mapping[str, Any], where: str, remedy: str = "") -> Record:
    """A record from plain values, checked; ``where`` is named in the complaint."""
    check_schema(value, where)
    try:
        return Record.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {_said(error)}{remedy}") from None


def read_curve(folder: Path, files: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The lines of a trial's ``curve.jsonl``, in order, checked; a UserError where there is none.

    ``files``: those of its record, where that is known already.
    """
    path = _of_trial(folder, "curve.jsonl")
    content = read_bytes(path)
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 text: {error.reason}") from None
    points = [
        parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line or number < len(lines)
    ]
    check_points(points, path)
    check_beside(folder, "curve.jsonl", content, files)
    return points


def check_points(points: Sequence[Mapping[str, Any]], where: object) -> None:
    """Raise UserError unless the points of a curve, as plain values, are such; ``where`` is named in the complaint."""
    for number, point in enumerate(points, start=1):
        try:
            CurvePoint.model_validate(point)
        except ValidationError as error:
            raise UserError(f"{where}, line {number}: {_said(error)}") from None


def check_beside(folder: Path, name: str, content: bytes | str, files: Mapping[str, str] | None = None) -> None:
    """Raise UserError if a file of a trial's folder is not the one that was written with the record.

    Args:
        folder: of a finished trial.
        name: of the file.
        content: what is in it, or its hash.
        files: those of its record, where that is known already.
    """
    held = load_record(folder).files if files is None else files
    check_file(held, name, content, f"{folder / name}")


def _said(error: ValidationError) -> str:
    """The key of the first mistake, and what is wrong with it."""
    first = error.errors()[0]
    key = shown(".".join(str(part) for part in first["loc"]))
    return (f"{key[:200]}: " if key else "") + shown(first["msg"])


def _of_trial(folder: Path, name: str) -> Path:
    if folder.is_symlink():
        refuse_link(folder)
    if not folder.is_dir():
        raise UserError(f"there is no {folder}")
    if not is_there(folder / name):
        raise UserError(f"{folder} is not a complete trial: it has no {name}; delete the folder to run the trial again")
    return folder / name


def is_archive(path: Path) -> bool:
    """Whether a path names an archive; ``bench.records.reading.open_results`` looks inside."""
    return path.suffix == ".parquet" and not path.is_dir()


def place_of(results: Path) -> Path:
    """Where the records of ``results`` are: the archive of a folder that has one instead of trials, else itself."""
    published = results / ARCHIVE
    return published if published.is_file() and not (results / "results.json").exists() else results


def refuse_archive(results: Path) -> None:
    """Raise UserError where somebody is about to write into an archive, or beside it as if its trials lay there."""
    if is_archive(place_of(results)):
        place = place_of(results)
        raise UserError(
            f"{place} is an archive, which is only read; choose another folder, or unpack it into one and use that: "
            f"`dfkd merge {shlex.quote(str(place))} --out FOLDER`"
        )


def trial_folders(results: Path) -> list[Path]:
    """The folders of all finished trials, in the order of their ids."""
    return [results / "trials" / name for name in trial_names(results)]


def trial_names(results: Path) -> list[str]:
    """The ids of all finished trials of a results folder, in order."""
    trials = results / "trials"
    if trials.is_symlink():
        refuse_link(trials)
    if not trials.is_dir():
        return []
    names = []
    with os.scandir(trials) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                refuse_link(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                if not is_id(entry.name):
                    raise UserError(
                        f"{shown(entry.path)}: a trial's folder is named after its id, which has 16 hex digits; rename "
                        "it, or move it elsewhere"
                    )
                names.append(entry.name)
    return sorted(names)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a UserError that names the file."""
    return parse(read_text(path), str(path))


def check_schema(value: Mapping[str, Any], path: Path | str) -> None:
    """Refuse what a newer version of the suite wrote."""
    found = value.get("schema")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise UserError(f"{path}: 'schema' must be a version number, not {found!r}")
    if found > SCHEMA:
        raise UserError(f"{path} has schema {found}, this version of dfkd reads up to {SCHEMA}; update dfkd to read it")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system says while ``folder`` is being written into a sentence that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(f"the disk of {folder} is full; free some space and run the same command again") from error
        reason = error.strerror or str(error)
        raise UserError(f"cannot write to {folder}: {reason} ({error.filename}); choose another folder") from error


def _make(temporary: Path) -> None:
    """Make the folder, and the one that it lies in, which another process may remove just then."""
    while True:
        temporary.parent.mkdir(exist_ok=True)
        try:
            return temporary.mkdir()
        except FileNotFoundError:
            continue


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename ``temporary`` to ``target``, which may hold a failure, or be put there by another process meanwhile."""
    replaced = temporary.with_suffix(".old")
    if target.exists():
        target.replace(replaced)
    try:
        if _is_ok(replaced):  # it finished since write_trial looked
            replaced.replace(target)
        else:
            temporary.rename(target)
    except OSError as error:
        if error.errno in OCCUPIED and _is_ok(target):
            return
        if replaced.exists() and not target.exists():
            replaced.replace(target)
        raise
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


def _sweep(unfinished: Path, name: str) -> None:
    """Remove what processes that were killed in the middle of writing this trial left behind."""
    for leftover in unfinished.glob(f"{name}.*"):
        owner = leftover.name.split(".")[1]
        if owner.isdecimal() and (int(owner) == os.getpid() or not psutil.pid_exists(int(owner))):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_ok(folder: Path) -> bool:
    try:
        return read_json(folder / "record.json").get("status") == "ok"
    except UserError:
        return False


def _make_marker(marker: Path) -> None:
    if any(not entry.name.startswith(".") for entry in marker.parent.iterdir()):
        raise UserError(f"{marker.parent} contains other files and is not a results folder; choose a new or empty one")
    temporary = marker.with_name(f".results.{os.getpid()}.tmp")
    try:
        write_file(temporary, json.dumps({"schema": SCHEMA}) + "\n")
        temporary.replace(marker)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, text: str) -> None:
    """Write a text file and bring it to the disk."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Make sure that a file, or a folder's list of names, is on the disk before what relies on it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
