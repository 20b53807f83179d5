"""``dfkd plan``."""

from __future__ import annotations

import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from bench.analysis.stats import seeds_to_detect, spread_limit
from bench.analysis.stats.planning import FEWEST, MOST
from bench.cli import complete, out
from bench.cli.places import BASES, results_below, searched
from bench.cli.settings import DataFolder, Json, MethodFiles, Sources
from bench.errors import UserError
from bench.execution.plan import plan_study
from bench.records import Record, load_records, open_results
from bench.spec.study import find_study
from bench.spec.trial import Trial

EXPLAINED = """
Student's t-test, two-sided, p below 0.05; for two methods 0.05 over the number of pairs on the task, the hardest
step of Holm's correction. Spread: the standard deviation over the pilots' seeds in points; for two methods, of their
differences. To be safe: with what the true spread is below with 80 % confidence, since few
pilots often show too little."""
CODE = ("method_sha", "identity_rule", "seed")  # of a trial's identity, in what pilots may differ from the study


@dataclass(frozen=True)
class Need:
    """How many seeds detect a difference: of two methods on a task, or of a method and another version of it."""

    task: str
    method: str
    other: str | None  # None: another version of the method, with other bits
    pilots: int  # seeds that both have
    spread: float | None  # standard deviation over seeds, of the differences for a pair
    seeds: int | None  # None: too few pilots, or more than MOST
    safe: int | None  # the same for the spread's upper limit
    alpha: float  # of one test
    why: str = ""


def plan(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", autocompletion=complete.studies, help="A YAML file, or a name from `dfkd list studies`."
        ),
    ],
    detect: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Say how many seeds detect a difference of this many percentage points."),
    ] = None,
    results: Sources = None,
    power: Annotated[float, typer.Option(metavar="P", help="The probability that the difference is detected.")] = 0.8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    method: MethodFiles = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Show what a study takes: its trials, their time, and how many seeds a comparison needs. Nothing is run.

    Pilots are records of the study's own trials with any seeds: same task, options and budget.
    """
    if detect is not None and not 0 < detect <= 100:
        raise UserError(f"--detect must be above 0 and at most 100 percentage points, not {detect:g}")
    if not 0 < power < 1:
        raise UserError(f"--power must be between 0 and 1, not {power:g}")
    planned = plan_study(find_study(study), device=device, method_files=method or [], data_folder=data)
    folders = searched(results) if results else [open_results(place) for base in BASES for place in results_below(base)]
    pilots = _pilots(planned.trials, folders)
    times = {key: _seconds(records.values()) for key, records in pilots.items()}
    waiting = [_key(trial.identity()) for trial in planned.waiting]
    known = [found for key in waiting if (found := times.get(key)) is not None]
    needs = _needs(planned.trials, pilots, detect / 100, power) if detect is not None else []
    facts = {
        "study": planned.study.name,
        "trials": len(planned.trials),
        "finished": len(planned.finished),
        "without_pilots": len(waiting) - len(known),
        "seconds": sum(known) if known or not waiting else None,
    }
    if as_json:
        rows = [{"what": "need", "detect": detect, "power": power, **asdict(need)} for need in needs]
        return out.print_json([{"what": "plan", **facts}, *rows])
    said = out.count(len(planned.trials), "trial")
    out.say(f"{planned.study.name}: {said}, {len(planned.finished)} finished, {len(waiting)} to run")
    if waiting:
        lacking = (
            f"; {out.count(len(waiting) - len(known), 'trial')} without a pilot" if len(known) < len(waiting) else ""
        )
        out.say(f"time, one after another: {f'about {out.duration(sum(known))}' if known else 'not known'}{lacking}")
    if detect is not None:
        _print(needs, detect, power)
    return None


def _pilots(trials: Iterable[Trial], folders: Iterable[Any]) -> dict[str, dict[int, Record]]:
    """The records of the study's trials with any seed, by what else identifies them; of one seed the latest."""
    found: dict[str, dict[int, Record]] = {_key(trial.identity()): {} for trial in trials}
    records = [record for folder in folders for record in load_records(folder) if record.status == "ok"]
    for record in sorted(records, key=lambda each: str(each.provenance.get("finished", ""))):
        key = _key(record.trial.model_dump(mode="json"))
        if key in found:
            found[key][record.trial.seed] = record
    return found


