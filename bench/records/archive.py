"""Archives: a whole results folder in one Parquet file, one row per trial.

It holds every record and curve, word for word, and some contact sheets; not the students, images and logs, of which it
only knows names and sizes, and of the student its hash. The study, a user's own tasks and what else is beside the
trials are in the file's metadata. Rows are in the order of their tasks: who asks for the trials of one task, as a
report does for each, reads a small part of the file. The same records give the same bytes.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench.errors import UserError, nearest_file
from bench.records.checking import check_rows, points_of, reading
from bench.records.columns import defaults, structure
from bench.records.folder import (
    check_beside,
    check_schema,
    is_archive,
    open_folder,
    read_json,
    trial_folders,
    writing,
)
from bench.records.foreign import brief, is_there, parse, read_text, refuse_link, sha256_of
from bench.records.pack import DERIVED, DIGEST, connect, file_facts, pack_files, parquet, text, write_parquet
from bench.records.schema import SCHEMA, CurvePoint, Record, as_json, sealed
from bench.records.sheets import NAMES, Sheets, sheet_of, small_sheet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Of a results folder, these go into the metadata. A submission holds its methods' code beside them.
BESIDE = ("study.yaml", "tasks.json", "tracked.json", "speed/*.json", "submission.json", "methods/**/*.py")
BESIDE_NAMES = re.compile(
    r"study\.yaml|tasks\.json|tracked\.json|submission\.json|speed/[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json"
    r"|methods(/[A-Za-z0-9_][A-Za-z0-9_-]{0,99}){1,8}\.py"
)
BITS = "bits.json"  # of a trial: the hash of the student's weights, where it stands in their place
STUDENT = "student.safetensors"
HELD = {"record.json", "curve.jsonl", BITS, *NAMES}
ROWS = 2_048  # of a row group: contact sheets make rows large
LEVEL = 12  # of zstd: a tenth smaller than by default; higher levels take much longer for the next percent


def write_archive(
    results: Path,
    file: Path,
    sheets: Sheets = "best",
    ids: Iterable[str] | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Pack a results folder, or another archive, into a new file, whole or not at all; return the number of trials.

    Args:
        results: a results folder or an archive.
        file: the archive to write.
        sheets: which contact sheets it holds, see ``SHEETS``.
        ids: the trials to pack; None: all.
        more: the contents of further files beside the trials, by name.

    Raises:
        UserError: the file exists or does not end in ``.parquet``, a record is damaged, or the file cannot be written.
    """
    check_new(file, archive=True)
    with connect() as con:
        rows_of(con, results, "rows_of_all")
        rows = "SELECT * FROM rows_of_all"
        if ids is not None:
            con.execute("CREATE TEMP TABLE wanted AS SELECT unnest($ids::VARCHAR[]) AS id", {"ids": list(ids)})
            rows += " SEMI JOIN wanted USING (id)"
        store(con, rows, file, {**files_beside(results), **more}, sheets)
        found = con.execute(f"SELECT count(*) FROM ({rows})").fetchone()
    assert found is not None
    return int(found[0])


def replace_in_archive(file: Path, records: Sequence[Record]) -> None:
    """Write an archive again with other records of trials that are in it, whole or not at all; the rest stays.

    Raises:
        UserError: it is damaged, or cannot be written.
    """
    texts = [as_json(sealed(record)) for record in records]
    with connect() as con:
        rows_of(con, file, "rows_of_all")
        con.execute(
            "CREATE TEMP TABLE other AS SELECT unnest($ids::VARCHAR[]) AS id, unnest($texts::VARCHAR[]) AS record",
            {"ids": [record.id for record in records], "texts": texts},
        )
        beside = "sheet, left_out, student, sheet_file, sheet_size, sheet_name"
        con.execute(
            f"""CREATE TEMP VIEW replaced AS
                WITH nested AS (
                    SELECT {beside}, curve, other.record AS record,
                           json_transform(other.record, '{structure(Record)}') AS r
                    FROM rows_of_all JOIN other USING (id))
                SELECT {DERIVED}, curve, record, {DIGEST} AS digest, {beside} FROM nested
                UNION ALL BY NAME SELECT * FROM rows_of_all WHERE id NOT IN (SELECT id FROM other)"""
        )
        store(con, "SELECT * FROM replaced", file, files_beside(file), "all")


