"""The figure of "What the options change": one small plot a measure, in the style of the other figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.analysis.report.figures.curves import DOTTED, FAINT, VARIANTS, Layout, at_common_places
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import GREY, GREY_LOOK, OUT, grey_handle, label_text, standing_out, symbol_text
from bench.analysis.report.figures.scatter import logarithmic, tick
from bench.analysis.report.sections.sweeps import Measure, Sweep, SweepCell

LONGEST = 16  # characters of a label on an axis
SPAN = 0.05
MANY = 30  # seeds of a cell: more are drawn as pixels inside the SVG, which else had an element for each
STEEP = 1.3  # decades: losses that fall by a factor of 20 or more are read on a logarithmic axis
BRIGHTEST = 0.85  # of the colour map: its yellow is too pale for a line


def draw_sweep(sweep: Sweep, colours: Mapping[str, str], layout: Layout = "wide") -> Figure:
    """Score, image metrics and counts by the option's value, then the logged scalars over the trial.

    Args:
        sweep: one of the group's.
        colours: by method, for the cells of other methods.
        layout: for a wide screen and for files, or for a narrow screen.
    """
    columns = 2 if layout == "narrow" else 4
    lines = -(-len(sweep.measures) // columns)
    size = (4.2 if layout == "narrow" else 9.6, 2.2 * lines + (0.9 if layout == "narrow" else 0.4))
    figure = Figure(figsize=size, layout=SteadyLayout(wspace=0.05, hspace=0.06))
    axes = figure.subplots(lines, columns, squeeze=False)
    out = standing_out(range(len(sweep.cells)), [i for i, cell in enumerate(sweep.cells) if cell.other])
    spread = _spread(sweep, out)
    looks = [_look(sweep, cell, colours, place in spread) for place, cell in enumerate(sweep.cells)]
    for axis, measure in zip(axes.flat, sweep.measures, strict=False):
        if measure.logged:
            _draw_curves(axis, measure, looks)
        else:
            _draw_dots(axis, sweep, measure, looks)
        axis.set_title(measure.title, fontsize=8.5, loc="left")
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(sweep.measures) :]:
        axis.remove()
    below: dict[str, Any] = {"loc": "outside lower center", "ncols": 2}
    beside: dict[str, Any] = {"loc": "outside right center"}
    words = [label_text(cell.label, 28) for cell in sweep.cells]
    handles = [
        Line2D([], [], **_line_look(look), marker=look["marker"], markersize=4, label=text)
        for place, (look, (text, _)) in enumerate(zip(looks, words, strict=True))
        if place in spread
    ]
    if len(spread) < len(looks):
        handles.append(grey_handle(len(looks) - len(spread)))
    title, mathematics = symbol_text(sweep.option)
    legend = figure.legend(
        handles=handles,
        title=title,
        **(below if layout == "narrow" else beside),
        fontsize=8.5,
        title_fontsize=8.5,
        handlelength=2.4,
    )
    legend.get_title().set_parse_math(mathematics)
    for entry, (_, in_label) in zip(legend.get_texts(), (words[place] for place in sorted(spread)), strict=False):
        entry.set_parse_math(in_label)
    return figure


def _draw_dots(axis: Axes, sweep: Sweep, measure: Measure, looks: Sequence[dict[str, Any]]) -> None:
    places = _places(sweep)
    for rest in sweep.rests:  # a thin line through the means, where the values have an order
        own = [i for i, cell in enumerate(sweep.cells) if not cell.other and cell.rest == rest and measure.readings[i]]
        means = [fmean(reading.value for reading in measure.readings[i]) for i in own]
        axis.plot([places[i] for i in own], means, color="#BBBBBB", linewidth=0.9, zorder=1)
    for place, readings, look in zip(places, measure.readings, looks, strict=True):
        spread = np.linspace(-0.1, 0.1, len(readings)) if len(readings) > 1 else np.zeros(len(readings))
        for reliable in {reading.reliable: None for reading in readings}:
            dots = [
                (place + x, each.value) for x, each in zip(spread, readings, strict=True) if each.reliable is reliable
            ]
            seeds: dict[str, Any] = {"marker": look["marker"], "color": look["color"], "markersize": 4.5}
            seeds |= {"mfc": look["color"] if reliable else "none", "rasterized": len(readings) > MANY}
            axis.plot(*zip(*dots, strict=True), linestyle="", **seeds, zorder=3)
        if len(readings) > 1:
            mean = fmean(reading.value for reading in readings)
            axis.plot([place - 0.22, place + 0.22], [mean, mean], color=look["color"], linewidth=1.6, zorder=2)
    texts = [_short(value, LONGEST) for value in sweep.values]
    crowded = sum(map(len, texts)) > LONGEST
    axis.set_xticks(range(len(texts)), texts, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axis.set_xlim(-0.6, len(texts) - 0.4)
    _scale(axis, [reading.value for readings in measure.readings for reading in readings])


def _draw_curves(axis: Axes, measure: Measure, looks: Sequence[dict[str, Any]]) -> None:
    for seeds, look in zip(measure.curves, looks, strict=True):
        points = [np.array(seed, dtype=float) for seed in seeds]
        if not points:
            continue
        if len(points) > 1:
            thin = np.concatenate(
                [part for seed in points for part in (seed, [(np.nan, np.nan)])]
            )  # one line with gaps
            axis.plot(*thin.T, color=look["color"], linewidth=0.6, alpha=0.45, rasterized=len(points) > MANY)
        grid, values = at_common_places(points)
        axis.plot(grid, values.mean(axis=0), **_line_look(look), marker=look["marker"], markevery=[-1], markersize=4)
    axis.set_xlim(0, 1.02)
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axis.set_xlabel("Share of the budget", fontsize=8)
    _scale(axis, [value for seeds in measure.curves for seed in seeds for _, value in seed])


def _scale(axis: Axes, values: Sequence[float]) -> None:
    """An axis over at least ``SPAN`` of the largest value: what differs by next to nothing is not to look different."""
    axis.margins(y=0.12)
    low, high = min(values), max(values)
    least = SPAN * max(abs(low), abs(high)) or 1.0
    if logarithmic(values, STEEP):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(numticks=5))
        axis.yaxis.set_minor_locator(NullLocator())
    else:
        axis.yaxis.set_major_locator(MaxNLocator(4))
        if high - low < least:
            axis.set_ylim((low + high - least) / 2, (low + high + least) / 2)
    axis.yaxis.set_major_formatter(FuncFormatter(tick))
    axis.grid(axis="y", color=FAINT)


def _places(sweep: Sweep) -> list[float]:
    """Where each cell stands on the axis: at its value, settings of the other options side by side."""
    values, rests = sweep.values, sweep.rests
    aside = np.linspace(-0.25, 0.25, len(rests)) if len(rests) > 1 else [0.0]
    return [values.index(cell.value) + (0 if cell.other else aside[rests.index(cell.rest)]) for cell in sweep.cells]


def _spread(sweep: Sweep, out: Sequence[int]) -> set[int]:
    """The places of the cells that stand out: other methods, and cells evenly from the first value to the last."""
    own = [place for place, cell in enumerate(sweep.cells) if not cell.other]
    others = [place for place, cell in enumerate(sweep.cells) if cell.other][:OUT]
    count = min(len(own), len(out) - len(others))
    steps = [round(index * (len(own) - 1) / max(1, count - 1)) for index in range(count)]
    return {*others, *(own[step] for step in steps)}


def _look(sweep: Sweep, cell: SweepCell, colours: Mapping[str, str], out: bool) -> dict[str, Any]:
    """Other methods: their own colour, diamonds and dots. Cells: a colour a value, dashes and marks a setting of the
    others. What does not stand out is grey."""
    if not out:
        return {"color": GREY, "marker": "o", "dashes": "-", "grey": True}
    if cell.other:
        others = [each.value for each in sweep.cells if each.other]
        return {
            "color": colours[cell.row.method],
            "marker": "DdHX"[others.index(cell.value) % 4],
            "dashes": DOTTED[others.index(cell.value) % len(DOTTED)],
        }
    own = list(dict.fromkeys(each.value for each in sweep.cells if not each.other))
    shade = BRIGHTEST * own.index(cell.value) / max(len(own) - 1, 1)
    dashes = VARIANTS[sweep.rests.index(cell.rest) % len(VARIANTS)]
    mark = "o^sv<>p*"[sweep.rests.index(cell.rest) % 8]
    return {"color": to_hex(matplotlib.colormaps["viridis"](shade)), "marker": mark, "dashes": dashes}


def _line_look(look: Mapping[str, Any]) -> dict[str, Any]:
    if look.get("grey"):
        return GREY_LOOK
    return {"color": look["color"], "linestyle": look["dashes"], "linewidth": 1.7}


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
