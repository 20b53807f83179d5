"""SQL over records: the views ``trials``, ``curves``, ``metrics`` and ``meters`` on results folders and archives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import UserError, nearest
from bench.records.checking import check_rows
from bench.records.columns import BESIDE, METER, METRICS, POINTS, TRIALS, VIEWS
from bench.records.folder import is_archive
from bench.records.pack import DIGEST, connect, packed, parquet, text
from bench.records.reading import open_results
from bench.utils.memory_format import CONTIGUOUS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BESIDE = ", ".join(BESIDE)
_FIRST = {  # what records held before there was a column
    "identity_rule": "1",
    "memory_format": f"'{CONTIGUOUS}'",
    "ensemble_score": "NULL::DOUBLE",
    "different_images": "NULL::BIGINT",
}


class QueryResult(NamedTuple):
    """The rows of a query, with the names of their columns, each of them once."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def objects(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def query(sources: Sequence[Path], sql: str) -> QueryResult:
    """Ask one SELECT of the views on all sources together.

    Nothing else can be read and nothing can be written. A trial that two sources hold with the same content is there
    once; one that differs is there twice, and ``results`` says where from.

    Args:
        sources: results folders and archives.
        sql: a SELECT (or FROM, WITH, DESCRIBE, SUMMARIZE) of DuckDB's dialect.

    Raises:
        UserError: the SQL is wrong (a wrong name comes with the nearest right one) or is no SELECT; or a source is
            damaged.
    """
    import duckdb

    with open_views(sources) as con:
        try:
            statements = con.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError("a query is one SELECT; it reads the views " + ", ".join(VIEWS) + " and writes nothing")
            done = con.execute(statements[0])
            columns = _unlike([column[0] for column in done.description or []])
            return QueryResult(columns, done.fetchall())
        except duckdb.Error as error:
            raise UserError(_explained(str(error))) from None


def open_views(sources: Sequence[Path]) -> DuckDBPyConnection:
    """A connection with the views, locked: it reads no file but the sources' packed tables, and changes no setting.

    Raises:
        UserError: a source is no results folder and no archive, is damaged or of a newer schema.
    """
    con = connect()
    tables = []
    for place, source in enumerate(sources):
        open_results(source)
        if re.search(r"[*?\[\]]", str(source.resolve())):
            raise UserError(f"{source}: DuckDB treats the characters * ? [ ] in a path as a pattern; rename the folder")
        if is_archive(source):
            check_rows(source)
        table = parquet(source) if is_archive(source) else packed(con, source, f"packed_{place}")
        known = {str(column[0]) for column in con.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()}
        older = "".join(f", {value} AS {name}" for name, value in _FIRST.items() if name not in known)
        tables.append(f"SELECT {place} AS place, {text(source)} AS results, *{older} FROM {table}")
    rows = f"({' UNION ALL BY NAME '.join(tables)})"
    con.execute(f"CREATE TEMP VIEW packed AS SELECT * FROM {rows} {_once(con, rows) if len(tables) > 1 else ''}")
    con.execute(f"CREATE TEMP VIEW trials AS SELECT results, {_names(TRIALS)} FROM packed")
    con.execute(f"CREATE TEMP VIEW meters AS SELECT {_BESIDE}, {_names(METER, 'meter.')} FROM packed")
    con.execute(f"""CREATE TEMP VIEW metrics AS SELECT {_BESIDE}, {_names(METRICS, "u.m.")}
                    FROM packed, (SELECT unnest(packed.metrics) AS m) u""")
    con.execute(f"""CREATE TEMP VIEW curves AS SELECT {_BESIDE}, u.point, {_names(POINTS[1:], "u.c.")}
                    FROM packed, (SELECT unnest(packed.curve) AS c,
                                        generate_subscripts(packed.curve, 1) - 1 AS point) u""")
    files = re.findall(r"read_parquet\('((?:[^']|'')*)', hive", " ".join(tables))
    allowed = ", ".join(f"'{file}'" for file in files)
    con.execute(f"SET allowed_paths = [{allowed}]; SET enable_external_access = false; SET lock_configuration = true")
    return con


def _once(con: DuckDBPyConnection, rows: str) -> str:
    """SQL that leaves out the further copies of a trial with the same content; few trials have any."""
    con.execute(
        f"""CREATE TEMP TABLE further AS
            WITH several AS (SELECT id FROM {rows} GROUP BY id HAVING count(*) > 1)
            SELECT id, place FROM {rows} SEMI JOIN several USING (id)
            QUALIFY row_number() OVER (PARTITION BY id, {DIGEST} ORDER BY place) > 1"""
    )
    return "ANTI JOIN further USING (id, place)"


def _names(columns: Sequence[str] | dict[str, str], inside: str = "") -> str:
    return ", ".join(f'{inside}"{name}" AS "{name}"' for name in columns)


def _unlike(names: Sequence[str]) -> tuple[str, ...]:
    """The second ``id`` becomes ``id_2``: a table and an object have each column once."""
    found: list[str] = []
    for name in names:
        other, count = name, 2
        while other in found:
            other, count = f"{name}_{count}", count + 1
        found.append(other)
    return tuple(found)


def _explained(message: str) -> str:
    """DuckDB's complaint without its list of candidates, with the place in the query and the nearest name of ours."""
    said = re.sub(r"^\w+(?: \w+)* Error: ", "", message).strip()
    first = re.split(r"\n(?:Candidate|Did you mean|\tCandidate|\n)", said)[0].strip().rstrip("!")
    at = "\n" + said[said.index("\nLINE") + 1 :] if "\nLINE" in said else ""
    columns = {name for view in VIEWS.values() for name in view}
    if found := re.search(r'(?:column "?([\w.]+)"? not found|column named "(\w+)")', first):
        name = (found[1] or found[2]).rpartition(".")[2]
        having = [view for view, names in VIEWS.items() if name in names]
        first += f" {name} is a column of {' and '.join(having)}" if having else nearest(name, columns)
    elif found := re.search(r"Table with name (\S+) does not exist", first):
        first += nearest(found[1], VIEWS)
    elif "file system operations" in first or "disabled by configuration" in first:
        first = f"a query reads only the views {', '.join(VIEWS)}, no files"
    return f"the query is wrong: {first}{at}"
