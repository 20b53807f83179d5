"""Whether an archive is what it says: its records are sound, and its columns are those of its records.

A Parquet file may come from anybody, and anything may stand in it. It is read once as a whole before anything in it is
used; after that its columns can be relied on. Of a large archive it is noted in the cache that it was checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.records.columns import defaults, structure
from bench.records.folder import check_points, record_of
from bench.records.foreign import check_file, check_id, curve_lines
from bench.records.pack import CHECKS, DERIVED, FEW, FORMAT, connect, pack_files, parquet, text
from bench.records.schema import CurvePoint, Record
from bench.records.sheets import kind_of
from bench.utils.paths import cache_folder
from bench.utils.text import shown

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# columns that earlier archives lack
LATER = {"identity_rule", "memory_format", "ensemble_score", "different_images", "student"}
OTHERS = {"sheet": "BLOB", "left_out": 'STRUCT("name" VARCHAR, size BIGINT)[]', "student": "VARCHAR"}
SWELL = 1_000  # times as large as the file its content may be
BATCH = 500  # rows in memory at a time
_CHECKED: set[str] = set()


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn what DuckDB says of a damaged archive into a sentence."""
    import duckdb

    try:
        yield
    except (duckdb.Error, UnicodeDecodeError) as error:
        reason = shown(str(error).strip().partition("\n")[0])[:200]
        raise UserError(f"{file} is damaged and cannot be read: {reason}") from None


def check_rows(file: Path) -> None:
    """Check all of an archive, unless that was done before and the file has not changed since.

    Raises:
        UserError: it is damaged, a column is missing, of another type or not what the records say, an id is not the
            hash of its trial or is there twice, or a record or a curve is not what was written.
    """
    mark = _mark(file)
    note = cache_folder() / "checked" / mark
    if mark in _CHECKED or note.is_file():
        return
    with reading(file), connect() as con:
        rows = _check(con, file)
    _CHECKED.add(mark)
    if rows >= FEW:
        with suppress(OSError):  # no place for a cache: slower next time, and nothing else
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()


def points_of(curve: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points of a curve as DuckDB has them, with what an older one lacks."""
    absent = defaults(CurvePoint)
    return [{key: absent.get(key) if value is None else value for key, value in point.items()} for point in curve]


def _mark(file: Path) -> str:
    found = file.stat()
    facts = [CHECKS, FORMAT, str(file.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _check(con: DuckDBPyConnection, file: Path) -> int:
    archive = parquet(file)
    sizes = con.execute(
        f"SELECT coalesce(sum(total_uncompressed_size), 0) FROM parquet_metadata({text(file)})"
    ).fetchone()
    if sizes is not None and sizes[0] > SWELL * max(file.stat().st_size, 2**16):
        raise UserError(f"{file} would unpack to {sizes[0]:,} bytes, and no archive of `dfkd archive` does")
    found = {row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT * FROM {archive}").fetchall()}
    wanted = _types()
    for name, kind in wanted.items():
        if name not in found and name not in LATER:
            raise UserError(f"{file} is not an archive of `dfkd archive`: it has no column {name!r}")
        if name in found and found[name] != kind:
            raise UserError(f"{file} is not an archive of `dfkd archive`: its column {name!r} is of another type")
    if more := sorted(set(found) - set(wanted)):
        raise UserError(f"{file} is not an archive of `dfkd archive`: it has a column {shown(more[0][:60])!r}")
    count = _check_records(con, file, archive, "student" in found)
    _check_columns(con, file, archive, [name for name in _derived() if name in found])
    return count


def _check_records(con: DuckDBPyConnection, file: Path, archive: str, students: bool) -> int:
    """Every record and curve by itself; the number of them."""
    seen: set[str] = set()
    held = con.execute(f"SELECT id, record, curve, {'student' if students else 'NULL'}, sheet, left_out FROM {archive}")
    while rows := held.fetchmany(BATCH):
        for name, record, curve, student, sheet, left_out in rows:
            trial = check_id(name, file)
            where = f"{file}, {trial}"
            if trial in seen:
                raise UserError(f"{where} is there twice")
            seen.add(trial)
            if record is None or None in (curve or [None] * (curve is None)):
                raise UserError(f"{where} has no record, or no curve")
            if any(entry is None or None in entry.values() for entry in left_out or []):
                raise UserError(f"{where}: 'left_out' must be names and sizes")
            known = record_of(record, where)
            if known.id != trial:
                raise UserError(f"{where} holds the record of the trial {known.id}")
            points = points_of(curve)
            check_points(points, f"{where}, curve")
            check_file(known.files, "curve.jsonl", curve_lines(points).encode(), f"{where}, curve")
            if student is not None:
                check_file(known.files, "student.safetensors", student, f"{where}, student")
            if sheet is not None and kind_of(sheet) == "png":  # the whole one; a small one has no checksum
                check_file(known.files, "images.png", bytes(sheet), f"{where}, images.png")
    return len(seen)


def _check_columns(con: DuckDBPyConnection, file: Path, archive: str, names: Sequence[str]) -> None:
    """What can be made of the records is made again, and must be the same."""
    other = " OR ".join(f'here."{name}" IS DISTINCT FROM made."{name}"' for name in names)
    wrong = con.execute(
        f"""WITH made AS (SELECT {DERIVED}
                          FROM (SELECT json_transform(record, '{structure(Record)}') AS r FROM {archive}))
            SELECT here.id FROM {archive} AS here LEFT JOIN made USING (id) WHERE {other} ORDER BY 1 LIMIT 1"""
    ).fetchone()
    if wrong is not None:
        row = con.execute(
            f"""WITH made AS (SELECT {DERIVED}
                              FROM (SELECT json_transform(record, '{structure(Record)}') AS r
                                    FROM {archive} WHERE id = $id))
                SELECT {", ".join(f'here."{name}" IS DISTINCT FROM made."{name}"' for name in names)}
                FROM {archive} AS here LEFT JOIN made USING (id) WHERE here.id = $id""",
            {"id": wrong[0]},
        ).fetchone()
        lies = [name for name, differs in zip(names, row or (), strict=True) if differs]
        raise UserError(f"{file}, {wrong[0]}: the column {lies[0]!r} is not what the record says")


@cache
def _types() -> Mapping[str, str]:
    """The columns of an archive, and their types."""
    with connect() as con:
        pack_files(con, Path(os.devnull), [], "none")
        made = {row[0]: row[1] for row in con.execute("DESCRIBE SELECT * FROM none").fetchall()}
    return made | OTHERS


@cache
def _derived() -> tuple[str, ...]:
    """The columns that follow from the record alone."""
    return tuple(name for name in _types() if name not in {*OTHERS, "curve", "record", "digest"})
