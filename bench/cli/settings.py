"""What the verbs share: how typer behaves, and the options that several of them have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

import typer


class _Plain(TypedDict):
    rich_markup_mode: None
    pretty_exceptions_enable: bool
    add_completion: bool


PLAIN: _Plain = {"rich_markup_mode": None, "pretty_exceptions_enable": False, "add_completion": False}

Json = Annotated[bool, typer.Option("--json", help="Print a JSON list of objects, and nothing else.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Where to look for data sets first (else DFKD_DATA, then the cache)."),
]
MethodFiles = Annotated[
    list[Path] | None, typer.Option("--method", metavar="FILE", help="A method file of your own; may be repeated.")
]
