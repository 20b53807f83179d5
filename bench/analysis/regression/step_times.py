"""The times of methods' steps: measured by the code of a checkout, filed with its commit or compared side by side."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.regression.checkouts import run_python
from bench.analysis.regression.filing import write_json
from bench.analysis.regression.speed import round_file
from bench.errors import UserError
from bench.utils.git import Commit
from bench.utils.paths import ROOT

PROGRAM = ROOT / "bench" / "execution" / "step_speed.py"  # this suite's, whatever the checkout has
ROUNDS = (
    8  # with 5 % noise a step of 1.2 times is called in more than 80 % of cases, see docs/continuous-integration.md
)
STEPS = 40  # of a trial

Times = Mapping[str, Mapping[str, Any]]  # a round: by task and method, as step_speed.py prints it


def time_steps(
    folder: Path, file: Path, rounds: int, data: Path | None = None, methods: Sequence[Path] = ()
) -> list[Times]:
    """Time the steps of a study's methods with the code of a checkout.

    Args:
        folder: the checkout.
        file: the study.
        rounds: how many times each method is timed.
        data: where to look for data sets first.
        methods: further method files.

    Raises:
        UserError: it cannot be done there, or no method could be timed; the reason is told.
        Stopped: a signal came.
    """
    asked = {
        "study": str(file.resolve()),
        "rounds": rounds,
        "steps": STEPS,
        "data": str(data.resolve()) if data else None,
        "methods": [str(each.resolve()) for each in methods],
    }
    ran = run_python(folder, "-P", str(PROGRAM), json.dumps(asked))
    if ran.returncode:
        raise UserError(f"the steps of {file} cannot be timed in {folder}: {ran.reason}")
    found: list[Times] = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    if not any("seconds" in each for times in found for each in times.values()):
        raise UserError(f"no method of {file} could be timed: {'; '.join(untimed(found).values())}")
    return found


def untimed(rounds: Sequence[Times]) -> dict[str, str]:
    """The methods that could not be timed, and why."""
    return {name: str(each["reason"]) for times in rounds for name, each in times.items() if "reason" in each}


def file_rounds(results: Path, rounds: Sequence[Times], head: Commit, dirty: bool) -> None:
    """File rounds beside the records of a commit, one file each."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for times in rounds:
        content = round_file(times, head.sha, dirty, now)
        if content["steps"]:
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            write_json(results / "speed" / f"{digest[:16]}.json", content)
