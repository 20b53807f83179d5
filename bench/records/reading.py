"""Records, curves and contact sheets of results folders and archives alike.

``results`` is a results folder, an archive, or a folder with an archive ``records.parquet`` instead of trials.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import UserError, nearest
from bench.records.folder import (
    check_beside,
    is_archive,
    load_finished,
    open_folder,
    place_of,
    read_curve,
    read_json,
    record_of,
    refuse_archive,
    trial_folders,
    trial_names,
)
from bench.records.foreign import check_id, is_there, opened, parse, read_bytes, read_text
from bench.records.schema import CurvePoint, Record
from bench.records.sheets import sheet_of

LOG = "log.txt"
LONGEST = 500  # characters of a log's line that are read
CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]"
)  # colours and cursor moves, and what else is no text
HOME = re.compile(r"/(?:home|Users)/[^/\s\"']+|/root(?=/)")

# What reads archives imports the schema's SQL: it is imported where there is an archive.


def open_results(results: Path, create: bool = False) -> Path:
    """Check that ``results`` holds results that this version reads.

    Args:
        results: as above; what is returned names the archive itself.
        create: make the folder if it is missing or empty, and check that it can be written.

    Raises:
        UserError: it is not a results folder, is of a newer schema, is damaged or cannot be written.
    """
    if create:
        refuse_archive(results)
    results = place_of(results)
    if not is_archive(results):
        return open_folder(results, create)
    from bench.records.archive import check_archive

    check_archive(results)
    return results


def load_records(results: Path, ids: Collection[str] | None = None) -> list[Record]:
    """Every record of a results folder or an archive, or those of ``ids``, checked, in the order of the ids.

    Raises:
        UserError: a record is damaged, the message names the file and the key; or a trial's folder is misnamed.
    """
    results = place_of(results)
    if is_archive(results):
        from bench.records.archive import archive_texts

        return [record_of(text, f"{results}, {name}") for name, text in archive_texts(results, ids)]
    folders = trial_folders(results) if ids is None else [_place(results, name) for name in sorted(ids)]
    return [load_finished(folder) for folder in folders]


def read_plain(results: Path) -> Iterator[dict[str, Any]]:
    """Every record as plain values, checked, in the order of the ids."""
    results = place_of(results)
    if is_archive(results):
        from bench.records.archive import archive_texts

        for name, text in archive_texts(results):
            yield parse(text, f"{results}, {name}")
    else:
        for folder in trial_folders(results):
            load_finished(folder)
            yield read_json(folder / "record.json")


class Outline(NamedTuple):
    """What must be known of a trial before the records are read, to share them out among processes."""

    id: str
    task: str
    method: str
    status: str


def read_outline(results: Path) -> list[Outline]:
    """One line per trial, in the order of the ids.

    Raises:
        UserError: a record is damaged.
    """
    results = place_of(results)
    if is_archive(results):
        from bench.records.archive import archive_outline

        return [Outline(*line) for line in archive_outline(results)]
    return [_outline(folder) for folder in trial_folders(results)]


def _outline(folder: Path) -> Outline:
    record = load_finished(folder)
    return Outline(record.id, record.trial.task, record.trial.method, record.status)


def read_students(results: Path) -> dict[str, str]:
    """The hash of the weights of each trial's student, by the trial's id, where the student or its hash was kept."""
    from bench.records.archive import archive_students, student_hash

    results = place_of(results)
    if is_archive(results):
        return archive_students(results)
    return {folder.name: found for folder in trial_folders(results) if (found := student_hash(folder))}


def trial_ids(results: Path) -> list[str]:
    """The ids of all finished trials, in order."""
    results = place_of(results)
    if is_archive(results):
        from bench.records.archive import archive_ids

        return archive_ids(results)
    return trial_names(results)


def read_curves(results: Path, ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """The evaluations of each trial, by its id, in order; see ``CurvePoint`` for what each holds.

    Raises:
        UserError: a curve is missing or damaged.
    """
    results = place_of(results)
    if is_archive(results):
        from bench.records.archive import archive_curves

        return archive_curves(results, ids)
    return {name: read_curve(_place(results, name)) for name in ids}


def read_columns(results: Path, ids: Iterable[str], names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """The curve of each trial, by its id, as one list for each of ``names`` of ``CurvePoint``, a value an evaluation.

    Much smaller and quicker than an object an evaluation, where there are thousands of trials.

    Raises:
        UserError: a curve is missing or damaged.
    """
    results = place_of(results)
    if is_archive(results):
        from bench.records.archive import archive_columns

        return archive_columns(results, ids, names)
    from bench.records.columns import defaults

    found, absent = {}, defaults(CurvePoint)
    for name in ids:
        curve = read_curve(_place(results, name))
        found[name] = {key: [point.get(key, absent.get(key)) for point in curve] for key in names}
    return found


def read_sheets(results: Path, ids: Iterable[str]) -> dict[str, bytes]:
    """The contact sheets, PNGs or WebPs, of those trials that have one, by id."""
    results = place_of(results)
    if is_archive(results):
        from bench.records.archive import archive_sheets

        return archive_sheets(results, ids)
    found = {}
    for name in ids:
        if (path := sheet_of(_place(results, name))) is not None:
            found[name] = read_bytes(path)
            check_beside(path.parent, path.name, found[name])
    return found


def read_beside(results: Path, name: str) -> str | None:
    """The text of a file beside the trials, such as ``study.yaml`` or ``tasks.json``; None where there is none."""
    results = place_of(results)
    if is_archive(results):
        from bench.records.archive import check_archive

        return check_archive(results).get(name)
    return read_text(results / name) if is_there(results / name) else None


def _place(results: Path, name: str) -> Path:
    """The folder of a trial."""
    return results / "trials" / check_id(name, results)


def locate(results: Iterable[Path], prefix: str) -> tuple[Path, str]:
    """The results that hold the one trial whose id begins with ``prefix``, and its id; of two that do, the first.

    Raises:
        UserError: no trial or several trials begin so.
    """
    places: dict[str, Path] = {}
    for root in results:
        for name in trial_ids(root):
            places.setdefault(name, root)
    found = sorted(name for name in places if name.startswith(prefix))
    if not found:
        raise UserError(f"no trial {prefix!r}{nearest(prefix, places)}")
    if len(found) > 1:
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise UserError(f"{len(found)} trials start with {prefix!r}: {shown}")
    return places[found[0]], found[0]


def log_end(results: Path, name: str, lines: int) -> list[str]:
    """The last lines of a trial's log, without control characters or the names of users' folders.

    Empty where there is no log; archives hold none.
    """
    results = place_of(results)
    path = _place(results, name) / LOG
    if is_archive(results) or not is_there(path):
        return []
    with opened(path) as file:
        file.seek(max(0, path.stat().st_size - lines * LONGEST))
        text = file.read().decode("utf-8", errors="replace")
    plain = HOME.sub("~", CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    return [line[:LONGEST] for line in plain.rstrip().split("\n")[-lines:]]
