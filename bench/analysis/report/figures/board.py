"""Score against budget, over all studies of a task: one line a method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.analysis.report.figures.curve_data import dashes_of
from bench.analysis.report.figures.curves import BASELINES, VARIANTS, Layout
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import (
    GREY,
    GREY_LOOK,
    MARKS,
    count_tick,
    grey_handle,
    marks_apart,
    standing_out,
)
from bench.analysis.report.sections.standings import Standing
from bench.spec.budget import UNITS

AXES = {
    "seconds": "Budget, seconds",
    "steps": "Budget, steps",
    "teacher_images": "Budget, teacher images",
    "student_images": "Budget, student images",
    "gmacs": "Budget, GMACs",
}
APART = [2, 4]  # pixels of line and gap where a line joins what may not be compared
FAR = 4  # budgets that differ by more than this factor stand on a logarithmic axis


@dataclass(frozen=True)
class BoardLine:
    """A method on one axis. Its line goes through its budgets, or, of a single one, along the training under it."""

    x: list[float]
    y: list[float]
    dots: list[tuple[float, float, bool]]  # budget, score and whether it is verified, one for each study
    ends: list[tuple[float, list[float]]]  # budget and interval
    alike: bool  # whether all dots have the same teacher and the same rules


def units_of(found: Sequence[Standing]) -> list[str]:
    """The units in which a budget of these is stated."""
    return [unit for unit in UNITS if any(unit in each.budget for each in found)]


def methods_of(found: Sequence[Standing]) -> list[str]:
    """The methods: those without real data before the others, of each kind the best score first."""
    best: dict[str, float] = {}
    needs = {each.method: each.need != "none" for each in found}
    for each in found:
        best[each.method] = max(each.score, best.get(each.method, 0.0))
    return sorted(best, key=lambda method: (needs[method], -best[method], method))


def board_line(found: Sequence[Standing], method: str, unit: str) -> BoardLine | None:
    """A method's line over one unit of the budget; None where no budget is stated in it."""
    own = sorted((each for each in found if each.method == method and unit in each.budget), key=_order(unit))
    if not own:
        return None
    budgets = sorted({each.budget[unit] for each in own})
    x, y = budgets, [fmean(each.score for each in own if each.budget[unit] == budget) for budget in budgets]
    if len(budgets) == 1 and (curve := own[0].curve.get(unit)):
        x, y = curve
    ends = [(each.budget[unit], each.ends) for each in own if each.ends]
    alike = len({each.conditions for each in own}) == 1
    dots = [(each.budget[unit], each.score, each.is_verified) for each in own]
    return BoardLine(x, y, dots, ends, alike)