def rows_of(con: DuckDBPyConnection, results: Path, view: str) -> None:
    """Make a view of a results folder or an archive, one row per trial, to be stored or joined with others.

    ``sheet`` is the contact sheet or null, ``sheet_file`` where it can be read instead, ``sheet_name`` and
    ``sheet_size`` what it is; ``student`` is the hash of the student's weights or null.

    Raises:
        UserError: a record is damaged.
    """
    if is_archive(results):
        check_archive(results)
        check_rows(results)
        student = "" if "student" in _columns(con, results) else "NULL::VARCHAR AS student,"  # of an earlier version
        png, webp = map(text, NAMES)
        con.execute(
            f"""CREATE TEMP VIEW {view} AS
                SELECT * REPLACE ({DIGEST} AS digest), {student} NULL::VARCHAR AS sheet_file,
                       octet_length(sheet) AS sheet_size,
                       CASE WHEN hex(sheet[1:4]) = '52494646' THEN {webp}
                            WHEN sheet IS NOT NULL THEN {png} END AS sheet_name
                FROM {parquet(results)}"""
        )
        return
    folders = trial_folders(open_folder(results))
    pack_files(con, results, [folder.name for folder in folders], f"{view}_packed")
    facts = [_facts(folder) for folder in folders]
    con.execute(
        f"""CREATE TEMP TABLE {view}_files AS
            SELECT id, NULL::BLOB AS sheet,
                   json_transform(listed, '[{{"name": "VARCHAR", "size": "BIGINT"}}]') AS left_out, student,
                   sheet_file, sheet_name, sheet_size::BIGINT AS sheet_size
            FROM (SELECT unnest($ids) AS id, unnest($listed) AS listed, unnest($student::VARCHAR[]) AS student,
                         unnest($file::VARCHAR[]) AS sheet_file, unnest($name::VARCHAR[]) AS sheet_name,
                         unnest($size::BIGINT[]) AS sheet_size)""",
        {"ids": [folder.name for folder in folders]}
        | {key: [fact[key] for fact in facts] for key in ("listed", "student", "file", "name", "size")},
    )
    con.execute(f"CREATE TEMP VIEW {view} AS SELECT * FROM {view}_packed JOIN {view}_files USING (id)")


def store(con: DuckDBPyConnection, rows: str, file: Path, beside: Mapping[str, str], sheets: Sheets = "best") -> None:
    """Write packed rows as an archive.

    Args:
        con: where ``rows_of`` has made the views that ``rows`` reads.
        rows: a SELECT.
        file: the archive to write.
        beside: the contents of the folder's other files, by name.
        sheets: which contact sheets it holds, see ``SHEETS``.
    """
    con.execute(f"CREATE TEMP VIEW stored AS {rows}")
    _keep_sheets(con, sheets)
    # A sheet of which only a small copy is held, or none, is one of the files that are left out.
    left_out = """CASE WHEN sheet_name IS NULL OR kept_whole THEN left_out
                       ELSE list_sort(list_append(left_out, {'name': sheet_name, 'size': sheet_size}))
                  END AS left_out"""
    con.execute("SET threads = 1")  # several would cut the file into parts by chance
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(
            con,
            f"""SELECT stored.* EXCLUDE (sheet, sheet_file, sheet_name, sheet_size, left_out),
                       kept.sheet AS sheet, {left_out}
                FROM stored LEFT JOIN kept USING (id) ORDER BY task, id""",
            file,
            {"dfkd": json.dumps({"schema": SCHEMA, "files": dict(sorted(beside.items()))})},
            ROWS,
            LEVEL,
        )


def _keep_sheets(con: DuckDBPyConnection, sheets: Sheets) -> None:
    """Make the table ``kept`` of the sheets that an archive is to hold: id, sheet and whether that is all of it."""
    con.execute("CREATE TEMP TABLE kept (id VARCHAR, sheet BLOB, kept_whole BOOLEAN)")
    if sheets == "all":
        con.execute("INSERT INTO kept SELECT id, sheet, true FROM stored WHERE sheet IS NOT NULL")
        places = [
            place for (place,) in con.execute("SELECT sheet_file FROM stored WHERE sheet_file IS NOT NULL").fetchall()
        ]
        if places:
            con.execute(
                "INSERT INTO kept SELECT id, content, true "
                "FROM read_blob($places) JOIN stored ON filename = sheet_file",
                {"places": places},
            )
    if sheets != "best":
        return
    # Of each task and method: the cell with the best mean, of that the lowest seed. The scores are sorted first, since
    # the last bit of a sum depends on the order.
    cell = "task, method, method_sha, options::VARCHAR, budget, teacher, teacher_sha"
    chosen = con.execute(f"""
        WITH known AS (SELECT *, md5(concat_ws(chr(10), {cell})) AS cell FROM stored),
             means AS (SELECT cell, list_avg(list_sort(list(score))) AS mean FROM known GROUP BY cell)
        SELECT id, sheet_file FROM known JOIN means USING (cell) WHERE sheet_name IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY task, method ORDER BY mean DESC NULLS LAST, seed, id) = 1
        ORDER BY id""").fetchall()
    for name, place in chosen:
        whole = _one_sheet(con, name) if place is None else Path(place).read_bytes()
        small = small_sheet(whole)
        con.execute(
            "INSERT INTO kept VALUES ($id, $sheet, $whole)", {"id": name, "sheet": small, "whole": small == whole}
        )


