"""A study in parts, for machines and queues that know nothing of each other: together they are the study."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from bench.errors import UserError
from bench.spec.trial import Trial

_WORDS = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class StudyPart:
    """Part ``number`` of ``count``, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, words: str) -> StudyPart:
        """``2/8`` is the second of eight.

        Raises:
            UserError: it is not written like this, or there is no such part.
        """
        found = _WORDS.fullmatch(words.strip())
        number, count = (int(each) for each in found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise UserError(f"--part must be a part such as 2/8, from 1/8 to 8/8, not {words}")
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def suffix(self) -> str:
        """What the name of the part's results folder ends in."""
        return f".part-{self.number}-of-{self.count}"


def part_of(trials: Sequence[Trial], part: StudyPart | None) -> list[Trial]:
    """The trials of one part; of all of them, if ``part`` is None."""
    return list(trials) if part is None else split(trials, part.count)[part.number - 1]


def split(trials: Sequence[Trial], count: int) -> list[list[Trial]]:
    """Divide trials into parts whose sizes differ by one at most, each with its share of every task and method.

    Nothing but the trials and their order decides, so that machines that share nothing divide them alike.
    """
    parts: list[list[Trial]] = [[] for _ in range(count)]
    held: list[Counter[Hashable]] = [Counter() for _ in range(count)]
    open_parts: list[int] = []  # those with one trial less than the others
    for trial in trials:
        kinds: list[Hashable] = [  # the more a trial's duration depends on it, the earlier
            ("method", trial.method),
            ("method on task", trial.task, trial.method),
            ("task", trial.task),
            ("cell", trial.task, trial.method, repr(sorted(trial.options.items()))),
        ]
        open_parts = open_parts or list(range(count))
        chosen = min(open_parts, key=lambda place: [held[place][kind] for kind in kinds])
        open_parts.remove(chosen)
        parts[chosen].append(trial)
        held[chosen].update(kinds)
    return parts
