"""A sweep in parallel coordinates: an axis an option and one for the score, a line a cell. SVG, drawn by the page."""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.colors import to_hex

from bench.analysis.report.figures.ranking import ticks_of
from bench.analysis.report.sections.groups import Group, Row, metric_word
from bench.analysis.report.sections.sensitivity_cells import Grid, Sensitivity, value_of
from bench.analysis.report.sections.sweeps import value_text

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 700, 34, 270
MOST = 300  # lines: of more cells the best, and others evenly down to the worst
METHOD = "method"


def parallel(of: Sensitivity, group: Group, anchor: str) -> dict[str, Any] | None:
    """The view of one set of options; None where there is one option alone, or fewer than four cells.

    Args:
        of: one of the group's.
        group: where it comes from.
        anchor: tells it apart on its page.
    """
    cells = [(grid, row) for grid in of.grids for row in grid.cells if row.score]
    if len(of.options) < 2 or len(cells) < 4:
        return None
    cells.sort(key=lambda each: (-_score(each[1]), each[0].name, each[0].words(each[1])))
    shown = cells if len(cells) <= MOST else _evenly(cells)
    scores = [_score(row) for _, row in cells]
    ticks = ticks_of(scores)
    axes = [*([METHOD] if len(of.grids) > 1 else []), *of.options]
    across = [LEFT + (RIGHT - LEFT) * place / len(axes) for place in range(len(axes) + 1)]
    choices = {name: _choices(of, name) for name in axes}
    return {
        "kind": "parallel",
        "id": anchor,
        "size": (WIDTH, HEIGHT),
        "ends": (TOP, BOTTOM),
        "axes": [
            {"name": name, "x": f"{x:.1f}", "places": [(text, f"{y:.1f}") for text, y in choices[name]]}
            for name, x in zip(axes, across, strict=False)
        ],
        "score": {
            "name": f"Test {metric_word(group.key.metric)}, %",
            "x": f"{across[-1]:.1f}",
            "places": [(f"{tick:g}", f"{_down(tick, ticks):.1f}") for tick in ticks],
            "low": f"{min(scores):.1f}",
            "high": f"{max(scores):.1f}",
        },
        "lines": [_line(of, grid, row, axes, across, choices, ticks, scores) for grid, row in reversed(shown)],
        "said": f"{len(shown)} of {len(cells)} cells" if len(shown) < len(cells) else f"All {len(cells)} cells",
        "options": of.title,
    }


def _line(
    of: Sensitivity,
    grid: Grid,
    row: Row,
    axes: list[str],
    across: list[float],
    choices: dict[str, list[tuple[str, float]]],
    ticks: list[float],
    scores: list[float],
) -> dict[str, Any]:
    score, low, high = _score(row), min(scores), max(scores)
    at = {name: grid.name if name == METHOD else _text(of, row, name) for name in axes}
    down = [dict(choices[name])[at[name]] if name == METHOD else _along(of, row, name) for name in axes]
    points = [*zip(across, down, strict=False), (across[-1], _down(score, ticks))]
    shade = 0.85 * (score - low) / (high - low) if high > low else 0.85
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        "colour": to_hex(matplotlib.colormaps["viridis"](shade)),
        "score": f"{score:.2f}",
        "values": [at[name] for name in axes],
        "said": f"{grid.name}, {grid.words(row)}: {score:.1f} %",
    }


def _score(row: Row) -> float:
    assert row.score is not None
    return 100 * row.score.value


def _evenly(cells: list[tuple[Grid, Row]]) -> list[tuple[Grid, Row]]:
    return [cells[round(place * (len(cells) - 1) / (MOST - 1))] for place in range(MOST)]


def _choices(of: Sensitivity, name: str) -> list[tuple[str, float]]:
    """The places of an axis as text and height."""
    if name == METHOD:
        names = [grid.name for grid in of.grids]
        return [(each, _between(place, len(names))) for place, each in enumerate(names)]
    axis = of.axis(name)
    ends = _ends(of, name)
    if not axis.numbers:
        return [(place.text, _between(number, len(axis.places))) for number, place in enumerate(axis.places)]
    return [(place.text, _share(axis.scaled(place.at), ends)) for place in axis.places]


def _text(of: Sensitivity, row: Row, name: str) -> str:
    """The place that a cell has on an axis, as text."""
    value = value_of(row, name)
    return next((place.text for place in of.axis(name).places if value in place.values), value_text(value))


def _along(of: Sensitivity, row: Row, name: str) -> float:
    axis = of.axis(name)
    value = axis.scaled(value_of(row, name))
    return _share(value, _ends(of, name)) if axis.numbers else _between(int(value), len(axis.places))


def _ends(of: Sensitivity, name: str) -> tuple[float, float]:
    axis = of.axis(name)
    values = [axis.scaled(value) for grid in of.grids for value in grid.values(name)]
    return min(values), max(values)


def _share(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return BOTTOM - (BOTTOM - TOP) * ((value - low) / (high - low) if high > low else 0.5)


def _between(place: int, count: int) -> float:
    return BOTTOM - (BOTTOM - TOP) * (place / (count - 1) if count > 1 else 0.5)


def _down(score: float, ticks: list[float]) -> float:
    return _share(score, (ticks[0], ticks[-1]))
