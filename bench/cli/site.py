"""``dfkd site``: the reports of several studies, with one front page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import out
from bench.cli.places import results_below
from bench.cli.show import TRIAL_PAGES


def site(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RESULTS]...", help="Results folders, archives, or folders of them.  [default: results]"
        ),
    ] = None,
    target: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to.")] = Path("site"),
    summary: Annotated[
        bool,
        typer.Option(
            "--summary", help="README.md, and of each study the leaderboard and one or two figures: to keep in git."
        ),
    ] = False,
    trial_pages: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many trials of a study get a page at most; 0 for none.")
    ] = TRIAL_PAGES,
) -> None:
    """Write a report of each study and a front page that leads to them; what has not changed is not rendered again."""
    from bench.analysis.report.site import make_site, studies_of
    from bench.utils.hardware import usable_cores

    made = make_site(
        studies_of(results or [Path("results")], results_below),
        target,
        summary=summary,
        trial_pages=trial_pages,
        processes=usable_cores(),
        told=lambda name: out.say(f"rendered {name}"),
    )
    out.say(f"\nrendered: {len(made.rendered)}, unchanged: {len(made.kept)}; open {made.front.resolve().as_uri()}")
