"""The curves as data, for the page that lets a reader hover over them, hide some and change the axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.colors import to_hex

from bench.analysis.report.figures.curves import AXES, drawn_rows, line_of, looks_of
from bench.analysis.report.figures.looks import GREY
from bench.analysis.report.sections.anytime import never_asks, score_key
from bench.analysis.report.sections.groups import CurvesOf, Group, metric_word

DIGITS = 2  # of percent: what a screen can show


def curve_data(group: Group, curves: CurvesOf, colours: Mapping[str, str]) -> dict[str, Any] | None:
    """The lines and bands of the figure of curves as plain values, those that stand out first; None without any."""
    rows = drawn_rows(group)
    looks = looks_of(rows, colours)
    score = score_key(group.key.headline)
    lines = []
    for row in sorted(rows, key=lambda row: row.label not in looks):
        on = {}
        for spent in AXES:
            if spent == "teacher_images" and never_asks(row):
                continue
            if (line := line_of([curves[record.id] for record in row.ok], spent, score)) is not None:
                on[spent] = {name: _rounded(getattr(line, name)) for name in ("x", "y", "low", "high")}
        if on:
            look = looks.get(row.label)
            lines.append(
                {
                    "label": f"{row.label} †" if never_asks(row) else row.label,
                    "colour": to_hex(look["color"]) if look else GREY,
                    "dash": dashes_of(look["linestyle"]) if look else [],
                    "mark": look["marker"] if look else "",
                    "on": on,
                }
            )
    if not lines:
        return None
    return {
        "score": f"Test {metric_word(group.key.metric)}, %",
        "teacher": round(100 * group.teacher.score, DIGITS) if group.teacher else None,
        "axes": {name: label for name, label in AXES.items() if any(name in line["on"] for line in lines)},
        "lines": lines,
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def dashes_of(style: Any) -> list[float]:
    """A line style as lengths of line and gap, in pixels."""
    named: dict[str, list[float]] = {"-": [], "-.": [8, 3, 2, 3]}
    return named[style] if isinstance(style, str) else [2 * length for length in style[1]]
