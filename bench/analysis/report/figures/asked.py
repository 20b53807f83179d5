"""Score against teacher images, over all studies of a task, on a logarithmic axis: where each method arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.analysis.report.figures.curves import BASELINES, VARIANTS, Layout, colours_of
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import GREY_LOOK, MARKS, count_tick, grey_handle, marks_apart, standing_out
from bench.analysis.report.sections.standings import Standing

SPAN = 10  # there is a figure where the longest training has so many times the teacher images of the shortest
SHORTER = 3  # of a method's trainings one is drawn beside a longer one where that has so many times its images
STAR: dict[str, Any] = {"linestyle": "", "marker": "*", "markersize": 11, "markeredgecolor": "white", "zorder": 4}
CAPTION = (
    "Each line is a method in one study: the student's test score while it was trained, as the mean over seeds with "
    "its interval. The longest of a method's studies has the strong line; shorter ones, whose schedules end earlier, "
    "are thin. Studies differ in options, teacher and precision; their reports say how. Stars: what papers print, at "
    "the teacher images that their runs ask for. In colour: the baselines and the longest trainings."
)


@dataclass(frozen=True)
class AskedLine:
    """A method in one study, over the teacher images that were asked for; ``longest``: of the method's studies."""

    method: str
    longest: bool
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def asked_lines(found: Sequence[Standing]) -> list[AskedLine]:
    """Of each method the longest training, and shorter ones that are at most a third of the next longer one drawn.

    The longest first. Of equally long ones that with the most seeds is drawn. A method that asks no teacher has none.
    """
    lines: list[AskedLine] = []
    shortest: dict[str, float] = {}
    for each in sorted(found, key=lambda each: (-_end(each), -each.seeds, each.study, each.group)):
        before = shortest.get(each.method)
        if not each.asked or (before is not None and SHORTER * _end(each) > before):
            continue
        shortest[each.method] = _end(each)
        lines.append(AskedLine(each.method, before is None, *each.asked))
    return lines


def spans(found: Sequence[Standing]) -> bool:
    """Whether trainings are so far apart in length that a figure shows something that no single study does."""
    ends = [line.x[-1] for line in asked_lines(found)]
    return bool(ends) and max(ends) >= SPAN * min(ends)


def draw_asked(
    found: Sequence[Standing],
    quoted: Sequence[tuple[str, float, float]],
    layout: Layout = "wide",
) -> Figure:
    """One plot, of all methods.

    Args:
        found: all standings of one task.
        quoted: what papers print: method, teacher images and percent.
        layout: for a wide screen and for files, or for a narrow screen.
    """
    lines = asked_lines(found)
    names = list(dict.fromkeys(line.method for line in lines))
    out = standing_out(names, BASELINES)
    colours = colours_of(out)  # of these few alone: two of a larger number could have one colour, and stars one look
    looks: dict[str, dict[str, Any]] = {
        method: {"color": colours[method], "linestyle": VARIANTS[MARKS.index(mark) % len(VARIANTS)], "marker": mark}
        for method, mark in marks_apart(sorted(out), colours).items()
    }
    stars = [star for star in quoted if star[0] in looks]
    columns = 2 if layout == "narrow" else 5
    legend = 0.2 * -(-(len(looks) + 1 + bool(stars)) // columns) + 0.15
    width, height = (4.2, 3.6 + legend) if layout == "narrow" else (8.4, 4.0 + legend)
    room = (0, legend / height, 1, 1 - legend / height)
    figure = Figure(figsize=(width, height), layout=SteadyLayout(rect=room))
    axis = figure.subplots()
    for line in reversed(lines):
        look = looks.get(line.method)
        if look is None:
            axis.plot(line.x, line.y, **GREY_LOOK)
        elif line.longest:
            axis.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.16, linewidth=0)
            axis.plot(line.x, line.y, **look, linewidth=1.8, markersize=5, markevery=[-1])
        else:
            axis.plot(line.x, line.y, color=look["color"], linewidth=0.9, alpha=0.8)
    for method, images, score in stars:
        axis.plot([images], [score], color=colours[method], **STAR)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(numticks=12))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(count_tick))
    axis.set_xlabel("Teacher images")
    axis.set_ylabel(f"Test {found[0].metric}, %")
    axis.set_ylim(0, 101.5)
    handles = [
        Line2D([], [], **looks[method], linewidth=1.8, markersize=5, label=method)
        for method in names
        if method in looks
    ]
    handles += [Line2D([], [], color="#333333", **STAR, label="printed in the paper")] if stars else []
    handles += [grey_handle(len(names) - len(looks), "other methods")] if len(looks) < len(names) else []
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 0}
    figure.legend(handles=handles, ncols=columns, handlelength=2.8, fontsize=9, **place)
    return figure


def _end(each: Standing) -> float:
    """How many teacher images its training asked for; 0 where it asks for none."""
    return each.asked[0][-1] if each.asked else 0.0