def _one_sheet(con: DuckDBPyConnection, name: str) -> bytes:
    row = con.execute("SELECT sheet FROM stored WHERE id = $id", {"id": name}).fetchone()
    assert row is not None
    return bytes(row[0])


def _facts(folder: Path) -> dict[str, Any]:
    """What a trial's folder holds beside its record and curve."""
    sheet = sheet_of(folder)
    files = [file for file in sorted(folder.iterdir()) if file.name not in HELD]
    return {
        "listed": json.dumps([{"name": file.name, "size": file.stat().st_size} for file in files]),
        "student": student_hash(folder),
        "file": str(sheet) if sheet else None,
        "name": sheet.name if sheet else None,
        "size": sheet.stat().st_size if sheet else None,
    }


def student_hash(trial: Path) -> str | None:
    """The hash of the weights of a trial's student, if the folder holds them or their hash."""
    if is_there(trial / BITS):
        found = read_json(trial / BITS).get("student")
        if not isinstance(found, str) or not re.fullmatch("[0-9A-Za-z-]{1,64}", found):
            raise UserError(f"{trial / BITS}: {brief(found)} is not the hash of a student")
    elif is_there(trial / STUDENT):
        found = sha256_of(trial / STUDENT)
    else:
        return None
    check_beside(trial, STUDENT, found)
    return found


def files_beside(results: Path) -> dict[str, str]:
    """The contents of the files beside the trials of a results folder or an archive, by name."""
    if is_archive(results):
        return check_archive(results)
    for name in ("speed", "methods"):
        if (results / name).is_symlink():
            refuse_link(results / name)
    found = {file.relative_to(results).as_posix(): file for pattern in BESIDE for file in results.glob(pattern)}
    for name, file in found.items():
        if not BESIDE_NAMES.fullmatch(name):
            raise UserError(f"{results} holds {brief(str(file))}, which is no name of a file beside trials; rename it")
    return {name: read_text(file) for name, file in sorted(found.items())}


def check_archive(file: Path) -> dict[str, str]:
    """The contents of the files that lay beside the trials (study, own tasks, label and benchmarks of a commit).

    Raises:
        UserError: it does not exist, is no archive of records, or is of a newer schema.
    """
    if not file.is_file():
        near = nearest_file(str(file), ".parquet")
        raise UserError(
            f"{file} does not exist{near or f'; `dfkd archive RESULTS {shlex.quote(str(file))}` creates one'}"
        )
    with connect() as con:
        facts = file_facts(con, file).get("dfkd")
    if not isinstance(facts, str):
        raise UserError(f"{file} is not an archive of `dfkd archive`")
    value = parse(facts, f"the metadata of {file}")
    check_schema(value, file)
    files = value.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(content, str) for content in files.values()):
        raise UserError(f"the metadata of {file}: 'files' must be texts by name")
    for name in files:
        if not BESIDE_NAMES.fullmatch(name):
            raise UserError(f"the metadata of {file} names {brief(name)}, and no such file belongs to an archive")
    return files


def holds_records(file: Path) -> bool:
    """Whether a file is an archive of ``dfkd archive``."""
    with connect() as con:
        return file.is_file() and "dfkd" in file_facts(con, file)


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
    return {name: points_of(curve) for name, curve in _rows(file, "id, curve", ids)}


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
    """The contact sheets, PNGs or WebPs, of those trials whose sheet the archive holds, by id."""
    return {name: bytes(sheet) for name, sheet in _rows(file, "id, sheet", ids) if sheet is not None}


def archive_students(file: Path) -> dict[str, str]:
    """The hash of each student's weights, by the trial's id, where it is known."""
    with reading(file), connect() as con:
        if "student" not in _columns(con, file):  # an archive of an earlier version
            return {}
    return {name: student for name, student in _rows(file, "id, student", None) if student is not None}


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


def _columns(con: DuckDBPyConnection, file: Path) -> set[str]:
    return {row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {parquet(file)}").fetchall()}


def _rows(file: Path, columns: str, ids: Iterable[str] | None) -> list[tuple[Any, ...]]:
    archive = parquet(file)
    check_rows(file)
    with reading(file), connect() as con:
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
