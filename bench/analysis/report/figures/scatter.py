"""The figure of "Does image quality matter?": one small scatter plot a metric, in the style of the other figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.analysis.report.figures.curves import Layout
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.sections.groups import Group, metric_word
from bench.analysis.report.sections.leaderboard import budget_words
from bench.analysis.report.sections.quality import Point, Quality, qualities
from bench.analysis.report.sections.quality_text import TITLE, correlation_words, drawable, quality_caption

SHAPES = {
    "none": "o^v<>",
    "pool": "Dd",
    "train": "sXP",
}  # by data need; the later ones distinguish what shares a colour
BESIDE = 10  # names that fit beside one line of plots; more stand below
MANY = 1000  # dots: more are drawn as pixels inside the SVG, which else had an element for each
DECADES = 2  # values that span more of them stand on a logarithmic axis
SOFT = "#666666"


def draw_scatter(group: Group, colours: Mapping[str, str], layout: Layout = "file") -> Figure | None:
    """Test score in percent against each image metric; None where too little was measured of all of them.

    Args:
        group: rows that may be compared.
        colours: by method.
        layout: ``file`` stands alone, with title and caption; ``wide`` and ``narrow`` go into the page, which has both.
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
    below = 0.2 if layout == "file" and not beside else 0.0  # the caption's line, inches
    height = 2.25 * lines + 0.4 + legend + below
    room = (0, legend / height, 1, 1 - legend / height) if below else (0, 0, 1, 1)  # the caption has its own
    size = (4.2 if layout == "narrow" else 9.6, height)
    figure = Figure(figsize=size, layout=SteadyLayout(wspace=0.05, hspace=0.06, rect=room))
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axis, quality in zip(axes.flat, found, strict=False):
        _draw(axis, quality, colours, marks)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for line in axes:
        line[0].set_ylabel(f"Test {metric_word(group.key.metric)}, %")
    place: dict[str, Any] = {"loc": "outside right center"} if beside else {"loc": "outside lower center"}
    if below:
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, below / height), "borderaxespad": 0}
    figure.legend(handles=handles, **place, **({} if beside else {"ncols": entries, "fontsize": 9}))
    if layout == "file":
        small: dict[str, Any] = {"x": 0.01, "horizontalalignment": "left"}
        figure.suptitle(f"{TITLE} {group.key.task}: {budget_words(group)}", fontsize=10.5, **small)
        figure.supxlabel(quality_caption(group), fontsize=7.5, color=SOFT, **small)
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
    """The mark of each method: what it is trained on decides, and which methods of its colour come before it."""
    needs = {point.row.method: point.row.data for quality in found for point in quality.points}
    marks: dict[str, str] = {}
    for method, data in sorted(needs.items()):
        taken = sum(needs[other] == data and colours[other] == colours[method] for other in marks)
        marks[method] = SHAPES[data][taken % len(SHAPES[data])]
    return marks


def _look(point: Point, colours: Mapping[str, str], marks: Mapping[str, str]) -> dict[str, Any]:
    colour = colours[point.row.method]
    return {
        "marker": marks[point.row.method],
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
    return [Line2D([], [], **looks[name], label=name) for name in looks]
