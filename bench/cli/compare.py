"""``dfkd compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.analysis.regression.compare import Comparison
from bench.analysis.regression.compare import compare as compare_sides
from bench.analysis.regression.effects import check_name, own_effects
from bench.analysis.regression.filing import open_filed
from bench.analysis.regression.verdicts import ALPHA
from bench.cli import out
from bench.cli.settings import Json, Metric, Repo, Smallest, Tracked
from bench.errors import UserError


def compare(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="The earlier side: a commit, tag, branch or results folder.")
    ],
    head: Annotated[str, typer.Argument(metavar="HEAD", help="The later side: the same.")],
    tracked: Tracked = None,
    repo: Repo = None,
    metric: Metric = None,
    smallest: Smallest = None,
    alpha: Annotated[float, typer.Option(metavar="P", help="The chance of any false alarm in one comparison.")] = ALPHA,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 also if something was not compared or not decided.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a summary for a pull request.")] = False,
    as_json: Json = False,
) -> None:
    """Compare two commits: better, worse, same or not enough data, for every task, method and metric.

    Exit code: 0 no regression, 1 a number is worse or a trial newly fails, 2 there is nothing to compare.
    """
    if not 0 < alpha < 1:
        raise UserError(f"--alpha must be between 0 and 1, not {alpha:g}")
    if markdown and as_json:
        raise UserError("--markdown and --json cannot be combined; choose one")
    for name in metric or []:
        check_name(name)
    own = own_effects(smallest or [])
    sides = (open_filed(base, repo, tracked), open_filed(head, repo, tracked))
    found = compare_sides(*sides, alpha=alpha, own=own, only=metric)
    if not found.numbers and not found.failed and not found.fixed:
        why = "; ".join(dict.fromkeys(f"{each.task}, {each.method}: {each.why}" for each in found.missing[:5]))
        raise UserError(f"nothing of {base} and {head} can be compared{f' ({why})' if why else ''}")
    _print(found, markdown, as_json)
    if found.regressed or (strict and found.incomplete):
        raise typer.Exit(1)


def _print(found: Comparison, markdown: bool, as_json: bool) -> None:
    from bench.analysis.regression import summary

    if as_json:
        return out.print_json(summary.objects(found))
    if markdown:
        return print(summary.markdown(found), end="")
    out.pairs([("base", found.base.title), ("head", found.head.title)], indent="")
    out.say()
    table = out.table(*summary.COLUMNS, right=summary.NUMERIC)
    for number in summary.sorted_numbers(found):
        table.add_row(*summary.cells(number))
    out.show(table)
    for title, turns in (
        ("failed in head, ok in base", found.failed),
        ("failed in base, ok in head", found.fixed),
    ):
        for turn in turns:
            out.say(f"\n{title}: {turn.method} on {turn.task}, seed {turn.seed}: {turn.reason}")
    if found.missing:
        out.say("\nnot compared")
        out.pairs([(f"{each.task}, {each.method}, {each.what}", each.why) for each in found.missing])
    for note in (*found.notes, summary.explanation(found)):
        out.say(f"\n{note}")
    return out.say(f"\n{summary.headline(found)}")
