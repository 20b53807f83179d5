"""The share of a pool that a method's selection keeps, over its budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.report.figures.curves import Layout
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import GREY, GREY_LOOK, marks_apart, standing_out
from bench.analysis.report.sections.groups import CurvesOf, Group, Row
from bench.analysis.report.sections.sweeps import logged

KEPT = "kept"  # what methods log: the share of the pool that they distil with


def draw_kept(group: Group, curves: CurvesOf, colours: Mapping[str, str], layout: Layout = "wide") -> Figure | None:
    """The share of the pool that is kept against the share of the budget that is spent; None if no method selects."""
    kept = {row.label: (row, list(_kept(row, curves))) for row in group.rows}
    selecting = {label: (row, seeds) for label, (row, seeds) in kept.items() if seeds}
    if not selecting:
        return None
    figure = Figure(figsize=(4.2, 3.0) if layout == "narrow" else (6.4, 3.2), layout=SteadyLayout(wspace=0.06))
    axis = figure.subplots()
    out = standing_out(list(selecting))
    tints = {label: colours[selecting[label][0].method] for label in out}
    marks = marks_apart(out, tints)
    for label, (_, seeds) in selecting.items():
        colour = tints.get(label, GREY)
        for points in seeds:
            axis.plot(*zip(*points, strict=True), color=colour, linewidth=0.7, alpha=0.5)
        shared = sorted({round(progress, 6) for points in seeds for progress, _ in points})
        lines = [np.array(points).T for points in seeds]
        mean = np.mean([np.interp(shared, progress, share) for progress, share in lines], axis=0)
        if label in marks:
            look: dict[str, Any] = {"color": colour, "linewidth": 1.8, "marker": marks[label], "markersize": 4.5}
            axis.plot(shared, mean, **look, markevery=[-1], label=label)
        else:
            axis.plot(shared, mean, **GREY_LOOK)
    axis.set_xlabel("share of the budget spent")
    axis.set_ylabel("share of the pool kept")
    axis.set_ylim(0, 1.02)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.legend(fontsize=8.5)
    return figure


def _kept(row: Row, curves: CurvesOf) -> Iterator[tuple[tuple[float, float], ...]]:
    """The logged shares of every seed as (progress, share); nothing of a seed that logged none."""
    for record in row.ok:
        if record.pool is None:
            continue
        if points := logged(curves[record.id], KEPT):
            yield points
