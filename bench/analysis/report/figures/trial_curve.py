"""The curve on the page of a trial: two small plots, drawn by the page itself, and the points as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from bench.analysis.report.sections.anytime import score_key
from bench.analysis.report.sections.groups import metric_word
from bench.records import Record
from bench.records.comparable import AGREEMENTS

UNITS = {"student_images": "Student images", "seconds": "Seconds, scoring not counted"}
WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 40, 332, 12, 166  # the axes, in the units of the drawing
COLUMNS = {
    "progress": "Budget used, %",
    "seconds": "Seconds",
    "steps": "Steps",
    "teacher_images": "Teacher images",
    "student_images": "Student images",
    "gmacs": "GMACs",
    "score": "Score, %",
    "score_ema": "Score of the average, %",
    "agreement": "Agreement, %",
    "held_out_agreement": "Agreement on held-out images, %",
}
SHARES = {"progress", "score", "score_ema", "agreement", "held_out_agreement"}
ALWAYS = {"progress", "seconds", "steps", "student_images", "score"}

Curve = Sequence[Mapping[str, Any]]


def plots(record: Record, curve: Curve) -> list[dict[str, Any]]:
    """Score over student images and over seconds: where line, end and ticks lie; nothing where no score was taken."""
    key = score_key(record.headline)
    drawn = [point for point in curve if point.get(key) is not None]
    if not drawn:
        return []
    scores = [100 * point[key] for point in drawn]
    teacher = 100 * record.teacher.score if record.teacher and record.metric not in AGREEMENTS else None
    high = max([*scores, *([] if teacher is None else [teacher])])
    rows = _ticks(min(scores), high)
    found = []
    for unit, label in UNITS.items():
        spent = [float(point[unit]) for point in drawn]
        if max(spent) <= 0:
            continue
        columns = [tick for tick in _ticks(0, max(spent)) if tick <= max(spent)]
        across = [_place(value, 0, max(spent), LEFT, RIGHT) for value in spent]
        down = [_place(value, rows[0], rows[-1], BOTTOM, TOP) for value in scores]
        found.append(
            {
                "label": label,
                "line": " ".join(f"{x},{y}" for x, y in zip(across, down, strict=True)),
                "end": (across[-1], down[-1]),
                "columns": [(_place(tick, 0, max(spent), LEFT, RIGHT), _number(tick)) for tick in columns],
                "rows": [(_place(tick, rows[0], rows[-1], BOTTOM, TOP), _number(tick)) for tick in rows],
                "teacher": None if teacher is None else _place(teacher, rows[0], rows[-1], BOTTOM, TOP),
                "said": f"{metric_word(record.metric)} from {scores[0]:.1f} % to {scores[-1]:.1f} % "
                f"after {spent[-1]:,.0f} {unit.replace('_', ' ')}",
            }
        )
    return found


def points(curve: Curve, score: str = COLUMNS["score"]) -> list[list[str]]:
    """A head and a line an evaluation; columns that are empty throughout are left out.

    ``score`` is the head of the scores; where they are agreement, that stands there once.
    """
    heads = COLUMNS | {"score": score}
    if score != COLUMNS["score"]:
        heads = {name: title for name, title in heads.items() if name != "agreement"}
        heads["score_ema"] = score.replace(", %", " of the average, %")
    used = [name for name in heads if name in ALWAYS or any(point.get(name) for point in curve)]
    lines = [[_cell(name, point.get(name)) for name in used] for point in curve]
    return [[heads[name] for name in used], *lines] if lines else []


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` or below to ``high`` or above."""
    found = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high if high > low else low + 1)
    return [float(tick) for tick in found]


def _place(value: float, low: float, high: float, start: float, end: float) -> str:
    return f"{start + (end - start) * (value - low) / (high - low):.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 and value == round(value) else f"{value:g}"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "—"
    if name in SHARES:
        return f"{100 * value:.1f}"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
