"""Published against measured: each number of a paper beside what was measured here, and whether it was given back.

A verdict is that of an equivalence test within one percentage point. What differs from the paper's run (teacher images,
teacher, options, other real images, precision) excuses a difference, and does not take back a number that was reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from bench.analysis.report.sections.groups import Group, Row, once
from bench.analysis.report.sections.leaderboard import ABSENT
from bench.analysis.report.sections.published import percent
from bench.analysis.stats import Equivalence, equivalence
from bench.errors import UserError
from bench.records import Record
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods
from bench.spec.options import value_words
from bench.spec.presets import preset
from bench.spec.published import Quoted
from bench.spec.task import tasks

TITLE = "Published against measured"
HEAD = ("Paper", "Method", "Published, %", "Measured, %", "Teacher images", "Teacher, points", "Verdict")
NOTES = (
    "Reproduced: the difference lies within one percentage point, by two one-sided t-tests at 5 % over the seeds "
    "(TOST); differs: it lies outside; not decided: neither is shown. The brackets are the 90 % interval of the "
    "difference, in points.",
    "A paper's best epoch is compared with the best evaluation here, chosen on the test set in both, its last with the "
    "last; where a paper does not say, the last. A quoted deviation counts as that of the number, where the runs "
    "behind it are not known; a number without one counts as exact.",
    "Teacher images: what was asked of the teacher, as a share of what the paper's run asks. Teacher: ours minus the "
    "paper's. Below 90 % of the images, or where the paper's are not known, with a teacher more than a point away, "
    "other options, other real images, altered data files or another precision than float32, a difference is no "
    "verdict on the paper: not comparable.",
)
MARGIN = 0.01
ENOUGH = 0.9  # share of the paper's teacher images
UNKNOWN_LENGTH = "how long the paper trained is not known"
SHOWN = 3  # options that are not the paper's

Verdict = Literal["reproduced", "differs", "not decided", "not comparable", "failed"]


@dataclass(frozen=True)
class Reproduction:
    """A quoted number and what was measured for it."""

    quoted: Quoted
    row: Row
    found: Equivalence | None  # None: no seed finished
    share: float | None  # of the paper's teacher images; None: not known
    teacher: float | None  # ours minus the paper's; None: not known
    reasons: tuple[str, ...]  # why a difference would be no verdict

    @property
    def verdict(self) -> Verdict:
        if self.found is None:
            return "failed"
        if self.found.verdict == "equivalent":
            return "reproduced"
        if self.reasons:
            return "not comparable"
        return "differs" if self.found.verdict == "different" else "not decided"

    @property
    def words(self) -> str:
        """The verdict with what is to be said of it."""
        why = (self.found.why,) if self.found is not None and self.verdict == "not decided" else self.reasons
        said = f"{' with ' if self.verdict == 'reproduced' else ': '}{'; '.join(why)}" if why else ""
        return f"{self.verdict}{said}{'' if self.quoted.quote.checked else '; the quoted number is not checked'}"


def against_table(group: Group) -> list[list[str]]:
    """A head and a line for each quoted number of a method that has a row; empty where there is none."""
    lines = against(group)
    return [list(HEAD), *map(cells, lines)] if lines else []


def cells(line: Reproduction) -> list[str]:
    """A line's texts, one for each column of ``HEAD``."""
    quote = line.quoted.quote
    return [
        quote.paper or quote.source,
        line.row.method + (f" ({quote.note})" if quote.note else ""),
        percent(quote) + {"best": " best", "last": " last", "unknown": ""}[line.quoted.quantity],
        _measured(line),
        ABSENT if line.share is None else _share(line.share),
        ABSENT if line.teacher is None else f"{100 * line.teacher:+.1f}",
        line.words,
    ]


@once
def against(group: Group) -> Sequence[Reproduction]:
    """Each quoted number of this group's task with the row that comes nearest to the paper's options."""
    return tuple(_lines(group))


def _lines(group: Group) -> Iterator[Reproduction]:
    for quote in group.published.methods:
        rows = [row for row in group.rows if row.method == quote.method]
        if not rows:
            continue
        quoted = group.published.of(quote)
        others = [_others(group, row, quoted) for row in rows]
        row, options = min(zip(rows, others, strict=True), key=lambda pair: len(pair[1]))
        scores = [_score(record, quoted) for record in row.ok]
        found = equivalence(scores, quote.score, quote.deviation, quoted.runs, MARGIN) if scores else None
        images = row.mean(lambda record: record.meter.teacher_images)
        share = images / quoted.teacher_images if images is not None and quoted.teacher_images else None
        teacher = group.teacher.score - quoted.teacher if group.teacher and quoted.teacher is not None else None
        reasons = tuple(_reasons(quoted, row, share, teacher, options))
        if found is not None and found.verdict == "different" and quoted.teacher_images is None:
            reasons = (UNKNOWN_LENGTH, *reasons)  # a shorter or longer training would explain it
        yield Reproduction(quoted, row, found, share, teacher, reasons)


