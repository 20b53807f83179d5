"""A comparison for its readers: a Markdown summary for a pull request, rows for a table, objects for a machine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.analysis.regression.compare import Comparison, Outcome
from bench.analysis.regression.verdicts import MOST_SEEDS, POWER, Family, Number, Verdict
from bench.utils.markdown import escape, line

INTERVAL = "95 % interval"
COLUMNS = ("verdict", "task", "method", "metric", "base", "head", "difference", INTERVAL, "p", "seeds")
NUMERIC = ("base", "head", "difference", INTERVAL, "p", "seeds")
ORDER: tuple[Verdict, ...] = ("worse", "better", "changed", "undecided", "not worse", "same")
FAMILIES: Mapping[Family, str] = {"score": "Scores", "speed": "Speed", "other": "Other numbers"}
HEADLINES: Mapping[Outcome, str] = {
    "regression": "Regression",
    "undecided": "Undecided",
    "no regression": "No regression",
}
ABSENT = "—"


def columns(comparison: Comparison) -> tuple[str, ...]:
    """``COLUMNS``; where the looks have intervals of another level, only a sentence says which."""
    return tuple("interval" if name == INTERVAL and comparison.looks else name for name in COLUMNS)


def numeric(comparison: Comparison) -> tuple[str, ...]:
    """Those of ``columns`` that are numbers."""
    return tuple(name for name, plain in zip(columns(comparison), COLUMNS, strict=True) if plain in NUMERIC)


def headline(comparison: Comparison) -> str:
    """The outcome in a few short sentences, the verdict first."""
    said = [HEADLINES[comparison.outcome]]
    for title, group in (
        ("Failed in head", comparison.failed),
        ("Not compared", [each for each in comparison.missing if each.decides]),
        ("Open questions", comparison.questions),
    ):
        said += [f"{title}: {len(group)}"] if group else []
    for family, title in FAMILIES.items():
        numbers = [number for number in comparison.numbers if number.family == family]
        words = [_count(verdict, [each for each in numbers if each.verdict == verdict]) for verdict in ORDER]
        if any(words):
            said.append(f"{title}: {', '.join(filter(None, words))}")
    return f"{'. '.join(said)}."


def _count(verdict: Verdict, numbers: Sequence[Number]) -> str:
    identical = sum(bool(number.identical) for number in numbers)
    beside = f" ({'all' if identical == len(numbers) else identical} identical)" if identical else ""
    return f"{len(numbers)} {verdict}{beside}" if numbers else ""


def cells(number: Number) -> list[str]:
    """A row under ``COLUMNS``."""
    interval = ABSENT
    if number.low is not None and number.high is not None:
        interval = f"{_difference(number, number.low)} to {_difference(number, number.high)}"
    verdict = f"{number.verdict} ({_identical(number)})" if number.identical else number.verdict
    return [
        verdict,
        number.task,
        f"{number.method}: {number.options}" if number.options else number.method,
        number.metric,
        _value(number, number.base),
        _value(number, number.head),
        _difference(number, number.difference),
        interval,
        _p(number),
        str(number.pairs),
    ]


def sorted_numbers(comparison: Comparison) -> list[Number]:
    """Scores first, then speed; of each, regressions first and what is the same last."""
    families = list(FAMILIES)
    return sorted(comparison.numbers, key=lambda number: (families.index(number.family), ORDER.index(number.verdict)))


def untold(number: Number) -> str:
    """What remains open about an undecided number, and what it would take."""
    if number.visible is None or number.needed is None:
        if number.low is None or number.high is None:
            return number.why or "no spread"
        limits = f"{_difference(number, number.low)} to {_difference(number, number.high)}"
        return f"the {100 * number.level:.4g} % interval is {limits}; it takes more runs"
    seeds = f"more than {number.needed:,}" if number.needed >= MOST_SEEDS else f"about {number.needed:,}"
    word = "change" if number.higher_is_better is None else "loss"
    return (
        f"a {word} of {_amount(number, number.visible)} would have been found in {100 * POWER:g} % of cases; "
        f"{seeds} seeds on each side exclude one of {_amount(number, number.smallest)}"
    )


def markdown(comparison: Comparison) -> str:
    """The summary for a pull request: the verdict, what moved, what remains undecided; the rest folded away."""
    names, right = columns(comparison), numeric(comparison)
    lines = [f"## {escape(headline(comparison))}", ""]
    lines += [f"Base: {escape(comparison.base.title)}<br>Head: {escape(comparison.head.title)}", ""]
    if comparison.failed:
        lines += _turns("Failed in head, ok in base", comparison.failed)
    numbers = sorted_numbers(comparison)
    moved = [number for number in numbers if number.verdict in ("worse", "better", "changed")]
    if moved:
        lines += ["### What moved", "", *_table(names, [cells(number) for number in moved], right), ""]
    if rows := untold_rows(comparison):
        lines += ["### What remains undecided", "", *_table(UNTOLD, rows), ""]
    if comparison.fixed:
        lines += _turns("Failed in base, ok in head", comparison.fixed)
    for title, group in (
        ("Other undecided numbers", [each for each in numbers if each.verdict == "undecided" and _folds(each)]),
        ("Not worse", [each for each in numbers if each.verdict == "not worse"]),
        ("Same", [each for each in numbers if each.verdict == "same" and not (each.identical and _folds(each))]),
    ):
        if group:
            lines += _folded(f"{title} ({len(group)})", _table(names, map(cells, group), right))
    if informs := [each for each in comparison.missing if not each.decides]:
        rows = [[each.task, each.method, each.what, each.why] for each in informs]
        lines += _folded(f"Also not compared ({len(rows)})", _table(UNTOLD, rows))
    if identical := sum(bool(each.identical) and _folds(each) for each in numbers):
        lines.append(f"- {identical} other number{'s are' if identical > 1 else ' is'} identical.")
    lines += [f"- {escape(note)}" for note in (*comparison.notes, explanation(comparison))]
    return "\n".join(lines) + "\n"


UNTOLD = ("task", "method", "what", "why")


def untold_rows(comparison: Comparison) -> list[list[str]]:
    """Under ``UNTOLD``: the scores and speeds that are undecided, what was not compared, and the open questions."""
    rows = [
        [number.task, number.method, number.metric, untold(number)]
        for number in sorted_numbers(comparison)
        if number.verdict == "undecided" and not _folds(number)
    ]
    rows += [[each.task, each.method, each.what, each.why] for each in comparison.missing if each.decides]
    return rows + [[each.task, ABSENT, each.text, f"if so: {each.answer}"] for each in comparison.questions]


def _folds(number: Number) -> bool:
    return number.family == "other"


def explanation(comparison: Comparison) -> str:
    """What the verdicts mean."""
    counts = dict.fromkeys(FAMILIES, 0)
    for number in comparison.numbers:
        counts[number.family] += number.tested
    tests = ", ".join(f"{FAMILIES[family].lower()} {count}" for family, count in counts.items() if count) or "none"
    looks = ""
    if comparison.looks:
        seeds = ", ".join(map(str, comparison.looks))
        looks = (
            f"{len(comparison.looks)} looks were planned, at {seeds} seeds: the p of a score or another number must be "
            f"below {comparison.each_alpha:.2g}, and its interval is one of {100 * comparison.level:.4g} %. "
        )
    return (
        f"{looks}Better and worse: by at least the smallest effect that matters, and p below {comparison.alpha:g} "
        f"after Holm's correction within scores, speed and other numbers (tests: {tests}; Student's t over pairs of "
        "one seed and over the seeds of both sides, Welch's over runs for speed; p is one-sided). Same: the interval "
        "is within the smallest effect that matters, or nothing differs. Not worse: it excludes a loss that matters. "
        "Scores and speed decide, other numbers inform."
    )


def objects(comparison: Comparison) -> list[dict[str, Any]]:
    """Plain objects, one per number, turn, question, missing thing or note; ``what`` says which it is."""
    sides = {"base": comparison.base, "head": comparison.head}
    named = {name: side.commit.sha if side.commit else str(side.folder) for name, side in sides.items()}
    outcome = comparison.outcome
    first: dict[str, Any] = {
        "what": "comparison",
        "outcome": outcome,
        "regression": outcome == "regression",
        "alpha": comparison.alpha,
    }
    first |= {"looks": list(comparison.looks), "level": comparison.level}
    found: list[dict[str, Any]] = [{**first, **named}]
    for number in sorted_numbers(comparison):
        facts = dataclasses.asdict(number)
        for name in ("tests", "spreads", "unlike"):
            del facts[name]
        found.append({"what": "number", **facts})
    for what, group in (("failed", comparison.failed), ("fixed", comparison.fixed), ("question", comparison.questions)):
        found += [{"what": what, **dataclasses.asdict(each)} for each in group]
    for each in comparison.missing:
        about = {"task": each.task, "method": each.method, "number": each.what, "why": each.why}
        found.append({"what": "not compared", **about, "decides": each.decides})
    return [*found, *({"what": "note", "text": note} for note in comparison.notes)]


def plain_number(value: float, unit: str) -> str:
    """A value with its unit where that is short: shares in percent, others with four digits.

    >>> plain_number(0.9132, "share"), plain_number(13123.0, "images"), plain_number(22.7804, "squared distance")
    ('91.3 %', '13,123', '22.78')
    """
    if unit == "share":
        return f"{100 * value:.1f} %"
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}" if digits < 8 else f"{value:.3g}"


def _value(number: Number, value: float) -> str:
    return plain_number(value, number.unit)


def _difference(number: Number, value: float) -> str:
    """Percentage points for shares, a share of the base for others where there is a base."""
    sign = "+" if value > 0 else ""
    if number.unit == "share":
        return f"{sign}{100 * value:.2f}"
    if number.base:
        return f"{sign}{100 * value / abs(number.base):.1f} %"
    return f"{sign}{plain_number(value, number.unit)}"


def _amount(number: Number, value: float) -> str:
    """A size without sign: points for shares."""
    if number.unit != "share":
        return plain_number(value, number.unit)
    text = f"{100 * value:.2g}"
    return f"{text} point{'' if text == '1' else 's'}"


def _p(number: Number) -> str:
    if number.identical:
        return ABSENT
    if number.adjusted is None:
        return number.why or "no spread"
    return f"{number.adjusted:.2g}"


def _identical(number: Number) -> str:
    return "identical bits" if number.identical == "bits" else "identical"


def _turns(title: str, turns: Sequence[Any]) -> list[str]:
    rows = [
        [turn.task, turn.method, str(turn.seed), f"{turn.before} -> {turn.after}".replace("_", " "), turn.reason]
        for turn in turns
    ]
    return [f"{title}:", "", *_table(("task", "method", "seed", "status", "reason"), rows), ""]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    rule = ["--:" if column in right else "---" for column in columns]
    return [line(columns), line(rule), *(line([escape(text) for text in row]) for row in rows)]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    return [f"<details><summary>{escape(title)}</summary>", "", *lines, "", "</details>", ""]
