"""How a method stands in a study: a row of a group, as plain values, to be put beside other studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.analysis.report.sections.groups import Row
from bench.spec.method_card import MethodCard


@dataclass(frozen=True)
class Standing:
    """A method's row in a group; plain values, to be kept as JSON. Scores in percent."""

    study: str  # its name in the site
    task: str
    group: str  # the group's name, which is its anchor on the task's page
    conditions: str  # the same where all but the budget is the same: what one line may join
    budget: dict[str, float]
    budget_words: str
    teacher: str  # in words; empty where none was loaded
    metric: str
    method: str
    title: str
    paper: str
    need: str
    label: str
    others: int  # further rows of the method in the group
    score: float
    ends: list[float]  # of the interval, or two seeds' scores; none for one seed
    score_words: str
    normalised: str
    rank: str  # among the methods with the same need of data; empty for the references
    seeds: int
    verified: int  # of these, how many ran again as recorded (`dfkd verify`)
    not_the_same: int  # and how many otherwise
    known: bool  # whether it has learnt more than guessing gives
    curve: dict[str, list[list[float]]] = field(default_factory=dict)  # on the way, by unit of the budget: x and y
    asked: list[list[float]] = field(default_factory=list)  # on the way, over teacher images: x, y and its interval

    @property
    def is_verified(self) -> bool:
        """Whether somebody ran trials of it again, and each was what its record says."""
        return self.verified > 0 and self.not_the_same == 0

    @property
    def verified_words(self) -> str:
        """What running its trials again has shown."""
        words = [f"{self.verified} of {self.seeds} verified"] if self.verified else []
        words += [f"{self.not_the_same} not the same"] if self.not_the_same else []
        return ", ".join(words) or "unverified"


def usual_row(rows: Sequence[Row], card: MethodCard | None) -> Row:
    """The row that departs from the fewest defaults; of several the one with the most seeds, then by its label."""
    defaults = card.defaults() if card else {}

    def order(row: Row) -> tuple[int, int, str]:
        options = row.records[0].trial.options
        return sum(options.get(name) != value for name, value in defaults.items()), -len(row.ok), row.label

    return min(rows, key=order)
