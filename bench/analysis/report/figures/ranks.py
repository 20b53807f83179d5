"""Two figures over all tasks: performance profiles, and average ranks with the critical difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.report.figures.curves import INK, VARIANTS, Layout
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import GREY_LOOK, MARKS, OUT, grey_handle, marks_apart, standing_out
from bench.analysis.report.sections.overall import TaskSet
from bench.analysis.stats import Ranking

BANDS = 6  # with more lines their bands hide each other
LINE = 0.24  # inches between two methods' names below the ranks
SOFT = "#666666"


def draw_profiles(block: TaskSet, colours: Mapping[str, str], layout: Layout = "wide") -> Figure:
    """For each method the share of runs (tasks x seeds) whose normalised score is above a threshold.

    The further up and right a line, the better; where two lines cross, neither method is better throughout. A band is
    the pointwise 95 % interval of the bootstrap stratified by task, drawn for few methods with several seeds.
    """
    columns = 2 if layout == "narrow" else 4
    legend = 0.2 * -(-min(len(block.profiles), OUT + 1) // columns) + 0.15
    width, height = (4.2, 3.2 + legend) if layout == "narrow" else (9.6, 3.6 + legend)
    room = (0, legend / height, 1, 1 - legend / height)
    figure = Figure(figsize=(width, height), layout=SteadyLayout(rect=room))
    axis = figure.subplots()
    looks = _looks(list(block.profiles), colours)
    for method, profile in block.profiles.items():
        look = looks[method] | {"markevery": 0.2} if method in looks else GREY_LOOK
        axis.step(profile.thresholds, [100 * share for share in profile.share], where="post", **look)
        if profile.low is not None and profile.high is not None and len(block.profiles) <= BANDS:
            low, high = ([100 * share for share in edge] for edge in (profile.low, profile.high))
            axis.fill_between(
                profile.thresholds, low, high, step="post", color=looks[method]["color"], alpha=0.14, linewidth=0
            )
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 102)
    axis.set_xlabel("Normalised score τ: noise 0, kd 1")
    axis.set_ylabel("Runs above τ, %")
    handles = [Line2D([], [], **looks[method], label=method) for method in block.profiles if method in looks]
    if len(looks) < len(block.profiles):
        handles.append(grey_handle(len(block.profiles) - len(looks), "other methods"))
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": 0.2}
    figure.legend(handles=handles, ncols=columns, handlelength=2.8, fontsize=9, **place)
    return figure


def draw_ranks(block: TaskSet, colours: Mapping[str, str], layout: Layout = "wide") -> Figure:
    """Average ranks on a line, the best at the left; bars join methods that Nemenyi's test does not tell apart."""
    ranking = block.ranking
    names = list(ranking.ranks)
    half = -(-len(names) // 2)
    bars = len(ranking.groups)
    width = 4.2 if layout == "narrow" else 9.6
    above, between, below = 0.5, 0.16 * bars + 0.15, LINE * half + 0.1
    height = above + between + below
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set_axis_off()
    axis.set_xlim(0, width)  # the figure's own inches, so that text and lines keep their distances
    axis.set_ylim(-(between + below), above)
    margin = 1.35 if layout == "narrow" else 2.2
    scale = (width - 2 * margin) / max(1, len(names) - 1)
    at = {name: margin + (rank - 1) * scale for name, rank in ranking.ranks.items()}
    size = 8 if layout == "narrow" else 9.5
    _ruler(axis, len(names), margin, scale, size)
    if ranking.nemenyi_can_reject:
        _difference(axis, ranking, margin, scale, size)
    for place, group in enumerate(ranking.groups if ranking.nemenyi_can_reject else ()):
        y = -0.15 - 0.16 * place
        axis.plot([at[group[0]] - 0.05, at[group[-1]] + 0.05], [y, y], color=INK, linewidth=3, solid_capstyle="butt")
    for place, name in enumerate(names):
        left = place < half
        line = place if left else len(names) - 1 - place
        y = -between - LINE * (line + 0.5)
        end = margin - 0.1 if left else width - margin + 0.1
        axis.plot([at[name], at[name], end], [0, y, y], color=colours[name], linewidth=1.1, solid_joinstyle="miter")
        words = f"{name}  {ranking.ranks[name]:.1f}" if left else f"{ranking.ranks[name]:.1f}  {name}"
        axis.text(
            end + (-0.06 if left else 0.06),
            y,
            words,
            fontsize=size,
            verticalalignment="center",
            horizontalalignment="right" if left else "left",
        )
    return figure


def _ruler(axis: Axes, count: int, margin: float, scale: float, size: float) -> None:
    """The line of ranks, a tick at each whole one."""
    axis.plot([margin, margin + (count - 1) * scale], [0, 0], color=SOFT, linewidth=1)
    every = 1 if scale > 0.16 else 5
    for rank in range(1, count + 1):
        x = margin + (rank - 1) * scale
        marked = rank == 1 or rank % every == 0
        axis.plot([x, x], [0, 0.07 if marked else 0.04], color=SOFT, linewidth=1)
        if marked:
            axis.text(x, 0.1, f"{rank}", fontsize=size - 0.5, color=SOFT, horizontalalignment="center")


def _difference(axis: Axes, ranking: Ranking, margin: float, scale: float, size: float) -> None:
    """The critical difference as a length, cut off at the ruler's end with an arrow's words."""
    length = min(ranking.critical_difference, len(ranking.ranks) - 1) * scale
    axis.plot([margin, margin + length], [0.32, 0.32], color=INK, linewidth=1.2, marker="|", markersize=6)
    more = " (longer than the line)" if ranking.critical_difference > len(ranking.ranks) - 1 else ""
    axis.text(margin, 0.39, f"critical difference {ranking.critical_difference:.1f}{more}", fontsize=size - 0.5)


def _looks(methods: Sequence[str], colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The looks of those that stand out, the first ones: colour by method, marks and dashes for what shares one."""
    looks: dict[str, dict[str, Any]] = {}
    for method, mark in marks_apart(sorted(standing_out(methods)), colours).items():
        dashes = VARIANTS[MARKS.index(mark) % len(VARIANTS)]
        looks[method] = {
            "color": colours[method], "linestyle": dashes, "linewidth": 1.7, "marker": mark, "markersize": 4,
        }  # fmt: skip
    return looks
