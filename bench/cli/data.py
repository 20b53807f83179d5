"""``dfkd data``: which data sets are present, and downloading missing ones."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import complete, out
from bench.cli.plain import PLAIN, VerbGroup
from bench.cli.settings import DataFolder, Json
from bench.data import NAMES, FileStatus, Source, find, search_folders, status_of
from bench.data import fetch as fetch_data
from bench.data.files import archive_seen, folder_of
from bench.data.own_images import source_at
from bench.errors import UserError

app = typer.Typer(
    help="Inspect and download data sets; only `fetch` downloads.", no_args_is_help=True, cls=VerbGroup, **PLAIN
)

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        autocompletion=complete.data_sets,
        help=f"Of: {', '.join(NAMES)}; or the path of a folder of your own.  [default: all]",
    ),
]


@app.command()
def status(names: Names = None, data: DataFolder = None, as_json: Json = False) -> None:
    """Show each data set's files with their state, its licence and citation, and what to place by hand."""
    chosen = [(source, status_of(source, data)) for source in map(_source, names or NAMES)]
    if as_json:
        return out.print_json([_row(source, files, data) for source, files in chosen])
    out.say("searched, in this order:")
    for folder in search_folders(data):
        out.say(f"  {folder}")
    for source, files in chosen:
        _print_set(source, files, data)
    return None


@app.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", autocompletion=complete.data_sets, help=f"Of: {', '.join(NAMES)}.")
    ],
    data: DataFolder = None,
) -> None:
    """Download the missing files of data sets; each is moved into place after its checksum is verified."""
    for name in names:
        find(name)  # a wrong name is reported before anything is downloaded
    for name in names:
        folder = fetch_data(name, data, out.Download())
        out.say(f"{name}: complete in {folder}")


@app.command()
def verify(names: Names = None, data: DataFolder = None) -> None:
    """Compare every file with the official checksum, and decode every image of data sets with many files.

    Exit code: 0 all is well, 1 a file is not the official one, or a named data set is missing.
    """
    bad = False
    for name in names or NAMES:
        files = status_of(_source(name), data, thorough=True)
        states = [file.state for file in files]
        absent = all(state == "missing" for state in states)
        out.say(f"{name}: {_verdict(states)}")
        for file in files:
            if file.state != "ok" and not absent:
                out.say(f"  {file.message}")
        bad |= any(state != "ok" for state in states) and (not absent or bool(names))
    if bad:
        raise typer.Exit(1)


@app.command()
def path(names: Names = None, data: DataFolder = None) -> None:
    """Print the folder of a data set; without a name, print the searched folders in order."""
    if not names:
        for folder in search_folders(data):
            out.say(str(folder))
    for source in map(_source, names or []):
        out.say(str(_folder_of(source, status_of(source, data))))


def _verdict(states: Sequence[str]) -> str:
    if all(state == "ok" for state in states):
        return "ok"
    if all(state == "missing" for state in states):
        return "missing"
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _source(name: str) -> Source:
    """A data set by its name, or a folder of the user's own by its path."""
    return source_at(Path(name)) if name not in NAMES and Path(name).is_dir() else find(name)


def _folder_of(source: Source, files: Sequence[FileStatus]) -> Path:
    if source.name not in NAMES and source.tree is not None:
        return Path(source.tree.root)
    for file in files:
        if (folder := folder_of(file)) is not None:
            return folder
    if source.make is not None:
        raise UserError(f"{source.name} is generated: it has no folder")
    fetch = f"run `dfkd data fetch {source.name}`, or " if source.fetchable else ""
    raise UserError(f"{source.name} is missing; {fetch}{source.how_to_place}")


def _row(source: Source, files: Sequence[FileStatus], folder: Path | None) -> dict[str, Any]:
    return {
        "name": source.name,
        "title": source.title,
        "state": _verdict([file.state for file in files]),
        "searched": [str(each) for each in [*search_folders(folder), *([source.package] if source.package else [])]],
        "licence": source.licence,
        "citation": source.citation,
        "how_to_place": source.how_to_place,
        "files": [
            {
                "name": file.name,
                "path": str(file.path) if file.path else None,
                "state": file.state,
                "size": file.actual_size,
                "official_size": file.expected_size,
                "md5": file.actual_md5,
                "official_md5": file.expected_md5,
                "message": file.message,
            }
            for file in files
        ],
    }


def _print_set(source: Source, files: Sequence[FileStatus], folder: Path | None) -> None:
    states = [file.state for file in files]
    out.say(f"\n{source.name}: {source.title}: {_verdict(states)}")
    for file in files:
        number = file.actual_size if file.actual_size is not None else file.expected_size
        if number is None:  # a part of a set of many files
            out.say(f"  {file.state:<9}  {file.message}")
            continue
        where = f", {file.path}" if file.path else ""
        out.say(f"  {file.state:<9}  {file.name}, {out.size(number)}{where}")
        if file.state not in ("ok", "missing"):
            out.say(f"             {file.message}")
    last = [("searched last", str(source.package))] if source.package else []
    out.pairs([("licence", source.licence), ("citation", source.citation), *last])
    if any(state != "ok" for state in states):
        out.say(f"  to fix it: {_remedy(source, archive_seen(source, search_folders(folder)))}")


def _remedy(source: Source, archive: Path | None) -> str:
    if archive is not None:
        return f"`dfkd data fetch {source.name} --data {shlex.quote(str(archive.parent))}`, which unpacks {archive}"
    return f"{f'`dfkd data fetch {source.name}`, or ' if source.fetchable else ''}{source.how_to_place}"
