"""The commit that changed a number: git's own bisection in a checkout beside the user's, a cell of a study a step."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.analysis.regression.cells import numbers_of
from bench.analysis.regression.checkouts import run_filed
from bench.analysis.regression.effects import FAILURES, Effect
from bench.errors import UserError
from bench.records import Record
from bench.utils.git import SHALLOW, Commit, commit, git, is_shallow, resolve, worktree

Measure = Callable[[Path, Commit], float | None]  # the number in a checkout of a commit; None: it cannot be had
Word = Literal["good", "bad", "skip"]
ANYTHING = Effect(0.0)  # whatever a record holds can be looked for, its seconds too


@dataclass(frozen=True)
class Tried:
    """A commit that was looked at."""

    commit: Commit
    value: float | None
    word: Word


@dataclass(frozen=True)
class Found:
    """The first commit on the bad side; several, where those between could not be measured."""

    commits: tuple[Commit, ...]
    tried: tuple[Tried, ...]
    threshold: float


def bisect(
    root: Path,
    good: str,
    bad: str,
    measure: Measure,
    threshold: float | None = None,
    told: Callable[[Tried], None] = lambda _: None,
) -> Found:
    """Find the first commit of the first-parent line at which a number lies on the other side of a threshold.

    Args:
        root: the checkout; it is not touched.
        good, bad: names of commits, the first an ancestor of the second.
        measure: the number at a commit.
        threshold: between the two values; the middle of them, if not given.
        told: of every commit that was looked at.

    Raises:
        UserError: a name is unknown, good is no ancestor of bad, or the two do not differ.
    """
    first, last = resolve(root, good), resolve(root, bad)
    line = git(root, "rev-list", "--first-parent", last.sha).splitlines()
    if first.sha not in line[1:]:
        cut = f"; {SHALLOW}" if is_shallow(root) else ""
        raise UserError(
            f"{good} ({first.short}) is not an earlier commit on the line that leads to {bad} ({last.short}){cut}"
        )
    tried: list[Tried] = []
    with worktree(root, last.sha) as folder:
        low, high = _end(folder, first, measure, "good"), _end(folder, last, measure, "bad")
        border = (low + high) / 2 if threshold is None else threshold
        if low == high or (low < border) == (high < border):
            side = f"on one side of {border:g}" if low != high else "the same"
            raise UserError(f"the number is {low:g} at {first.short} and {high:g} at {last.short}: both {side}")
        tried += [Tried(first, low, "good"), Tried(last, high, "bad")]
        for each in tried:
            told(each)
        git(folder, "bisect", "start", "--first-parent", last.sha, first.sha)
        try:
            while not (named := _verdict(git(folder, "bisect", "log"))):
                here = resolve(folder, "HEAD")
                value = measure(folder, here)
                word: Word = "skip" if value is None else "bad" if (value < border) is (high < border) else "good"
                tried.append(Tried(here, value, word))
                told(tried[-1])
                _say(folder, word)
        finally:
            git(folder, "bisect", "reset")
    return Found(tuple(commit(root, sha) for sha in named), tuple(tried), border)


def cell_measure(
    study: Mapping[str, Any], place: Path, number: str, tracked: Path, extra: tuple[str, ...] = ()
) -> Measure:
    """A measure that runs a study of one cell with the checkout's own code, and files its records under the commit.

    What is filed already is not run again. A commit at which the study cannot be run, or a trial has no such number,
    has no value; how many trials failed is a number, too: ``failures``.

    Args:
        study: as written.
        place: the folder of the study, from the top of the checkout, for the paths in it.
        number: as a record names it.
        tracked: where commits are filed.
        extra: further options of `dfkd run`.
    """

    def measure(folder: Path, here: Commit) -> float | None:
        records, _ = run_filed(folder, here, study, place, tracked / here.sha, extra)
        return _value(records, number)

    return measure


def _value(records: list[Record | None], number: str) -> float | None:
    there = [
        record for record in records if record is not None and record.status not in ("missing_data", "unsupported")
    ]
    if not there or len(there) < len(records):
        return None
    if number == FAILURES.name:
        return float(sum(record.status != "ok" for record in there))
    values = [numbers_of(record, {number: ANYTHING}).get(number) for record in there if record.status == "ok"]
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if len(present) == len(records) else None


def _end(folder: Path, here: Commit, measure: Measure, word: str) -> float:
    git(folder, "checkout", "--quiet", "--detach", here.sha)
    value = measure(folder, here)
    if value is None:
        raise UserError(f"no such number at the {word} commit {here.short} ({here.subject})")
    return value


def _say(folder: Path, word: str) -> None:
    """Tell git; it exits with 2 where only skipped commits are left, which its log says as well."""
    try:
        git(folder, "bisect", word)
    except subprocess.CalledProcessError as error:
        if error.returncode != 2:
            raise


def _verdict(log: str) -> list[str]:
    """The commits that git's log names as the first bad one, or as possibly it."""
    one = re.findall(r"^# first bad commit: \[([0-9a-f]+)\]", log, flags=re.MULTILINE)
    return one or re.findall(r"^# possible first bad commit: \[([0-9a-f]+)\]", log, flags=re.MULTILINE)