def board_looks(found: Sequence[Standing], colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The looks of the methods that stand out."""
    out = standing_out(methods_of(found), BASELINES)
    looks: dict[str, dict[str, Any]] = {}
    for method, mark in marks_apart(sorted(out), colours).items():
        dashes = VARIANTS[MARKS.index(mark) % len(VARIANTS)]
        looks[method] = {"color": colours[method], "linestyle": dashes, "linewidth": 1.7}
        looks[method] |= {"marker": mark, "markersize": 5}
    return looks


def draw_board(found: Sequence[Standing], colours: Mapping[str, str], layout: Layout = "wide") -> Figure:
    """One plot a unit of the budget.

    Args:
        found: all of one task.
        colours: by method.
        layout: for a wide screen and for files, or for a narrow screen.
    """
    units, looks = units_of(found), board_looks(found, colours)
    names = methods_of(found)
    columns = 2 if layout == "narrow" else 4
    legend = 0.2 * -(-(len(looks) + 1) // columns) + 0.15
    down, across = (len(units), 1) if layout == "narrow" else (1, len(units))
    width, height = (4.2, 3.2 * down + legend) if layout == "narrow" else (max(6.4, 4.8 * across), 3.8 + legend)
    room = (0, legend / height, 1, 1 - legend / height)
    figure = Figure(figsize=(width, height), layout=SteadyLayout(wspace=0.05, rect=room))
    axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axis, unit in zip(axes, units, strict=True):
        budgets = [each.budget[unit] for each in found if unit in each.budget]
        for method in reversed(names):
            if (line := board_line(found, method, unit)) is None:
                continue
            look = looks.get(method)
            if look is None:
                axis.plot(line.x, line.y, **(GREY_LOOK | _style(line)))
                _draw_dots(axis, line, {"color": GREY, "marker": "o", "markersize": 3})
                continue
            axis.plot(line.x, line.y, **(look | {"marker": ""} | _style(line)))
            for x, (low, high) in line.ends:
                axis.plot([x, x], [low, high], color=look["color"], linewidth=1.1)
            _draw_dots(axis, line, look)
        axis.set_xlabel(AXES[unit])
        if _is_far(found, unit):
            axis.set_xscale("log")
            axis.set_xlim(left=min(budgets) / 2)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axis.xaxis.set_minor_locator(NullLocator())
        else:
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(FuncFormatter(count_tick))
    axes[0].set_ylabel(f"Test {found[0].metric}, %")
    handles = [Line2D([], [], **looks[method], label=method) for method in names if method in looks]
    if len(looks) < len(names):
        handles.append(grey_handle(len(names) - len(looks), "other methods"))
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 0}
    figure.legend(handles=handles, ncols=columns, handlelength=2.8, fontsize=9, **place)
    return figure


def board_data(found: Sequence[Standing], colours: Mapping[str, str]) -> dict[str, Any]:
    """The same as plain values, as ``curve_data`` has them."""
    looks = board_looks(found, colours)
    lines = []
    for method in sorted(methods_of(found), key=lambda name: name not in looks):
        on = {unit: _values(line) for unit in units_of(found) if (line := board_line(found, method, unit)) is not None}
        look = looks.get(method)
        lines.append(
            {
                "label": method,
                "colour": look["color"] if look else GREY,
                "dash": dashes_of(look["linestyle"]) if look else [],
                "mark": look["marker"] if look else "",
                "on": on,
            }
        )
    return {
        "score": f"Test {found[0].metric}, %",
        "teacher": None,
        "logarithmic": [unit for unit in units_of(found) if _is_far(found, unit)],
        "axes": {unit: AXES[unit] for unit in units_of(found)},
        "lines": lines,
    }


def _draw_dots(axis: Axes, line: BoardLine, look: Mapping[str, Any]) -> None:
    """Filled where verified, hollow where nobody has run it again or it came out otherwise."""
    for x, y, verified in line.dots:
        inside = {} if verified else {"markerfacecolor": "white"}
        axis.plot([x], [y], **(dict(look) | {"linestyle": ""} | inside))


def _values(line: BoardLine) -> dict[str, Any]:
    y = [round(value, 2) for value in line.y]
    dots = [[x, y_, int(verified)] for x, y_, verified in line.dots]
    return {"x": line.x, "y": y, "low": y, "high": y, "dots": dots, "dash": [] if _joined(line) else APART}


def _joined(line: BoardLine) -> bool:
    return line.alike or len({budget for budget, _, _ in line.dots}) == 1


def _style(line: BoardLine) -> dict[str, Any]:
    return {} if _joined(line) else {"linestyle": (0, (1, 2))}


def _is_far(found: Sequence[Standing], unit: str) -> bool:
    budgets = [each.budget[unit] for each in found if unit in each.budget]
    return max(budgets) > FAR * min(budgets)


def _order(unit: str) -> Any:
    return lambda each: (each.budget[unit], -each.seeds, each.study, each.group)


def shown_units(found: Sequence[Standing]) -> Iterator[str]:
    """The words of the budgets, each once, the smallest first."""
    words = {each.budget_words: tuple(each.budget.items()) for each in found}
    yield from sorted(words, key=lambda text: words[text])
