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
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from bench.errors import UserError
from bench.records.schema import SCHEMA, CurvePoint, Record, as_json, without_nan

FULL = {errno.ENOSPC, errno.EDQUOT}
ARCHIVE = "records.parquet"  # a folder that has this in place of trials is read as this
OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST}


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
        what = "is not a results folder (it has no results.json)" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}; `dfkd run STUDY.yaml --results {folder}` creates one")
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
    target, temporary = trials / record.id, trials / f".{record.id}.{os.getpid()}.tmp"
    if _is_ok(target):
        return target
    if clash := {"record.json", "curve.jsonl"} & set(files):
        raise ValueError(f"{sorted(clash)}: write_trial writes these itself")
    if missing := [str(source) for source in files.values() if not source.is_file()]:
        raise FileNotFoundError(", ".join(missing))
    points = [CurvePoint.model_validate(without_nan(point)).model_dump(mode="json") for point in curve]
    with writing(results):
        try:
            trials.mkdir(exist_ok=True)
            _sweep(trials, record.id)
            temporary.mkdir()
            for name, source in files.items():
                shutil.copyfile(source, temporary / name)
                sync(temporary / name)
            write_file(temporary / "curve.jsonl", "".join(json.dumps(point) + "\n" for point in points))
            write_file(temporary / "record.json", as_json(record))
            sync(temporary)
            _put_in_place(temporary, target)
            sync(trials)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
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
            write_file(part, as_json(record))
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
    return record_of(_read(path), f"{path}", "; delete the trial's folder to run it again")


def load_finished(folder: Path) -> Record:
    """The record of a finished trial's folder, as the suite leaves it: with a curve, and the trial's id for a name.

    Raises:
        UserError: as ``load_record``, or the folder has no curve or another name.
    """
    record = load_record(folder)
    _of_trial(folder, "curve.jsonl")
    if record.id != folder.name:
        raise UserError(
            f"{folder} holds the trial {record.id}, and a trial's folder is named after its id; rename it, or "
            "delete it if that folder already exists"
        )
    return record


def record_of(text: str, where: str, remedy: str = "") -> Record:
    """A record from the text of a ``record.json``, checked; ``where`` is named in the complaint."""
    try:
        return Record.model_validate_json(text)  # in one go, which is quicker
    except ValidationError:
        return parse_record(parse(text, where), where, remedy)  # which says what is wrong


def parse_record(value: Mapping[str, Any], where: str, remedy: str = "") -> Record:
    """A record from plain values, checked; ``where`` is named in the complaint."""
    check_schema(value, where)
    try:
        return Record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{'.'.join(str(part) for part in first['loc'])}: " if first["loc"] else ""
        raise UserError(f"{where}: {key}{first['msg']}{remedy}") from None


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of a trial's ``curve.jsonl``, in order; a UserError where there is none."""
    path = _of_trial(folder, "curve.jsonl")
    lines = _read(path).splitlines()
    return [parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _of_trial(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"there is no {folder}")
    if not (folder / name).is_file():
        raise UserError(f"{folder} is not a complete trial: it has no {name}; delete the folder to run the trial again")
    return folder / name


def is_archive(path: Path) -> bool:
    """Whether a path names an archive; ``bench.records.reading.open_results`` looks inside."""
    return path.suffix == ".parquet" and not path.is_dir()


def place_of(results: Path) -> Path:
    """Where the records of ``results`` are: the archive of a folder that has one in place of trials, else itself."""
    published = results / ARCHIVE
    return published if published.is_file() and not (results / "results.json").exists() else results


def refuse_archive(results: Path) -> None:
    """Raise UserError where somebody is about to write into an archive, or beside it as if its trials lay there."""
    if is_archive(place_of(results)):
        place = place_of(results)
        raise UserError(
            f"{place} is an archive, which is only read; choose another folder, or unpack it into one and use that: "
            f"`dfkd merge {place} --out FOLDER`"
        )


def trial_folders(results: Path) -> list[Path]:
    """The folders of all finished trials, in the order of their ids."""
    return [results / "trials" / name for name in trial_names(results)]


def trial_names(results: Path) -> list[str]:
    """The ids of all finished trials of a results folder, in order."""
    trials = results / "trials"
    if not trials.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(trials) if not entry.name.startswith(".") and entry.is_dir())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a UserError that names the file."""
    return parse(_read(path), str(path))


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


def _sweep(trials: Path, name: str) -> None:
    """Remove what processes that were killed in the middle of writing this trial left behind."""
    for leftover in trials.glob(f".{name}.*"):
        owner = int(leftover.name.split(".")[2])
        if owner == os.getpid() or not psutil.pid_exists(owner):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_ok(folder: Path) -> bool:
    try:
        value = json.loads((folder / "record.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and value.get("status") == "ok"


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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def parse(text: str, where: str) -> dict[str, Any]:
    """A JSON object from text, or a UserError that says where."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} must contain a JSON object")
    return value
