"""Line plots along one option: the mean over all cells with a value, and how far they are spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.analysis.report.figures.curves import VARIANTS, Layout
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import GREY_LOOK, MARKS, marks_apart, standing_out, symbol_text
from bench.analysis.report.figures.scatter import SOFT, tick
from bench.analysis.report.sections.groups import Group, metric_word
from bench.analysis.report.sections.image_metrics import columns_of
from bench.analysis.report.sections.option_axis import OptionAxis, Place
from bench.analysis.report.sections.sensitivity_cells import Grid, Sensitivity
from bench.records import Record

ACROSS = {"wide": 4, "narrow": 1}  # plots in a line
TICKS, LETTERS = 8, 28  # values of an option that are written below it, and their letters, if they are no more


@dataclass(frozen=True)
class Plot:
    """One number of the trials along one option."""

    title: str
    option: OptionAxis
    get: Callable[[Record], float | None]


def plots_of(of: Sensitivity, group: Group) -> list[Plot]:
    """The score along every option; where there is one option alone, the image metrics as well."""
    score = f"Test {metric_word(group.key.metric)}, %"
    plots = [Plot(score, of.axis(name), lambda record: 100 * record.scores[record.headline]) for name in of.options]
    if len(of.options) == 1:
        for column in columns_of(group):

            def value(record: Record, column: Any = column) -> float | None:
                entry = column.entry(record)
                return None if entry is None else entry.value

            if any(value(record) is not None for grid in of.grids for row in grid.cells for record in row.ok):
                plots.append(Plot(column.head, plots[0].option, value))
    return plots


def readings(grid: Grid, plot: Plot, place: Place) -> list[float]:
    """What was measured of the trials at one place; over the other options and the seeds."""
    records = [record for row in grid.where(**{plot.option.name: place}) for record in row.ok]
    return [value for record in records if (value := plot.get(record)) is not None]


def draw_lines(of: Sensitivity, group: Group, colours: Mapping[str, str], layout: Layout = "wide") -> Figure:
    """One plot an option, or a measure of one option; a line with a band for each method.

    Args:
        of: one of the group's; at least one of its cells has a score.
        group: where it comes from.
        colours: by method; its versions differ in their dashes.
        layout: for a wide screen and for files, or for a narrow screen.
    """
    plots = plots_of(of, group)
    columns = min(ACROSS[layout], max(2, len(plots))) if layout != "narrow" else 1
    lines = -(-len(plots) // columns)
    looks = _looks(of, colours)
    size = (4.2 if layout == "narrow" else 9.6, (2.3 if layout == "narrow" else 2.7) * lines + 0.35)
    figure = Figure(figsize=size, layout=SteadyLayout(wspace=0.05, hspace=0.06))
    axes = figure.subplots(lines, columns, squeeze=False)
    for number, (axis, plot) in enumerate(zip(axes.flat, plots, strict=False)):
        for shift, grid in enumerate(of.grids):
            _draw(axis, grid, plot, looks[grid.name], (shift - (len(of.grids) - 1) / 2) * 0.12)
        _finish(axis, plot)
        if len(of.options) == 1:
            axis.set_title(plot.title, fontsize=8.5, loc="left")
        elif number % columns == 0:
            axis.set_ylabel(plot.title, fontsize=8.5)
    if len(of.options) > 1:
        _share_y(list(axes.flat)[: len(plots)])
    for axis in axes.flat[len(plots) :]:
        axis.remove()
    if len(of.grids) > 1:
        handles = [Line2D([], [], **looks[grid.name], label=grid.name) for grid in of.grids]
        figure.legend(handles=handles, loc="outside lower center", ncols=2 if layout == "narrow" else 6, fontsize=8.5)
    return figure


def _draw(axis: Axes, grid: Grid, plot: Plot, look: Mapping[str, Any], shift: float) -> None:
    known = [(place, found) for place in plot.option.places if (found := readings(grid, plot, place))]
    means = [fmean(found) for _, found in known]
    spread = [stdev(found) if len(found) > 1 else 0.0 for _, found in known]
    where = [_where(plot.option, place, shift) for place, _ in known]
    if plot.option.numbers:
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        axis.fill_between(where, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axis.plot(where, means, **look)
    else:
        axis.errorbar(where, means, yerr=spread, **(dict(look) | {"linestyle": ""}), capsize=3)
    cells = {place: grid.where(**{plot.option.name: place}) for place in plot.option.places}
    lost = [place for place, rows in cells.items() if any(len(row.ok) < len(row.records) for row in rows)]
    if lost:
        crosses = {"color": look["color"], "markersize": 5, "transform": axis.get_xaxis_transform()}
        axis.plot([_where(plot.option, place, shift) for place in lost], [0.03] * len(lost), "x", **crosses)


def _where(option: OptionAxis, place: Place, shift: float) -> float:
    return place.at if option.numbers and place.at is not None else option.places.index(place) + shift


def _finish(axis: Axes, plot: Plot) -> None:
    option = plot.option
    axis.tick_params(labelsize=8)
    words, mathematics = symbol_text(option.name)
    axis.set_xlabel(words, fontsize=8.5, color=SOFT, parse_math=mathematics)
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_formatter(FuncFormatter(tick))
    if not option.numbers:
        axis.set_xticks(range(len(option.places)), [place.text for place in option.places])
        axis.set_xlim(-0.5, len(option.places) - 0.5)
    elif option.logarithmic:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
        if option.edges or _crowded(option):
            axis.xaxis.set_major_locator(LogLocator(numticks=5))
            axis.xaxis.set_major_formatter(FuncFormatter(tick))
        else:
            axis.set_xticks([place.at or 0.0 for place in option.places], [place.text for place in option.places])
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(FuncFormatter(tick))


def _crowded(option: OptionAxis) -> bool:
    """Whether the values' texts would not stand one beside the other."""
    logs = [math.log(place.at or 1.0) for place in option.places]
    narrow = min(b - a for a, b in pairwise(logs)) < 0.6 * (logs[-1] - logs[0]) / (len(logs) - 1)
    return narrow or len(logs) > TICKS or sum(len(place.text) for place in option.places) > LETTERS


def _share_y(axes: Sequence[Axes]) -> None:
    """One scale of the score for all options: the steep one is the one that matters."""
    low, high = min(axis.get_ylim()[0] for axis in axes), max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(max(0.0, low), min(101.5, high))


def _looks(of: Sensitivity, colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Colour by method; marks and dashes for what shares one. More than stand out are grey."""
    names = [grid.name for grid in of.grids]
    tints = {grid.name: colours[grid.method] for grid in of.grids}
    looks: dict[str, dict[str, Any]] = dict.fromkeys(names, GREY_LOOK)
    for name, mark in marks_apart(standing_out(names), tints).items():
        dashes = VARIANTS[MARKS.index(mark) % len(VARIANTS)]
        looks[name] = {"color": tints[name], "linestyle": dashes, "marker": mark, "markersize": 3.5}
    return looks
