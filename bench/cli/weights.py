"""``dfkd weights``: which weights files of image metrics are present, and downloading missing ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import out
from bench.cli.plain import PLAIN, Group
from bench.cli.settings import Json, Weights
from bench.metrics.weights import FILES, WeightsStatus, fetch_weights, known, weights_folders, weights_status

app = typer.Typer(
    help="Inspect and download the metrics' weights files; no metric downloads any.",
    no_args_is_help=True,
    cls=Group,
    **PLAIN,
)

ONE_OF = f"Of: {', '.join(FILES)}."


@app.command()
def status(weights: Weights = None, as_json: Json = False) -> None:
    """Show each file's state, place, size and licence, and which metrics need it."""
    found = weights_status(weights)
    if as_json:
        return out.print_json([_row(each, weights) for each in found])
    out.say("searched, in this order:")
    for place in weights_folders(weights):
        out.say(f"  {place}")
    for each in found:
        out.say(f"\n{each.file.name}: {each.file.file}, {out.size(each.file.size)}: {each.state}")
        remedy = f"run `dfkd weights fetch {each.file.name}`, or place it in one of these folders"
        rows = [
            ("path", str(each.path)) if each.state == "ok" else ("altered", each.message),
            ("needed by", each.file.used_by),
            ("licence", each.file.licence),
            ("other names", ", ".join(each.file.other_names)),
            ("to fix it", remedy if each.state != "ok" else ""),
        ]
        out.pairs((name, text) for name, text in rows if text and (name != "altered" or each.state == "altered"))
    return None


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help=ONE_OF)],
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="DIR", help="Folder for the files.  [default: the cache]")
    ] = None,
) -> None:
    """Download weights files; each is moved into place after its sha256 is verified."""
    for name in names:
        known(name)  # a wrong name is reported before anything is downloaded
    for name in names:
        out.say(f"{name}: {fetch_weights(name, weights, out.Download())}")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help=f"{ONE_OF}  [default: all]")] = None,
    weights: Weights = None,
) -> None:
    """Compare every file with the official sha256.

    Exit code: 0 all is well, 1 a file is not the official one, or a named file is missing.
    """
    for name in names or []:
        known(name)
    found = [each for each in weights_status(weights) if not names or each.file.name in names]
    for each in found:
        out.say(f"{each.file.name}: {each.state}")
        if each.state != "missing" or names:
            out.say(f"  {each.message}")
    if _bad(found, bool(names)):
        raise typer.Exit(1)


def _bad(found: Sequence[WeightsStatus], named: bool) -> bool:
    return any(each.state == "altered" or (named and each.state == "missing") for each in found)


def _row(each: WeightsStatus, weights: Path | None) -> dict[str, object]:
    return {
        "name": each.file.name,
        "file": each.file.file,
        "other_names": list(each.file.other_names),
        "state": each.state,
        "path": str(each.path) if each.path else None,
        "message": each.message,
        "size": each.file.size,
        "sha256": each.file.digest,
        "urls": list(each.file.urls),
        "licence": each.file.licence,
        "used_by": each.file.used_by,
        "searched": [str(place) for place in weights_folders(weights)],
    }
