"""Archives: a whole results folder in one Parquet file, one row per trial.

It holds every record, its curve and its contact sheet; not the students, images and logs, of which it only knows names
and sizes. The study and a user's own tasks are in the file's metadata. Rows are in the order of their tasks: who asks
for the trials of one task, as a report does for each, reads a small part of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.records.columns import defaults
from bench.records.folder import check_schema, is_archive, open_folder, parse, trial_folders, writing
from bench.records.pack import connect, file_facts, pack_files, text, write_parquet
from bench.records.schema import SCHEMA, CurvePoint

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BESIDE = ("study.yaml", "tasks.json")  # files of a results folder that go into the metadata
SHEET = "images.png"
HELD = {"record.json", "curve.jsonl", SHEET}
ROWS = 2_048  # of a row group: contact sheets make rows large


def write_archive(results: Path, file: Path) -> int:
    """Pack a results folder into a new file, whole or not at all, and return the number of its trials.

    Raises:
        UserError: the file exists or does not end in ``.parquet``, a record is damaged, or the file cannot be written.
    """
    check_new(file, archive=True)
    if is_archive(results):
        raise UserError(f"{results} is already an archive")
    folders = trial_folders(open_folder(results))
    with connect() as con:
        pack_files(con, results, [folder.name for folder in folders], "packed")
        add_files(con, folders, "files_of")
        store(
            con,
            "SELECT * FROM packed JOIN files_of USING (id)",
            file,
            {name: (results / name).read_text("utf-8") for name in BESIDE if (results / name).is_file()},
        )
    return len(folders)


def store(con: DuckDBPyConnection, rows: str, file: Path, beside: Mapping[str, str]) -> None:
    """Write packed rows as an archive; ``beside`` holds the contents of the folder's other files, by name."""
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(
            con,
            f"{rows} ORDER BY task, id",
            file,
            {"dfkd": json.dumps({"schema": SCHEMA, "files": dict(beside)})},
            ROWS,
        )


def add_files(con: DuckDBPyConnection, folders: Sequence[Path], table: str) -> None:
    """Make a table of each trial's contact sheet, and of the names and sizes of the files that are left out."""
    sheets = [str(folder / SHEET) for folder in folders if (folder / SHEET).is_file()]
    left_out = [
        json.dumps([{"name": f.name, "size": f.stat().st_size} for f in sorted(folder.iterdir()) if f.name not in HELD])
        for folder in folders
    ]
    read = (
        "SELECT string_split(replace(filename, chr(92), '/'), '/')[-2] AS id, content AS sheet FROM read_blob($sheets)"
    )
    if not sheets:
        read = "SELECT '' AS id, ''::BLOB AS sheet WHERE false"
    con.execute(
        f"""CREATE TEMP TABLE {table} AS
            SELECT id, sheet, json_transform(listed, '[{{"name": "VARCHAR", "size": "BIGINT"}}]') AS left_out
            FROM (SELECT unnest($ids) AS id, unnest($listed) AS listed) LEFT JOIN ({read}) USING (id)""",
        {"ids": [folder.name for folder in folders], "listed": left_out} | ({"sheets": sheets} if sheets else {}),
    )


def check_archive(file: Path) -> dict[str, str]:
    """The contents of the files that lay beside the trials (study, own tasks), by name.

    Raises:
        UserError: it does not exist, is no archive of records, or is of a newer schema.
    """
    if not file.is_file():
        raise UserError(f"{file} does not exist; `dfkd archive RESULTS {file}` creates one")
    with connect() as con:
        facts = file_facts(con, file).get("dfkd")
    if facts is None:
        raise UserError(f"{file} is not an archive of `dfkd archive`")
    value = parse(facts, f"the metadata of {file}")
    check_schema(value, file)
    return dict(value.get("files", {}))


def archive_ids(file: Path) -> list[str]:
    """The ids of an archive's trials, in order."""
    return [row[0] for row in _rows(file, "id", None)]


def archive_outline(file: Path) -> list[tuple[str, str, str, str]]:
    """Id, task, method and status of an archive's trials, in the order of the ids."""
    return [
        (name, task, method, status) for name, task, method, status in _rows(file, "id, task, method, status", None)
    ]


def archive_texts(file: Path, ids: Iterable[str] | None = None) -> list[tuple[str, str]]:
    """The id and the record.json of an archive's trials, or of ``ids``, in the order of the ids."""
    return [(name, record) for name, record in _rows(file, "id, record", ids)]


def archive_curves(file: Path, ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Curves by trial, as ``read_curve`` reads them."""
    absent = defaults(CurvePoint)
    return {
        name: [{key: absent.get(key) if value is None else value for key, value in point.items()} for point in curve]
        for name, curve in _rows(file, "id, curve", ids)
    }


def archive_columns(file: Path, ids: Iterable[str], names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Curves by trial, as ``read_columns`` has them."""
    absent = {name: value for name, value in defaults(CurvePoint).items() if name in names}
    columns = ", ".join(f'list_transform(curve, lambda p: p."{name}")' for name in names)
    found = {}
    for trial, *values in _rows(file, f"id, {columns}", ids):
        curve = dict(zip(names, values, strict=True))
        for name, value in absent.items():
            if value is not None and None in curve[name]:
                curve[name] = [value if each is None else each for each in curve[name]]
        found[trial] = curve
    return found


def archive_sheets(file: Path, ids: Iterable[str]) -> dict[str, bytes]:
    """The contact sheets, PNGs, of those trials that have one, by id."""
    return {name: bytes(sheet) for name, sheet in _rows(file, "id, sheet", ids) if sheet is not None}


def archive_left_out(file: Path, name: str) -> list[tuple[str, int]]:
    """Name and size of the files of a trial's folder that the archive does not hold."""
    rows = _rows(file, "left_out", [name])
    return [(entry["name"], entry["size"]) for entry in rows[0][0]] if rows else []


def check_new(path: Path, archive: bool) -> None:
    """
    Raises:
        UserError: there is something already, or an archive's name does not end as it must.
    """
    if path.exists():
        raise UserError(f"{path} already exists and is not overwritten; choose another name")
    if archive and path.suffix != ".parquet":
        raise UserError(f"an archive's name must end in .parquet: {path}")


def _rows(file: Path, columns: str, ids: Iterable[str] | None) -> list[tuple[Any, ...]]:
    archive = f"read_parquet({text(file)})"
    with connect() as con:
        if ids is None:
            return con.execute(f"SELECT {columns} FROM {archive} ORDER BY id").fetchall()
        which, names = "id IN (SELECT unnest($ids))", {"ids": list(ids)}
        # Named one by one, the tasks let DuckDB pass over the parts of the file that hold none of them.
        tasks = con.execute(f"SELECT DISTINCT task FROM {archive} WHERE {which}", names).fetchall()
        if not tasks:
            return []
        here = ", ".join(text(task) for (task,) in tasks)
        return con.execute(
            f"SELECT {columns} FROM {archive} WHERE task IN ({here}) AND {which} ORDER BY id", names
        ).fetchall()