def _score(record: Record, quoted: Quoted) -> float:
    """The score that the paper gives: the best on the test set, or the last."""
    wanted = "oracle" if quoted.quantity == "best" else "last"
    return record.scores.get(wanted, record.scores[record.headline])


def _reasons(
    quoted: Quoted, row: Row, share: float | None, teacher: float | None, options: Mapping[str, tuple[Any, Any]]
) -> Iterator[str]:
    """What differs from the paper's run."""
    if share is not None and share < ENOUGH:
        yield f"{_share(share)} of the teacher images"
    if teacher is not None and abs(teacher) > MARGIN:
        yield f"a teacher {100 * abs(teacher):.1f} points {'better' if teacher > 0 else 'weaker'}"
    if options:
        shown = [f"{name} {value_words(own)} ({value_words(paper)})" for name, (own, paper) in options.items()]
        left = len(shown) - SHOWN
        more = f" and {left} more option{'s' if left > 1 else ''}" if left > 0 else ""
        yield ", ".join(shown[:SHOWN]) + more
    trial = row.records[0].trial
    if quoted.quote.pool and trial.pool and trial.pool != quoted.quote.pool:
        yield f"{trial.pool} in place of {quoted.quote.pool}"
    if trial.altered_data:
        yield "altered data files"
    if trial.precision != "float32":
        yield f"{trial.precision} in place of float32"
    if quoted.form:
        yield f"another form there: {quoted.form}"


def _others(group: Group, row: Row, quoted: Quoted) -> dict[str, tuple[Any, Any]]:
    """The options of a row that are not the paper's, each with both values; none of a method that is not installed.

    On a task of one's own the paper's are the method's defaults.
    """
    card, task = _cards().get(row.method), tasks().get(group.key.task)
    if card is None:
        return {}
    presets = preset(card, task, "paper") if task is not None else {}
    plain = {**card.defaults(), **presets, **quoted.quote.options}
    own = row.records[0].trial.options
    return {
        name: (own[name], plain[name])
        for name in own
        if name in plain and name != "share" and value_words(own[name]) != value_words(plain[name])
    }


@cache
def _cards() -> Mapping[str, MethodCard]:
    try:
        return find_methods()
    except UserError:  # one of another package that cannot be read stops no report
        return {}


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"


def _measured(line: Reproduction) -> str:
    if line.found is None:
        return ABSENT
    mean = 100 * (line.quoted.quote.score + line.found.difference)
    seeds = len(line.row.ok)
    if line.found.low is None or line.found.high is None:
        return f"{mean:.2f} ({'one seed' if seeds == 1 else f'{seeds} equal'})"
    return f"{mean:.2f} ({100 * line.found.low:+.1f} to {100 * line.found.high:+.1f})"


# ---- over all studies ------------------------------------------------------------------------------------------------

ORDER: tuple[Verdict, ...] = ("reproduced", "differs", "not decided", "not comparable", "failed")
OVER_HEAD = ("Task", *HEAD, "Study")


def facts_of(group: Group) -> list[dict[str, Any]]:
    """Each line as plain values, to be kept as JSON until those of all studies are together."""
    return [
        {
            "quote": [group.key.task, line.quoted.quote.paper, line.quoted.quote.method, line.quoted.quote.note],
            "cells": cells(line),
            "at": [line.quoted.teacher_images, 100 * line.quoted.quote.score],
            "rank": [
                ORDER.index(line.verdict),
                len(line.reasons) if line.verdict in ORDER[:3] else 0,
                -(line.share or 0.0),
                -(line.row.mean(_images) or 0.0),
            ],
        }
        for line in against(group)
    ]


def over_all(studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """One line for each quoted number that any study measured, by task and paper, under a head; empty where none did.

    Of several studies the one with the firmest verdict is shown: reproduced before differs before not decided; of equal
    ones that which comes nearest to the paper's run, then that with the most teacher images.

    Args:
        studies: what :func:`facts_of` found, by the study's name.
    """
    best: dict[tuple[str, ...], tuple[list[float], str, list[str]]] = {}
    for study, found in sorted(studies.items()):
        for each in found:
            quote = tuple(each["quote"])
            if quote not in best or list(each["rank"]) < best[quote][0]:
                best[quote] = (list(each["rank"]), study, list(each["cells"]))
    lines = [[quote[0], *words, study] for quote, (_, study, words) in sorted(best.items())]
    return [list(OVER_HEAD), *lines] if lines else []


def quoted_at(studies: Iterable[Sequence[Mapping[str, Any]]], task: str) -> list[tuple[str, float, float]]:
    """What papers print of a task, where the teacher images of their runs are known: method, images and percent, each
    once, whatever was measured for it."""
    found = {
        (str(each["quote"][2]), float(each["at"][0]), float(each["at"][1])): None
        for study in studies
        for each in study
        if each["quote"][0] == task and each["at"][0]
    }
    return list(found)


def _images(record: Record) -> float:
    return record.meter.teacher_images
