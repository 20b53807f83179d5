"""``dfkd compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bench.analysis.regression.cells import own_names
from bench.analysis.regression.compare import Comparison
from bench.analysis.regression.compare import compare as compare_sides
from bench.analysis.regression.effects import Effect, check_name, check_rule, own_effects
from bench.analysis.regression.filing import TRACKED, Filed, filed_place, open_earlier, open_filed, read_filed
from bench.analysis.regression.interleave import interleave
from bench.analysis.regression.step_times import ROUNDS
from bench.analysis.regression.verdicts import ALPHA, SEEDS, Missing, Number
from bench.cli import out
from bench.cli.run import stopped
from bench.cli.settings import DataFolder, Json, Metric, Renamed, Repo, Score, Smallest, Tracked
from bench.errors import UserError
from bench.records import read_beside
from bench.spec.study import find_study, load_study
from bench.utils.git import checkout_of, resolve
from bench.utils.yaml import plain, read_yaml, read_yaml_text


def compare(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="The earlier side: a commit, tag, branch or results folder.")
    ],
    head: Annotated[str, typer.Argument(metavar="HEAD", help="The later side: the same.")],
    tracked: Tracked = None,
    repo: Repo = None,
    metric: Metric = None,
    smallest: Smallest = None,
    alpha: Annotated[
        float, typer.Option(metavar="P", help="The chance of any false regression in one comparison.")
    ] = ALPHA,
    undecided: Annotated[
        str, typer.Option(metavar="fail|ok", help="Whether an undecided comparison has exit code 3 or 0.")
    ] = "fail",
    rule: Score = None,
    renamed: Renamed = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a summary for a pull request.")] = False,
    as_json: Json = False,
    in_turn: Annotated[
        bool, typer.Option("--interleave", help="Time the steps of both commits in turn, here and now.")
    ] = False,
    study: Annotated[
        str | None, typer.Option(metavar="STUDY", help="The study to time.  [default: the one stored with HEAD]")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=SEEDS, metavar="N", help=f"Rounds of --interleave.  [default: {ROUNDS}]")
    ] = None,
    data: DataFolder = None,
) -> None:
    """Compare two commits: better, worse, the same or undecided, for every task, method and metric.

    Scores, speed and failures decide; other numbers inform.
    Exit code: 0 no regression, 1 a score or speed is worse or a trial newly fails, 2 nothing can be compared or
    something is to be fixed first, 3 undecided: a loss that matters is not excluded, or something was not compared.
    """
    if not 0 < alpha < 1:
        raise UserError(f"--alpha must be between 0 and 1, not {alpha:g}")
    if markdown and as_json:
        raise UserError("--markdown and --json cannot be combined; choose one")
    if undecided not in ("fail", "ok"):
        raise UserError(f"--undecided must be fail or ok, not {undecided!r}")
    check_rule(rule)
    for name in metric or []:
        check_name(name)
    own, names = own_effects(smallest or []), own_names(renamed or [])
    if not in_turn and (study is not None or rounds is not None or data is not None):
        raise UserError("--study, --rounds and --data are for --interleave")
    speeds = None
    if in_turn:
        sides, speeds = _in_turn(
            (base, head), repo, tracked, study, rounds or ROUNDS, data, own, quiet=as_json or markdown
        )
    else:
        sides = (open_filed(base, repo, tracked), open_filed(head, repo, tracked))
    earlier = open_earlier(sides[1], repo, tracked)
    found = compare_sides(
        *sides, alpha=alpha, own=own, only=metric, earlier=earlier, renamed=names, rule=rule, in_turn=speeds
    )
    if not (found.numbers or found.failed or found.fixed or found.questions):
        why = "; ".join(dict.fromkeys(f"{each.task}, {each.method}: {each.why}" for each in found.missing[:5]))
        raise UserError(f"nothing of {base} and {head} can be compared{f' ({why})' if why else ''}")
    _print(found, markdown, as_json)
    if found.outcome == "regression":
        raise typer.Exit(1)
    if found.outcome == "undecided" and undecided == "fail":
        raise typer.Exit(3)


def _in_turn(
    names: tuple[str, str],
    repo: Path | None,
    tracked: Path | None,
    study: str | None,
    rounds: int,
    data: Path | None,
    own: Mapping[str, Effect],
    *,
    quiet: bool,
) -> tuple[tuple[Filed, Filed], tuple[list[Number], list[Missing]]]:
    """Both commits with what is stored of them, if something is of both; and their speeds, measured now."""
    root = checkout_of(repo or Path())
    base, head = (resolve(root, name) for name in names)
    places = [filed_place((tracked or root / TRACKED) / commit.sha) for commit in (base, head)]
    if study is not None:
        file = find_study(study)
        load_study(file)  # a mistake in it is told before anything runs
        written, inside = plain(read_yaml(file)), file.resolve().parent
        place = inside.relative_to(root.resolve()) if inside.is_relative_to(root.resolve()) else Path()
    else:
        text = read_beside(places[1], "study.yaml") if places[1] is not None else None
        if text is None:
            raise UserError(f"no study is stored with {head.short}; name one with --study")
        written, place = plain(read_yaml_text(text, Path("study.yaml"))), Path()

    def tell(done: int) -> None:
        if not quiet:
            out.say(f"round {done} of {rounds}")

    try:
        speeds = interleave(root, (base, head), written, place, rounds, data, own, tell)
    except KeyboardInterrupt as stop:
        raise typer.Exit(stopped(stop, again="nothing was stored; start again")) from None
    both = all(each is not None for each in places)
    first, second = (
        read_filed(name, where, commit) if both and where is not None else Filed(name, Path(name), commit, (), {}, ())
        for name, commit, where in zip(names, (base, head), places, strict=True)
    )
    return (first, second), speeds


def _print(found: Comparison, markdown: bool, as_json: bool) -> None:
    from bench.analysis.regression import summary

    if as_json:
        return out.print_json(summary.objects(found))
    if markdown:
        return print(summary.markdown(found), end="")
    out.pairs([("base", found.base.title), ("head", found.head.title)], indent="")
    out.say()
    table = out.table(*summary.columns(found), right=summary.numeric(found))
    for number in summary.sorted_numbers(found):
        table.add_row(*summary.cells(number))
    out.show(table)
    for title, turns in (
        ("failed in head, ok in base", found.failed),
        ("failed in base, ok in head", found.fixed),
    ):
        for turn in turns:
            out.say(f"\n{title}: {turn.method} on {turn.task}, seed {turn.seed}: {turn.reason}")
    if rows := summary.untold_rows(found):
        out.say("\nwhat remains undecided")
        out.pairs([(", ".join(part for part in row[:3] if part != summary.ABSENT), row[3]) for row in rows])
    if informs := [each for each in found.missing if not each.decides]:
        out.say("\nalso not compared")
        out.pairs([(f"{each.task}, {each.method}, {each.what}", each.why) for each in informs])
    for note in (*found.notes, summary.explanation(found)):
        out.say(f"\n{note}")
    return out.say(f"\n{summary.headline(found)}")
