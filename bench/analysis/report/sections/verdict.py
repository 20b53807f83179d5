"""Who wins, by how much and how sure that is: a sentence for each ranking, and the ranking itself as rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from bench.analysis.report.sections import leaderboard
from bench.analysis.report.sections.groups import CEILING, FLOOR, Group, Row, Table, once, tables_of
from bench.analysis.report.sections.sensitivity_numbers import chance_level
from bench.analysis.stats import compare_all

ALPHA = 0.05
NAMED, LONG = 6, 100  # methods that a verdict names, and letters; pairs.csv has all
BEYOND, WITHIN = "beyond chance", "within chance"
AMONG = {
    "none": "without real data",
    "pool": "with other real images",
    "train": "on the training images",
}


@dataclass(frozen=True)
class LeadVerdict:
    """What is said of one ranking."""

    need: str
    row: Row  # the best
    known: bool  # whether it has learnt more than guessing gives
    score: str  # in percent, with its interval
    lead: str  # how far it is ahead of the second; empty where there is none
    way: str  # how far it is on the way from noise to kd; empty where that is not known
    chance: str  # whether it is ahead of the second beyond chance, in words; empty where there is no second
    sure: str  # against how many of the others it is better, beyond chance, and which

    @property
    def sentence(self) -> str:
        """All of it, without whom it beats."""
        among = AMONG[self.need]
        if not self.known:
            return f"Nobody leads {among}: {self.row.label} is best at {self.score}, and {self.sure}."
        if not self.chance:
            parts = [self.score, *([self.way] if self.way else [])]
            return f"{self.row.label} is the only one {among}: {', '.join(parts)}."
        verb = "leads" if self.chance == BEYOND else "is ahead"
        parts = [
            self.score,
            *([f"{self.lead} ({self.chance})"] if self.lead else []),
            *([self.way] if self.way else []),
        ]
        return f"{self.row.label} {verb} {among}: {', '.join(parts)}."


@once
def verdicts(group: Group) -> list[LeadVerdict]:
    """One for each ranking in which a row has a score, data-free methods first; noise leads only where it is alone."""
    found = [each for table in tables_of(group) if (each := _verdict(group, table)) is not None]
    return [each for each in found if each.row.method != FLOOR or each.chance] or found


def leading(group: Group) -> LeadVerdict | None:
    """The verdict on the data-free methods, or on those with other real images where these alone are compared."""
    return next((found for found in verdicts(group) if found.need != "train"), None)


def _verdict(group: Group, table: Table) -> LeadVerdict | None:
    ranking = [row for _, row in table.ranked if row.ok]
    if not ranking:
        return None
    best, chance = ranking[0], chance_level(group)
    known = best.score is not None and (chance is None or best.score.value > chance)
    clear = _clear(ranking)
    return LeadVerdict(
        table.need,
        best,
        known,
        percent_words(best),
        _lead(ranking) if known else "",
        _way(group, best) if known else "",
        _chance(ranking, clear) if known else "",
        _sure(ranking, clear, table.need) if known else "no method has learnt more than guessing gives",
    )


def percent_words(row: Row) -> str:
    """A row's score with its unit: ``91.0 % (88.2 to 93.2)``."""
    mean, bracket, rest = leaderboard.score_words(row).partition(" ")
    return f"{mean} %{bracket}{rest}" if row.score else mean


def _lead(ranking: Sequence[Row]) -> str:
    first, second = ranking[0].score, ranking[1].score if len(ranking) > 1 else None
    if first is None or second is None:
        return ""
    points = f"{100 * (first.value - second.value):.1f}"
    return f"level with {ranking[1].label}" if points == "0.0" else f"{points} points above {ranking[1].label}"


def _way(group: Group, best: Row) -> str:
    share = group.normalised(best)
    if share is None or best.method in (FLOOR, CEILING):
        return ""
    return f"{100 * share:.0f} % of the way from {FLOOR} to {CEILING}"


def _clear(ranking: Sequence[Row]) -> set[str]:
    """The labels of those that the first is better than, beyond chance."""
    best = ranking[0]
    if len(ranking) < 2 or len(best.ok) == 1:
        return set()
    scores: dict[str, dict[Hashable, float]] = {
        row.label: {record.trial.seed: record.scores[record.headline] for record in row.ok} for row in ranking
    }
    compared = compare_all(scores, against=best.label, level=None)
    return {
        name
        for (name, _), each in compared.items()
        if each.adjusted is not None and each.adjusted < ALPHA and each.difference < 0
    }


def _chance(ranking: Sequence[Row], clear: set[str]) -> str:
    if len(ranking) < 2:
        return ""
    if len(ranking[0].ok) == 1:
        return "one seed, so chance cannot be assessed"
    return BEYOND if ranking[1].label in clear else WITHIN


def _sure(ranking: Sequence[Row], better: set[str], need: str) -> str:
    """Against how many of the others the first is better, beyond chance."""
    best, others = ranking[0], ranking[1:]
    if not others:
        kind = "data-free method" if need == "none" else "such method"
        return f"no other {kind} to compare with"
    if len(best.ok) == 1:
        return "one seed: chance cannot be assessed"
    clear = [row.label for row in others if row.label in better]
    unclear = [row.label for row in others if row.label not in better]
    said = f"better than {len(clear)} of {len(others)} others beyond chance, {len(best.ok)} seeds"
    named = f": {_few(clear)}" if clear else ""
    return f"{said}{named}" + (f"; not distinguishable from {_few(unclear)}" if unclear else "")


def _few(names: Sequence[str]) -> str:
    shown = [
        name for place, name in enumerate(names[:NAMED]) if place == 0 or len(", ".join(names[: place + 1])) <= LONG
    ]
    return f"{', '.join(shown)}{f' and {len(names) - len(shown)} more' if len(names) > len(shown) else ''}"
