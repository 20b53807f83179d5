"""``dfkd run``."""

from __future__ import annotations

import shlex
import statistics
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import GO_ON_LATER, STOPPED, complete, out
from bench.cli.settings import DataFolder, Isolation, MethodFiles, Weights
from bench.cli.watch import LiveTable, PlainLines, name_of, say_idle
from bench.execution.executors import EXECUTORS, Work, check_executor, get_executor
from bench.execution.parts import StudyPart
from bench.execution.plan import Plan, plan_study
from bench.execution.run_study import CHECKPOINT_SECONDS, Summary, TrialResult, run_plan
from bench.records.comparable import AGREEMENTS
from bench.records.selection import RULES
from bench.spec.budget import in_words
from bench.spec.options import value_words
from bench.spec.study import find_study
from bench.utils.stopping import Stopped, listening, stop_time

Of = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", autocompletion=complete.studies, help="A YAML file, or a name from `dfkd list studies`."
    ),
]
FolderOfResults = Annotated[
    Path | None, typer.Option("--results", metavar="DIR", help="Results folder.  [default: runs/<name of the study>]")
]
Executor = Annotated[str, typer.Option(help="; ".join(f"{name}: {doc}" for name, doc in EXECUTORS.items()) + ".")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Trials to run in parallel.  [default: as the cores allow; 1 on each GPU]"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print plain lines instead of the live table.")]
CheckpointSeconds = Annotated[
    float, typer.Option(min=0.0, metavar="S", help="Seconds between checkpoints of a running trial.")
]
StopAfter = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Save the running trials and stop after this time, such as 9m or 1h30m."),
]
StopAt = Annotated[str | None, typer.Option(metavar="HH:MM", help="The same at this time of day, today or tomorrow.")]


def run(
    study: Of,
    results: FolderOfResults = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="N/M", help="Run part N of M, in a results folder of its own; `dfkd merge` joins them."),
    ] = None,
    executor: Executor = "processes",
    workers: Workers = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials and write nothing.")] = False,
    quiet: Quiet = False,
    method: MethodFiles = None,
    data: DataFolder = None,
    weights: Weights = None,
    allow_altered: Annotated[
        bool, typer.Option("--allow-altered", help="Use data files that are not the official ones, and record which.")
    ] = False,
    checkpoint_seconds: CheckpointSeconds = CHECKPOINT_SECONDS,
    isolation: Isolation = None,
    stop_after: StopAfter = None,
    stop_at: StopAt = None,
) -> None:
    """Run a study. The same command continues an interrupted run; nothing runs twice.

    Ctrl-C (SIGINT), SIGTERM, SIGUSR1 and --stop-after save the running trials and a teacher in training, then stop.
    A second Ctrl-C stops at once: what was not saved is lost, and the same command continues from the last checkpoint.

    Exit code: 0 all trials are ok, 1 some failed, 2 there is something to fix first, 75 stopped and saved: the same
    command continues, 130 stopped at once by a second Ctrl-C.
    """
    ends = stop_time(stop_after, stop_at)
    check_executor(executor)
    file, files = find_study(study), method or []
    plan = plan_study(
        file,
        results=results,
        device=device,
        method_files=files,
        allow_altered=allow_altered,
        data_folder=data,
        part=StudyPart.parse(part) if part else None,
    )
    if dry_run:
        _print_plan(plan)
        if ":" in executor or executor not in ("inline", "processes"):
            around = Work(plan.results, data, checkpoint_seconds, workers or 1)
            script = get_executor(executor).dry_run(plan.waiting, around) if plan.waiting else ""
            out.say(f"\n{script}" if script else "")
        return None
    return run_and_print(
        plan,
        file,
        ends,
        quiet,
        executor=executor,
        workers=workers,
        data_folder=data,
        weights=weights,
        allow_altered=allow_altered,
        checkpoint_seconds=checkpoint_seconds,
        isolation=isolation,
    )


def run_and_print(plan: Plan, file: Path, ends: float, quiet: bool, **how: Any) -> None:
    """Run a plan until ``ends`` and print what became of it; ``how`` is as in ``run_plan``.

    Raises:
        typer.Exit: with the exit code, unless all trials are ok.
    """
    view = audience_for(quiet)
    try:
        with listening(ends), view:
            summary = run_plan(plan, file, audience=view, **how)
    except KeyboardInterrupt as stop:
        raise typer.Exit(stopped(stop, f"{out.count(view.ended_count, 'trial')} ended")) from None
    print_summary(summary)
    if summary.failures:
        raise typer.Exit(1)


