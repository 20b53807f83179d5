"""``dfkd query``, ``dfkd archive`` and ``dfkd merge``: many records at once."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from bench.cli import out
from bench.cli.places import searched
from bench.cli.settings import Json, Sources
from bench.errors import UserError, nearest
from bench.records.schema import without_nan
from bench.records.sheets import SHEETS, Sheets
from bench.utils.text import shown

SHOWN = 200  # rows of a table on the terminal
KeptSheets = Annotated[
    str,
    typer.Option(
        "--sheets",
        metavar="|".join(SHEETS),
        help=f"Which contact sheets an archive holds: {'; '.join(f'{name}: {doc}' for name, doc in SHEETS.items())}.",
    ),
]


def query(
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="A SELECT on the views trials, curves, metrics and meters.")
    ],
    results: Sources = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all rows as CSV, and nothing else.")] = False,
    as_json: Json = False,
) -> None:
    """Query the records in SQL (DuckDB's dialect). `dfkd query "describe trials"` lists a view's columns."""
    from bench.records.query import query as ask

    if as_csv and as_json:
        raise UserError("--csv and --json cannot be combined; choose one")
    answer = ask(searched(results or []), sql)
    if as_json:
        return out.print_json([without_nan(row) for row in answer.objects()])
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        terminal = sys.stdout.isatty()
        writer.writerows(
            [shown(cell) if terminal and isinstance(cell, str) else cell for cell in row] for row in answer.rows
        )
        return None
    numbers = [
        name
        for place, name in enumerate(answer.columns)
        if any(isinstance(row[place], int | float) for row in answer.rows[:SHOWN])
    ]
    made = out.table(*answer.columns, right=numbers)
    for row in answer.rows[:SHOWN]:
        made.add_row(*("" if value is None else _cell(value) for value in row))
    out.show(made)
    if len(answer.rows) > SHOWN:
        out.say(f"... and {out.count(len(answer.rows) - SHOWN, 'more row')}; --csv or --json print all")
    return None


def archive(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder, or another archive.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="The archive to write; it must not exist.")],
    sheets: KeptSheets = "best",
) -> None:
    """Pack the records and curves of a results folder and some contact sheets into one Parquet file."""
    from bench.records import open_results
    from bench.records.archive import write_archive

    count = write_archive(open_results(results), file, _sheets(sheets))
    out.say(f"{file}: {out.count(count, 'trial')}, {out.size(file.stat().st_size)}; without students and images")


def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Results folders and archives.")],
    target: Annotated[
        Path, typer.Option("--out", metavar="PATH", help="A new folder, or a new archive if it ends in .parquet.")
    ],
    sheets: KeptSheets = "best",
) -> None:
    """Join results of several machines: duplicates once, conflicts refused, nothing overwritten."""
    from bench.records.merge import merge as join

    merged = join(sources, target, _sheets(sheets))
    out.say(f"{target}: {out.count(merged.trials, 'trial')} of {out.count(len(sources), 'source')}")
    dropped = (
        ("exact duplicates", merged.duplicates),
        ("records with fewer image metrics", merged.extended),
        ("failures of trials that succeeded elsewhere", merged.replaced),
    )
    out.pairs((f"dropped {what}", f"{count:,}") for what, count in dropped if count)


def _sheets(word: str) -> Sheets:
    if word not in SHEETS:
        raise UserError(f"unknown --sheets {word!r}{nearest(word, SHEETS)}")
    return cast("Sheets", word)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
