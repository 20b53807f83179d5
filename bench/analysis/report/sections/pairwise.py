"""Every two rows of a ranking compared seed by seed, for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Hashable, Sequence
from dataclasses import replace

from bench.analysis.report.sections.groups import Group, Row, tables_of
from bench.analysis.stats import Paired, compare_all

MOST = 20  # rows of a ranking of which all pairs are compared; of more, each with the best
HEAD = (
    *("task", "budget", "headline", "ranking", "first", "second", "seeds"),
    *("difference", "low", "high", "p", "adjusted_p", "how"),
)


def pairs_csv(groups: Sequence[Group]) -> str:
    """One line per two rows of a ranking that share a seed, the better first; differences are shares.

    Intervals are at 95 %, of the mean difference over the seeds that both have. ``adjusted_p`` is after Holm's
    correction for all pairs of the ranking that are listed. Empty where there is no pair.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    lines = 0
    for group in groups:
        for table in tables_of(group):
            rows = [row for _, row in table.ranked if row.ok]
            for (first, second), found in _compared(rows).items():
                key = (group.key.task, group.key.budget, group.key.headline, table.need)
                writer.writerow([*key, first, second, found.pairs, *_numbers(found), found.how])
                lines += 1
    return out.getvalue() if lines else ""


def _compared(rows: Sequence[Row]) -> dict[tuple[str, str], Paired]:
    scores: dict[str, dict[Hashable, float]] = {
        row.label: {record.trial.seed: record.scores[record.headline] for record in row.ok} for row in rows
    }
    if len(scores) <= MOST:
        return compare_all(scores)
    best = rows[0].label
    turned = compare_all({best: scores[best], **{name: of for name, of in scores.items() if name != best}}, best)
    return {(best, other): _turned(found) for (other, _), found in turned.items()}


def _turned(found: Paired) -> Paired:
    """The same comparison with the two sides exchanged."""
    low, high = (None if end is None else -end for end in (found.high, found.low))
    effect = None if found.effect is None else -found.effect
    return replace(found, difference=-found.difference, low=low, high=high, effect=effect)


def _numbers(found: Paired) -> list[str]:
    values = (found.difference, found.low, found.high, found.p, found.adjusted)
    return ["" if value is None else f"{value:.6g}" for value in values]