def stopped(stop: KeyboardInterrupt, ended: str = "", again: str = "the same command continues") -> int:
    """Say that a run has stopped, and what is saved; its exit code."""
    ended = f"{ended}, " if ended else ""
    if not isinstance(stop, Stopped):
        out.say(f"\nstopped at once; {ended}the running ones go back to their last checkpoints: {again}")
        return STOPPED
    late = ""
    if stop.late:
        late = f" except {stop.late}, which took too long and will go back to the last checkpoint"
    out.say(f"\nstopped ({stop.reason}); {ended}what was running is saved{late}: {again}")
    return GO_ON_LATER


def audience_for(quiet: bool) -> LiveTable | PlainLines:
    """A live table on a terminal that can redraw it, plain lines elsewhere."""
    return LiveTable(out.console()) if out.redraws() and not quiet else PlainLines()


def _print_plan(plan: Plan) -> None:
    """The trials of a study, one line each; then every method's options, which its seeds share."""
    table = out.table("id", "task", "method", "seed", "budget", "state", right=["seed"])
    for trial in plan.trials:
        state = "finished" if trial.id in plan.finished else "to run"
        table.add_row(trial.id, trial.task, trial.label, str(trial.seed), in_words(trial.budget), state)
    out.show(table)
    for (task, label), options in {(trial.task, trial.label): trial.options for trial in plan.trials}.items():
        out.say(f"\n{label} on {task}")
        out.say(f"  {', '.join(f'{name}={value_words(option)}' for name, option in options.items())}")
    say_idle(plan)
    trials = out.count(len(plan.trials), "trial")
    out.say(
        f"\n{plan.study.name}: {trials}, {len(plan.finished)} finished, {len(plan.waiting)} to run in {plan.results}"
    )


def print_summary(summary: Summary) -> None:
    """A short ranking, what failed and why, and the way to the report."""
    plan = summary.plan
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in summary.outcomes:
        record = outcome.record
        found = scores[outcome.trial.task, outcome.trial.label]
        if record.status == "ok":
            found.append(record.scores[record.headline])
    metrics = {outcome.trial.task: outcome.record.metric for outcome in summary.outcomes}
    rule = plan.study.selection[0]
    out.say()
    table = out.table("task", "method", "score", "seeds", right=["score", "seeds"])
    for (task, label), values in sorted(scores.items(), key=lambda item: (item[0][0], -_mean(item[1]))):
        metric = metrics[task]
        named = f" {metric.replace('_', ' ')}" if metric in AGREEMENTS and values else ""
        table.add_row(task, label, out.percent(_mean(values) if values else None) + named, str(len(values)))
    out.show(table)
    out.say(f"\nscore: mean over seeds of the test score of {RULES[rule]}")
    _print_unsupported(summary.unsupported)
    _print_failures(summary.failures)
    ok = summary.statuses.get("ok", 0)
    kept = f" ({summary.kept} of them before this run)" if summary.kept else ""
    again = "; the same command retries the others" if summary.failures else ""
    out.say(f"{ok} of {out.count(len(plan.trials), 'trial')} ok{kept}{again}")
    if summary.unmeasured:
        out.say(f"not measured on earlier trials: {', '.join(summary.unmeasured)}")
        out.say(f"  `dfkd score {shlex.quote(str(plan.results))}` measures them from the stored images")
    if summary.not_isolated:
        out.say(f"methods ran in the harness's own process, and are held by less: {summary.not_isolated}")
    out.say(f"records: {plan.results / 'trials'}")
    if plan.part is not None:
        whole = shlex.quote(str(plan.results).removesuffix(plan.part.suffix))
        every = f"{whole}.part-*-of-{plan.part.count}"
        return out.say(f"part {plan.part}; when all parts have run: dfkd merge {every} --out {whole}")
    return out.say(f"next: dfkd report --results {shlex.quote(str(plan.results))}")


def _print_unsupported(outcomes: list[TrialResult]) -> None:
    """What was skipped as unsupported, one line per reason."""
    reasons = Counter(outcome.record.reason for outcome in outcomes)
    for reason, number in reasons.items():
        out.say(f"skipped: {reason} ({out.count(number, 'trial')})")


def _print_failures(failures: list[TrialResult]) -> None:
    """Each reason once, then the trials that failed for it and their logs."""
    reasons: dict[tuple[str, str], list[TrialResult]] = defaultdict(list)
    for outcome in failures:
        reasons[outcome.record.status, outcome.record.reason].append(outcome)
    for (status, reason), outcomes in reasons.items():
        out.say(f"\nfailed ({status.replace('_', ' ')}): {reason}")
        for outcome in outcomes:
            log = f", log: {outcome.log}" if outcome.log else ""
            out.say(f"  {name_of(outcome.trial)} ({outcome.trial.id}){log}")
    if failures:
        out.say()


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else 0.0
