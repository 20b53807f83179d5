"""Record files and curves packed into one table, one row per trial: what queries read, and what an archive contains."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.records.columns import TRIALS, broken, structure
from bench.records.folder import load_finished, read_curve, trial_names
from bench.records.schema import CurvePoint, ImageMetric, Record
from bench.utils.paths import cache_folder
from bench.utils.text import shown

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# What tells whether two copies of a trial say the same. That of an archive is not believed, but made again.
DIGEST = "md5(concat_ws(chr(10), record, coalesce(curve, [])::JSON::VARCHAR))"
FEW = 500  # trials that are packed in memory each time: quicker than looking whether a stored table is still right
_TRIAL = "string_split(replace(filename, chr(92), '/'), '/')[-2]"
_IMAGE = ", ".join(f"'{name}': e.value.\"{name}\"" for name in ImageMetric.model_fields)
_TEST = ", ".join(f"'{name}': {'e.value' if name == 'value' else 'NULL'}" for name in ImageMetric.model_fields)
# The columns that are made of a record ``r``, one nested value.
DERIVED = f"""{", ".join(f'{sql} AS "{name}"' for name, sql in TRIALS.items())},
       r.meter AS meter,
       list_concat(
           list_transform(map_entries(r.image_metrics), lambda e: {{'kind': 'image', 'name': e.key, {_IMAGE}}}),
           list_transform(map_entries(r.test_metrics), lambda e: {{'kind': 'test', 'name': e.key, {_TEST}}})
       ) AS metrics"""
_PACK = f"""
CREATE OR REPLACE TEMP TABLE fresh AS
WITH records AS (SELECT {_TRIAL} AS folder, content FROM read_text($records)),
     curves AS (SELECT {_TRIAL} AS folder, rtrim(content, chr(10)) AS content FROM read_text($curves)),
     nested AS (
        SELECT folder, records.content AS record, curves.content AS curve,
               json_transform(records.content, '{structure(Record)}') AS r,
               json_transform('[' || replace(curves.content, chr(10), ',') || ']',
                              '[{structure(CurvePoint)}]') AS points
        FROM records LEFT JOIN curves USING (folder))
SELECT * EXCLUDE (broken), {DIGEST} AS digest, broken
FROM (SELECT {DERIVED},
             coalesce(points, []) AS curve,
             record,
             {broken()} OR nested.curve IS NULL OR nested.folder <> r.id AS broken
      FROM nested)