def _key(identity: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in identity.items() if name not in CODE}, sort_keys=True)


def _seconds(records: Iterable[Record]) -> float | None:
    times = [record.meter.seconds + record.meter.evaluation_seconds for record in records]
    return statistics.fmean(times) if times else None


def _needs(
    trials: Iterable[Trial], pilots: Mapping[str, Mapping[int, Record]], difference: float, power: float
) -> list[Need]:
    """Of every pair of methods of a task, then of every method by itself."""
    cells: dict[str, dict[str, dict[int, float]]] = defaultdict(dict)
    for trial in trials:
        records = pilots[_key(trial.identity())]
        rule = trial.selection[0]
        cells[trial.task].setdefault(
            trial.label, {seed: each.scores[rule] for seed, each in records.items() if rule in each.scores}
        )
    found = []
    for task, scores in cells.items():
        pairs = list(itertools.combinations(scores, 2))
        for first, second in pairs:
            shared = scores[first].keys() & scores[second].keys()
            differences = [scores[first][seed] - scores[second][seed] for seed in sorted(shared)]
            why = "" if len(shared) >= FEWEST else _few({first: scores[first], second: scores[second]}, len(shared))
            found.append(_need((task, first, second), differences, why, difference, power, 0.05 / len(pairs)))
        for name, values in scores.items():
            why = "" if len(values) >= FEWEST else _few({name: values}, len(values))
            found.append(_need((task, name, None), list(values.values()), why, difference, power, 0.05))
    return found


def _need(
    names: tuple[str, str, str | None], values: Sequence[float], why: str, difference: float, power: float, alpha: float
) -> Need:
    if why:
        return Need(*names, len(values), None, None, None, alpha, why)
    spread, paired = statistics.stdev(values), names[2] is not None
    seeds, safe = (
        seeds_to_detect(each, difference, paired=paired, power=power, alpha=alpha)
        for each in (spread, spread_limit(spread, len(values) - 1))
    )
    return Need(*names, len(values), spread, seeds, safe, alpha)


def _few(scores: Mapping[str, Mapping[int, float]], shared: int) -> str:
    have = ", ".join(f"{name} has {out.count(len(values), 'seed')}" for name, values in scores.items())
    common = f", {shared} in common" if len(scores) > 1 else ""
    return f"too few pilots: {have}{common}; {FEWEST} are needed"


def _print(needs: Sequence[Need], detect: float, power: float) -> None:
    told = [need for need in needs if not need.why]
    for pairs, title in ((True, "two methods, paired by seed"), (False, "a method and another version of it")):
        rows = [need for need in told if (need.other is not None) is pairs]
        if not rows:
            continue
        points = "point" if detect == 1 else "points"
        out.say(f"\n{title}: seeds that detect {detect:g} {points} in {100 * power:g} % of cases")
        table = out.table("task", "method", "pilots", "spread", "seeds", "to be safe", right=["pilots", "spread"])
        for need in sorted(rows, key=lambda each: each.task):
            name = need.method if need.other is None else f"{need.method} - {need.other}"
            assert need.spread is not None
            count = (_seeds(need.seeds), _seeds(need.safe))
            table.add_row(need.task, name, str(need.pilots), f"{100 * need.spread:.2f}", *count)
        out.show(table)
    if told:
        out.say(EXPLAINED)
    if few := [need for need in needs if need.why]:
        out.say()
        out.pairs([(f"{need.task}, {need.method}{f' - {need.other}' if need.other else ''}", need.why) for need in few])
        out.say(f"\nRun the study with at least {FEWEST} seeds, or name records of it with --results.")


def _seeds(count: int | None) -> str:
    return f"more than {MOST:,}" if count is None else str(count)
