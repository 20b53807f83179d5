"""A comparison for its readers: a Markdown summary for a pull request, rows for a table, objects for a machine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from bench.analysis.regression.compare import Comparison
from bench.analysis.regression.verdicts import Number, Verdict
from bench.utils.markdown import escape, line

COLUMNS = ("verdict", "task", "method", "metric", "base", "head", "difference", "95 % interval", "p", "seeds")
NUMERIC = ("base", "head", "difference", "95 % interval", "p", "seeds")
ORDER: tuple[Verdict, ...] = ("worse", "better", "changed", "not enough data", "same")
ABSENT = "—"


def headline(comparison: Comparison) -> str:
    """The outcome in one sentence."""
    counts = {"failed": len(comparison.failed)}
    counts |= {str(verdict): len(comparison.with_verdict(verdict)) for verdict in ORDER}
    identical = sum(bool(number.identical) for number in comparison.numbers)
    said = [f"{count} {verdict}" for verdict, count in counts.items() if count and verdict != "same"]
    if counts["same"]:
        said.append(f"{counts['same']} same" + (f" ({identical} of them identical)" if identical else ""))
    if comparison.missing:
        said.append(f"{len(comparison.missing)} not compared")
    return f"{'Regression' if comparison.regressed else 'No regression'}: {', '.join(said)}"


def cells(number: Number) -> list[str]:
    """A row under ``COLUMNS``."""
    interval = ABSENT
    if number.low is not None and number.high is not None:
        interval = f"{_difference(number, number.low)} to {_difference(number, number.high)}"
    verdict = f"{number.verdict} ({_identical(number)})" if number.identical else number.verdict
    return [
        verdict,
        number.task,
        number.method,
        number.metric,
        _value(number, number.base),
        _value(number, number.head),
        _difference(number, number.difference),
        interval,
        _p(number),
        str(number.pairs),
    ]


def sorted_numbers(comparison: Comparison) -> list[Number]:
    """Regressions first, what is the same last."""
    return sorted(comparison.numbers, key=lambda number: ORDER.index(number.verdict))


def markdown(comparison: Comparison) -> str:
    """The summary for a pull request: what moved in tables, the rest folded away."""
    lines = [f"## {escape(headline(comparison))}", ""]
    lines += [f"Base: {escape(comparison.base.title)}<br>Head: {escape(comparison.head.title)}", ""]
    if comparison.failed:
        lines += _turns("Failed in head, ok in base", comparison.failed)
    moved = [number for number in sorted_numbers(comparison) if number.verdict in ("worse", "better", "changed")]
    if moved:
        lines += [*_table(COLUMNS, [cells(number) for number in moved], NUMERIC), ""]
    if comparison.fixed:
        lines += _turns("Failed in base, ok in head", comparison.fixed)
    for verdict, title in (("not enough data", "Not enough data"), ("same", "Same")):
        numbers = [number for number in comparison.numbers if number.verdict == verdict]
        if numbers:
            lines += _folded(f"{title} ({len(numbers)})", _table(COLUMNS, map(cells, numbers), NUMERIC))
    if comparison.missing:
        rows = [[each.task, each.method, each.what, each.why] for each in comparison.missing]
        lines += _folded(f"Not compared ({len(rows)})", _table(("task", "method", "what", "why"), rows))
    lines += [f"- {escape(note)}" for note in (*comparison.notes, explanation(comparison))]
    return "\n".join(lines) + "\n"


def explanation(comparison: Comparison) -> str:
    """What the verdicts mean."""
    tests = sum(number.family for number in comparison.numbers)
    return (
        f"Better and worse: by at least the smallest effect that matters, and p below {comparison.alpha:g} after "
        f"Holm's correction for {tests} {'test' if tests == 1 else 'tests'} (Student's t over pairs of one seed; "
        "Welch's over runs for speed). Same: the 95 % interval is within the smallest effect that matters, or "
        "nothing differs."
    )


def objects(comparison: Comparison) -> list[dict[str, Any]]:
    """Plain objects, one per number, turn, missing thing or note; ``what`` says which it is."""
    sides = {"base": comparison.base, "head": comparison.head}
    named = {name: side.commit.sha if side.commit else str(side.folder) for name, side in sides.items()}
    regressed = {"what": "comparison", "regression": comparison.regressed, "alpha": comparison.alpha, **named}
    found: list[dict[str, Any]] = [regressed]
    for what, group in (
        ("number", sorted_numbers(comparison)),
        ("failed", comparison.failed),
        ("fixed", comparison.fixed),
    ):
        found += [{"what": what, **dataclasses.asdict(each)} for each in group]
    found += [
        {"what": "not compared", "task": each.task, "method": each.method, "number": each.what, "why": each.why}
        for each in comparison.missing
    ]
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