"""
CHECKS = 1  # version of what is checked before records are packed
FORMAT = hashlib.sha256(f"{CHECKS} {_PACK}".encode()).hexdigest()[:16]  # a stored table in another format is rebuilt


def connect() -> DuckDBPyConnection:
    """DuckDB in memory, which downloads nothing and draws no bar while it works."""
    import duckdb

    con = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    con.execute("SET enable_progress_bar = false")
    return con


def pack_files(con: DuckDBPyConnection, results: Path, ids: Sequence[str], table: str) -> None:
    """Make ``table`` of the record files of a results folder: one row per trial, in the order of the ids.

    Raises:
        UserError: a record is damaged or of a newer schema, a curve is missing or damaged, or a trial's folder has not
            its id for a name; the message names the file.
    """
    trials = [results / "trials" / name for name in ids]
    for trial in trials:
        read_curve(trial, load_finished(trial).files)
    records = [str(trial / "record.json") for trial in trials]
    curves = [str(trial / "curve.jsonl") for trial in trials]
    import duckdb

    try:
        if not trials:
            con.execute(_PACK.replace("read_text($records)", _NONE).replace("read_text($curves)", _NONE))
        else:
            con.execute(_PACK, {"records": records, "curves": curves})
        good = con.execute("SELECT count(*) FROM fresh WHERE NOT coalesce(broken, true)").fetchone()
        damaged = good is None or good[0] < len(trials)  # a missing file is skipped silently
    except duckdb.Error as error:
        raise UserError(f"{results} cannot be read: {shown(str(error))}") from None
    if damaged:
        raise UserError(f"{results} contains records that do not match the schema")
    con.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT * EXCLUDE (broken) FROM fresh ORDER BY id")
    con.execute("DROP TABLE fresh")


_NONE = "(SELECT '' AS filename, '' AS content WHERE false)"


def packed(con: DuckDBPyConnection, results: Path, table: str) -> str:
    """SQL for the packed records of a results folder: of ``table``, or of a file in the cache that is kept up to date.

    With ``FEW`` trials or more the packed table is stored; only trials whose files changed since are read again.
    """
    state = _state(results)
    if len(state) < FEW:
        pack_files(con, results, list(state), table)
        return table
    stored = cache_folder() / "tables" / f"{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:16]}.parquet"
    whole = hashlib.sha256(json.dumps([FORMAT, list(state.items())]).encode()).hexdigest()
    facts = file_facts(con, stored) if stored.is_file() else {}
    if facts.get("state") == whole:
        return parquet(stored)
    _pack_changed(con, results, state, stored if facts.get("format") == FORMAT else None, table)
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(con, f"SELECT * FROM {table}", stored, {"state": whole, "format": FORMAT})
    except OSError:
        return table  # no place for a cache: slower next time, and nothing else
    con.execute(f"DROP TABLE {table}")
    return parquet(stored)


def write_parquet(
    con: DuckDBPyConnection, select: str, file: Path, facts: Mapping[str, str], group: int = 122_880, level: int = 3
) -> None:
    """Write a query's rows, whole or not at all, with ``facts`` in the file's metadata.

    ``group``: rows that are compressed together; ``level``: of zstd, 1 to 22.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    import duckdb

    part = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    entries = ", ".join(f"{name}: {text(value)}" for name, value in facts.items())
    options = f"FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {level}, ROW_GROUP_SIZE {group}"
    try:
        con.execute(f"COPY ({select}) TO {text(part)} ({options}, KV_METADATA {{{entries}}})")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    except duckdb.IOException as error:
        raise OSError(f"{file} cannot be written: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def file_facts(con: DuckDBPyConnection, file: Path) -> dict[str, str]:
    """The metadata of a Parquet file; empty for what is none."""
    import duckdb

    try:
        rows = con.execute(f"SELECT decode(key), decode(value) FROM parquet_kv_metadata({text(file)})").fetchall()
    except duckdb.Error:
        return {}
    return dict(rows)


def parquet(file: Path) -> str:
    """The rows of a Parquet file in SQL; a folder named ``a=b`` above it adds no column ``a``."""
    return f"read_parquet({text(file)}, hive_partitioning = false)"


def text(value: object) -> str:
    """A string in SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def _pack_changed(
    con: DuckDBPyConnection, results: Path, state: Mapping[str, Any], stored: Path | None, table: str
) -> None:
    known: dict[str, str] = {}
    if stored is not None:
        known = dict(con.execute(f"SELECT id, state FROM {parquet(stored)}").fetchall())
    changed = [name for name, marks in state.items() if known.get(name) != marks]
    pack_files(con, results, changed, "changed")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE states AS SELECT unnest($ids) AS id, unnest($marks) AS state",
        {"ids": list(state), "marks": list(state.values())},
    )
    parts = "SELECT * FROM changed JOIN states USING (id)"
    if stored is not None:
        kept = f"SELECT p.* FROM {parquet(stored)} p JOIN states USING (id, state)"
        parts = f"{parts} UNION ALL BY NAME {kept}"
    con.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT * FROM ({parts}) ORDER BY id")
    con.execute("DROP TABLE changed; DROP TABLE states")


def _state(results: Path) -> dict[str, str]:
    """Time and size of every trial's record and curve, by id: what tells whether a trial has changed."""
    trials = f"{results / 'trials'}/"
    return {
        name: f"{_marks(f'{trials}{name}/record.json')} {_marks(f'{trials}{name}/curve.jsonl')}"
        for name in trial_names(results)
    }


def _marks(file: str) -> str:
    try:
        found = os.lstat(file)
    except FileNotFoundError:
        return "-"
    return f"{found.st_mtime_ns}.{found.st_size}"
