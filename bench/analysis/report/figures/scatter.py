"""The figure of "Does image quality matter?": one small scatter plot a metric, in the style of the other figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.analysis.report.figures.curves import BASELINES, Layout
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import GREY, standing_out
from bench.analysis.report.sections.groups import Group, metric_word
from bench.analysis.report.sections.quality import Point, Quality, qualities
from bench.analysis.report.sections.quality_text import correlation_words, drawable

SHAPES = {
    "none": "o^v<>ph*",
    "pool": "Dd8H",
    "train": "sXP+x",
}  # by data need; the later ones tell apart what shares a colour
BESIDE = 10  # names that fit beside one line of plots; more stand below
MANY = 1000  # dots: more are drawn as pixels inside the SVG, which else had an element for each
DECADES = 2  # values that span more of them stand on a logarithmic axis
SOFT = "#666666"


def draw_scatter(group: Group, colours: Mapping[str, str], layout: Layout = "wide") -> Figure | None:
    """Test score in percent against each image metric; None where too little was measured of all of them.

    Args:
        group: rows that may be compared.
        colours: by method.
        layout: for a wide screen and for files, or for a narrow screen.
    """
    found = drawable(qualities(group))
    if not found:
        return None
    columns = 2 if layout == "narrow" else 4  # however few the metrics: a plot has the same size in all reports
    lines = -(-len(found) // columns)
    marks = marks_of(found, colours)
    handles = _handles(found, colours, marks)
    beside = layout != "narrow" and len(handles) <= BESIDE * lines  # as the curves have it
    entries = 2 if layout == "narrow" else 6
    legend = 0.0 if beside else 0.21 * -(-len(handles) // entries) + 0.1
    size = (4.2 if layout == "narrow" else 9.6, 2.25 * lines + 0.4 + legend)
    figure = Figure(figsize=size, layout=SteadyLayout(wspace=0.05, hspace=0.06))
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axis, quality in zip(axes.flat, found, strict=False):
        _draw(axis, quality, colours, marks)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for line in axes:
        line[0].set_ylabel(f"Test {metric_word(group.key.metric)}, %")
    place: dict[str, Any] = {"loc": "outside right center"} if beside else {"loc": "outside lower center"}
    figure.legend(handles=handles, **place, **({} if beside else {"ncols": entries, "fontsize": 9}))
    return figure


def _draw(axis: Axes, quality: Quality, colours: Mapping[str, str], marks: Mapping[str, str]) -> None:
    alike: dict[tuple[str, str, bool], list[Point]] = {}
    for point in quality.points:
        alike.setdefault((point.row.method, point.row.data, point.reliable), []).append(point)
    for points in alike.values():
        dots = [p.value for p in points], [100 * p.score for p in points]
        axis.plot(*dots, **_look(points[0], colours, marks), rasterized=len(quality.points) > MANY)
    axis.set_title(quality.column.head, fontsize=8.5, loc="left", pad=17)
    axis.annotate(
        f"{correlation_words(quality.all_trials)}, n {quality.all_trials.trials}",
        (0, 1),
        xytext=(0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7,
        color=SOFT,
    )
    axis.tick_params(labelsize=8)
    axis.margins(0.1)
    if logarithmic([point.value for point in quality.points]):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(numticks=4))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(FuncFormatter(tick))


def logarithmic(values: Sequence[float], decades: float = DECADES) -> bool:
    """Whether values are positive and span more than two decades, or another number of them.

    >>> logarithmic([1, 101]), logarithmic([1, 99]), logarithmic([0, 1000])
    (True, False, False)
    """
    return min(values) > 0 and max(values) / min(values) > 10**decades


def tick(value: float, _: object = None) -> str:
    return f"{value:,.4g}" if abs(value) < 1000 or abs(value) >= 1e6 else f"{value:,.0f}"


def marks_of(found: Sequence[Quality], colours: Mapping[str, str]) -> dict[str, str]:
    """The mark of each method that stands out: its data need decides, and which of its colour come before it.

    The methods that stand out are the baselines, and the best others.
    """
    rows = {point.row.label: point.row for quality in found for point in quality.points}
    best = sorted(rows.values(), key=lambda row: (row.data != "none", -(row.score[0] if row.score else 0)))
    out = set(standing_out(list(dict.fromkeys(row.method for row in best)), BASELINES))
    needs = {row.method: row.data for row in best if row.method in out}
    marks: dict[str, str] = {}
    for method, data in sorted(needs.items()):
        taken = sum(needs[other] == data and colours[other] == colours[method] for other in marks)
        marks[method] = SHAPES[data][taken % len(SHAPES[data])]
    return marks


def _look(point: Point, colours: Mapping[str, str], marks: Mapping[str, str]) -> dict[str, Any]:
    out = point.row.method in marks
    colour = colours[point.row.method] if out else GREY
    return {
        "marker": marks[point.row.method] if out else SHAPES[point.row.data][0],
        "zorder": 2.0 if out else 1.5,
        "linestyle": "",
        "markersize": 5 if point.row.data == "none" else 4.5,
        "markeredgecolor": colour,
        "markerfacecolor": colour if point.reliable else "none",
        "markeredgewidth": 1.1,
        "alpha": 0.85,
    }


def _handles(found: Sequence[Quality], colours: Mapping[str, str], marks: Mapping[str, str]) -> list[Line2D]:
    """One entry a method, in the order of the ranking."""
    rows = {point.row.label: point.row for quality in found for point in quality.points}
    methods = {row.method: row for row in sorted(rows.values(), key=lambda row: -(row.score[0] if row.score else 0))}
    looks = {name: _look(Point(row, 0.0, 0.0, True), colours, marks) for name, row in methods.items()}
    handles = [Line2D([], [], **looks[name], label=name) for name in looks if name in marks]
    grey = Line2D([], [], color=GREY, marker="o", linestyle="", markersize=4.5)
    grey.set_label(f"{len(looks) - len(marks)} other methods")
    return [*handles, grey] if len(looks) > len(marks) else handles
