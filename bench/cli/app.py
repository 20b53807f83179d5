"""The command tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from typer.core import TyperGroup

import bench
from bench.cli import (
    bisect,
    carry,
    check,
    compare,
    data,
    history,
    lists,
    query,
    run,
    runs,
    score,
    search,
    show,
    site,
    teacher,
    track,
    weights,
)
from bench.cli import (
    doctor as doctor_verb,
)
from bench.cli import (
    submit as submit_verb,
)
from bench.cli import (
    verify as verify_verb,
)
from bench.cli.settings import PLAIN


class _InOrder(TyperGroup):
    """Lists the verbs in the order in which a user meets them."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        del ctx
        return list(HELP)


HELP = {
    "run": "Run a study, or continue one.",
    "status": "Show how far a study has come.",
    "cancel": "Ask a running study to save itself and stop.",
    "retry": "Run the trials again that failed.",
    "search": "Search a study's ranges, without the test set.",
    "list": "List tasks, methods, metrics and studies.",
    "show": "Show everything about one trial.",
    "score": "Measure image metrics of finished trials.",
    "verify": "Run trials again, isolated, and compare.",
    "submit": "Pack a finished study for others to verify, and for the leaderboard.",
    "report": "Write the leaderboard, figures and pages.",
    "site": "Write one site of several studies, with a front page.",
    "track": "Run a study and store its numbers under the commit.",
    "compare": "Compare the numbers of two commits.",
    "history": "Show the numbers of all tracked commits, and where they changed.",
    "query": "Query the records in SQL.",
    "pack": "Pack a study, unfinished trials too, to go on elsewhere.",
    "unpack": "Unpack such a study.",
    "archive": "Pack a results folder into one Parquet file.",
    "merge": "Join the results of several machines.",
    "bisect": "Find the commit that changed a number.",
    "check": "Test a method against the contract.",
    "teacher": "Train, import and inspect teachers.",
    "data": "Inspect and download data sets.",
    "weights": "Inspect and download the metrics' weights files.",
    "doctor": "Show what is broken, what is not there yet, and what is.",
}
app = typer.Typer(
    cls=_InOrder,
    help="Benchmark data-free knowledge distillation: one harness, fixed budgets, real images.",
    epilog="First steps: `dfkd doctor`, then `dfkd run demo`, then `dfkd report`.",
    no_args_is_help=True,
    add_completion=True,
    **PLAIN,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dfkd {bench.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


_VERBS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "status": runs.status,
    "cancel": runs.cancel,
    "retry": runs.retry,
    "search": search.search,
    "show": show.show,
    "score": score.score,
    "verify": verify_verb.verify,
    "submit": submit_verb.submit,
    "report": show.report,
    "site": site.site,
    "track": track.track,
    "compare": compare.compare,
    "history": history.history,
    "query": query.query,
    "pack": carry.pack,
    "unpack": carry.unpack,
    "archive": query.archive,
    "merge": query.merge,
    "bisect": bisect.bisect,
    "check": check.check,
    "doctor": doctor_verb.doctor,
}
for _name, _verb in _VERBS.items():
    app.command(_name, short_help=HELP[_name])(_verb)
for _name, _group in {"list": lists.app, "teacher": teacher.app, "data": data.app, "weights": weights.app}.items():
    app.add_typer(_group, name=_name, short_help=HELP[_name])
