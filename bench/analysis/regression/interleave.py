"""Two commits timed in turn on one machine: a verdict on seconds, for which no calibration has to stand in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.analysis.regression.checkouts import study_in
from bench.analysis.regression.effects import STEP_SECONDS, Effect, smallest_effect
from bench.analysis.regression.step_times import Times, time_steps, untimed
from bench.analysis.regression.verdicts import Missing, Number, paired_ratio_number
from bench.utils.git import Commit, worktree
from bench.utils.stopping import listening

Told = Callable[[int], None]  # of the rounds that are done


def interleave(
    root: Path,
    commits: tuple[Commit, Commit],
    study: Mapping[str, Any],
    place: Path,
    rounds: int,
    data: Path | None = None,
    own: Mapping[str, Effect] | None = None,
    told: Told = lambda done: None,  # noqa: ARG005
) -> tuple[list[Number], list[Missing]]:
    """Time the steps of a study's methods at both commits, each in a checkout and, every round, a process of its own.

    A round has both commits, right after each other; which is the first changes from round to round, so that a machine
    that becomes slower steadily favours neither. Rounds are pairs.

    Args:
        root: the checkout; it is not touched.
        commits: the earlier and the later one; their checkouts are gone at every end.
        study: as written.
        place: the folder of the study, from the top of the checkout, for the paths in it.
        rounds: how many; at least 3.
        data: where to look for data sets first.
        own: smallest effects by metric, in place of the suite's.
        told: of every round that is done.

    Returns:
        The numbers, undecided; and the methods that only one of the commits could be timed with, or none.

    Raises:
        UserError: a commit cannot be checked out, or its steps cannot be timed.
        Stopped: a signal came.
    """
    times: tuple[list[Times], list[Times]] = ([], [])
    with listening(), worktree(root, commits[0].sha) as before, worktree(root, commits[1].sha) as after:
        for number in range(rounds):
            sides = list(zip((before, after), times, strict=True))
            for folder, found in sides if number % 2 == 0 else reversed(sides):
                with study_in(folder, place, study) as file:
                    found += time_steps(folder, file, 1, data)
            told(number + 1)
    return _numbers(times, own or {})


def _numbers(times: tuple[list[Times], list[Times]], own: Mapping[str, Effect]) -> tuple[list[Number], list[Missing]]:
    effect = smallest_effect(STEP_SECONDS.name, own)
    assert effect is not None
    numbers, missing = [], []
    reasons = [untimed(side) for side in times]
    for name in dict.fromkeys(name for side in times for each in side for name in each):
        pairs = [
            (float(a[name]["seconds"]), float(b[name]["seconds"]))
            for a, b in zip(*times, strict=True)
            if "seconds" in a.get(name, {}) and "seconds" in b.get(name, {})
        ]
        if pairs:
            first, second = ([pair[side] for pair in pairs] for side in (0, 1))
            numbers.append(paired_ratio_number(("speed", name, STEP_SECONDS.name), STEP_SECONDS, effect, first, second))
        else:
            why = "; ".join(
                f"in {side}: {found.get(name, 'not in the study')}"
                for side, found, each in zip(("base", "head"), reasons, times, strict=True)
                if not any("seconds" in one.get(name, {}) for one in each)
            )
            missing.append(Missing("speed", name, STEP_SECONDS.name, f"could not be timed {why}", decides=True))
    return numbers, missing
