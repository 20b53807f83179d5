"""``dfkd verify``: run trials of a results folder again, isolated, and compare."""

from __future__ import annotations

import secrets
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import out
from bench.cli.places import searched
from bench.cli.run import stopped
from bench.cli.settings import DataFolder, Json, MethodFiles, TaskFiles, Weights, know
from bench.cli.watch import PlainLines
from bench.errors import UserError, nearest, nearest_folder
from bench.execution.executors import EXECUTORS, require_executor
from bench.execution.plan import RUNS
from bench.execution.verify import TOLERANCE, Verification, choose
from bench.execution.verify import verify as run_again
from bench.records import load_records, place_of
from bench.records.verified import VERIFIED
from bench.utils.stopping import listening
from bench.utils.text import shown

AGAIN = RUNS / "verify"
NOT_COMPARED = 3


def verify(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder or an archive.")],
    sample: Annotated[int, typer.Option("--sample", min=1, metavar="N", help="How many trials, chosen at random.")] = 3,
    every: Annotated[bool, typer.Option("--all", help="All successful trials.")] = False,
    trial: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="This trial, by the beginning of its id; may be repeated.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="S", help="Seed of the choice, to choose the same again.  [default: random]")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, metavar="POINTS", help="How far a score may lie where the same bits cannot be expected, in points."
        ),
    ] = 100 * TOLERANCE,
    pool: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of a pool that is no data set.")] = None,
    executor: Annotated[str, typer.Option(help=f"How to run: {', '.join(EXECUTORS)}.")] = "processes",
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials side by side.")] = None,
    data: DataFolder = None,
    weights: Weights = None,
    method: MethodFiles = None,
    tasks: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """Run trials again, each in a process of its own, and compare scores, curves, counts and students.

    Where processor, library versions and threads are the same, every bit must be; elsewhere each score must lie
    within the tolerance. What was found is written into the records, and leaderboards show it.

    Exit code: 0 all are verified, 1 some differ, 2 there is something to fix first, 3 some could not be compared, 75
    stopped and saved, 130 stopped at once.
    """
    know(tasks)
    require_executor(executor)
    if pool is not None and not pool.exists():
        raise UserError(f"--pool {shown(str(pool))}: there is no such folder{nearest_folder(pool)}")
    folder = searched([results])[0]
    records = load_records(folder)
    total = sum(record.status == "ok" for record in records)
    if not total:
        raise UserError(f"{folder} has no successful trial")
    seed = secrets.randbelow(2**31) if seed is None else seed
    chosen = choose(records, None if every else sample, seed, _ids(trial or [], [record.id for record in records]))
    if not chosen:
        raise UserError("none of the named trials succeeded: there is nothing to compare")
    again = AGAIN / place_of(folder).name.removesuffix(".parquet")
    if not as_json:
        how = "" if every or trial else f", chosen with --seed {seed}"
        out.say(f"running {out.count(len(chosen), 'trial')} of {total} again{how}")
    try:
        with listening():
            found = run_again(
                folder,
                chosen,
                again,
                total=total,
                method_files=method or (),
                pool=pool,
                tolerance=tolerance / 100,
                executor=executor,
                workers=workers,
                data_folder=data,
                weights=weights,
                audience=None if as_json else PlainLines(len(chosen)),
            )
    except KeyboardInterrupt as stop:
        same = "the same command continues" + ("" if every or trial else f", with --seed {seed}")
        raise typer.Exit(stopped(stop, again=same)) from None
    if as_json:
        out.print_json([_plain(each) for each in found])
    else:
        _print(found, folder)
    outcomes = Counter(each.outcome for each in found)
    if outcomes["differs"]:
        raise typer.Exit(1)
    if outcomes["not compared"]:
        raise typer.Exit(NOT_COMPARED)


def _ids(prefixes: list[str], known: list[str]) -> list[str]:
    found = []
    for prefix in prefixes:
        fitting = [name for name in known if prefix and name.startswith(prefix)]
        if len(fitting) != 1:
            many = (
                f"{len(fitting)} trials begin with it" if fitting else f"there is no such trial{nearest(prefix, known)}"
            )
            raise UserError(f"--trial {shown(prefix)}: {many}")
        found += fitting
    return found


def _plain(each: Verification) -> dict[str, object]:
    facts = each.record.trial
    return {
        **{"id": each.record.id, "task": facts.task, "method": facts.method, "seed": facts.seed},
        **{"outcome": each.outcome, "details": each.details, "other_bits": each.bits},
    }


def _print(found: list[Verification], folder: Path) -> None:
    out.say()
    table = out.table("trial", "task", "method", "seed", "outcome", "details", right=["seed"])
    for each in found:
        facts = each.record.trial
        details = "; ".join(filter(None, (each.details, each.bits and f"not bit for bit: {each.bits}")))
        table.add_row(
            each.record.id, shown(facts.task), shown(facts.method), str(facts.seed), each.outcome, shown(details)
        )
    out.show(table)
    verified = sum(each.outcome in VERIFIED for each in found)
    out.say(f"\nverified {verified} of {out.count(len(found), 'trial')}; records: {folder}")
