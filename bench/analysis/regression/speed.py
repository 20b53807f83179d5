"""Speed: the time of a method's step, or of a benchmark of pytest-benchmark, as a multiple of a calibration loop.

Machines differ, and one machine differs from hour to hour. The calibration is a fixed loop that no commit changes; a
benchmark divided by it is a number that moves much less. It is measured at both ends of a run, which tells whether the
machine was steady in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.analysis.regression.effects import TIME, Effect, smallest_effect
from bench.analysis.regression.verdicts import Missing, Number, ratio_number
from bench.errors import UserError
from bench.records.folder import read_json
from bench.records.foreign import parse

CALIBRATION = "test_calibration"  # benchmarks whose function is named so
STEPS = "dfkd steps 1"  # the form of a filed round of steps
DRIFT = 0.1  # a run whose calibrations differ by more is of no use
_KEPT = ("min", "median", "mean", "stddev", "rounds", "iterations")


@dataclass(frozen=True)
class Run:
    """One call of pytest-benchmark, or one round of steps."""

    file: Path
    commit: str | None
    ratios: Mapping[str, float]  # benchmark -> its time over the calibration's
    dirty: bool  # measured on a tree that differed from its commit
    drift: float  # by how much the slowest calibration took longer than the fastest, a share

    @property
    def steady(self) -> bool:
        return self.drift <= DRIFT


def round_file(times: Mapping[str, Mapping[str, Any]], commit: str, dirty: bool, when: str) -> dict[str, Any]:
    """A round of ``step_speed.py`` as it is filed: no host, no single timings. Cells that could not be timed are left
    out."""
    steps = {name: dict(each) for name, each in times.items() if "reason" not in each}
    return {"format": STEPS, "commit": commit, "dirty": dirty, "datetime": when, "steps": steps}


def _read_round(content: Mapping[str, Any], file: Path) -> Run:
    """Its calibrations are between the steps: a machine that changes its pace changes both."""
    try:
        times = {
            str(name): (float(each["seconds"]), float(each["calibration"])) for name, each in content["steps"].items()
        }
        commit, dirty = content["commit"], content["dirty"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a round of `dfkd track --speed`: {error!r}") from None
    if any(not (math.isfinite(time) and time > 0) for pair in times.values() for time in pair):
        raise UserError(f"{file}: the time of a step and of the calibration must be above 0")
    ratios = {name: seconds / loop for name, (seconds, loop) in times.items()}
    return Run(file, commit if isinstance(commit, str) else None, ratios, bool(dirty), 0.0)


def read_run(file: Path, text: str | None = None) -> Run:
    """Read what ``pytest --benchmark-json=FILE`` wrote; ``text``: the file's, where it lies in an archive.

    Of a benchmark's rounds the fastest counts: it is the one that was disturbed least. The calibration is the geometric
    mean of the fastest rounds of all benchmarks named ``test_calibration``.

    Raises:
        UserError: it is no such file, or has no calibration.
    """
    content = read_json(file) if text is None else parse(text, str(file))
    if content.get("format") == STEPS:
        return _read_round(content, file)
    try:
        times = {str(each["fullname"]): float(each["stats"]["min"]) for each in content["benchmarks"]}
        about = content.get("commit_info") or {}
        commit, dirty = about.get("id"), bool(about.get("dirty"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a file of `pytest --benchmark-json`: {error!r}") from None
    if any(not (math.isfinite(time) and time > 0) for time in times.values()):
        raise UserError(f"{file}: a benchmark's time must be above 0")
    loops = [time for name, time in times.items() if _is_calibration(name)]
    if not loops:
        raise UserError(
            f"{file} has no benchmark {CALIBRATION!r}: without it the speeds of two runs cannot be compared"
        )
    unit = math.exp(sum(map(math.log, loops)) / len(loops))
    ratios = {name: time / unit for name, time in times.items() if not _is_calibration(name)}
    known = (
        commit if isinstance(commit, str) and len(commit) in (40, 64) else None
    )  # "unversioned" outside a repository
    return Run(file, known, ratios, dirty, max(loops) / min(loops) - 1)


def reduced(content: Mapping[str, Any]) -> dict[str, Any]:
    """The part of pytest-benchmark's file that is kept: no host, no single timings."""
    cpu = _object(_object(content.get("machine_info")).get("cpu"))
    about = _object(content.get("commit_info"))
    return {
        "machine_info": {"cpu": {"brand_raw": cpu.get("brand_raw", ""), "count": cpu.get("count")}},
        "commit_info": {"id": about.get("id"), "dirty": bool(about.get("dirty"))},
        "benchmarks": [
            {"fullname": each["fullname"], "stats": {name: each["stats"].get(name) for name in _KEPT}}
            for each in content["benchmarks"]
        ],
        "datetime": content.get("datetime"),
        "version": content.get("version"),
    }


def _object(value: Any) -> Mapping[str, Any]:
    """What pytest-benchmark's hooks and other tools leave out, set to null or write in another form holds nothing."""
    return value if isinstance(value, Mapping) else {}


def compare_speed(
    base: Sequence[Run], head: Sequence[Run], own: Mapping[str, Effect]
) -> tuple[list[Number], list[Missing], list[str]]:
    """Every benchmark over the steady runs of both sides: the numbers, undecided; what one side lacks; what to know."""
    if not base and not head:
        return [], [], []
    before, after = ([run for run in runs if run.steady] for runs in (base, head))
    notes = [
        f"Left out: {len(runs) - len(steady)} of {len(runs)} benchmark runs of {side}, whose calibration drifted by "
        f"more than {100 * DRIFT:g} %."
        for side, runs, steady in (("base", base, before), ("head", head, after))
        if len(steady) < len(runs)
    ]
    effect = smallest_effect(TIME.name, own)
    assert effect is not None
    numbers, missing = [], []
    for name in sorted({name for run in (*before, *after) for name in run.ratios}):
        first, second = ([run.ratios[name] for run in runs if name in run.ratios] for runs in (before, after))
        if first and second:
            numbers.append(ratio_number(("speed", name, TIME.name), TIME, effect, first, second))
        else:
            missing.append(Missing("speed", name, TIME.name, f"not in {'head' if first else 'base'}"))
    return numbers, missing, notes


def _is_calibration(fullname: str) -> bool:
    return fullname.rpartition("::")[2].partition("[")[0] == CALIBRATION
