"""The ranking as a figure: a dot and an interval for each row, the best at the top, in one scale."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.report.figures.curves import BASELINES, PALETTE, Layout, drawn_rows
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import label_text
from bench.analysis.report.sections.groups import Group, Row, metric_word

LINE = 0.24  # inches between two rows
SOFT = "#666666"


def draw_ranking(group: Group, layout: Layout = "wide") -> Figure | None:
    """Mean scores and their intervals; None where no row has a score.

    Filled dots need no real data, hollow ones do. A row with two seeds has a small mark for each, and no interval.
    """
    rows = drawn_rows(group)
    if not rows:
        return None
    width = 4.2 if layout == "narrow" else 6.4
    figure = Figure(figsize=(width, LINE * len(rows) + 0.6), layout=SteadyLayout())
    axis = figure.subplots()
    for place, row in enumerate(rows):
        _draw(axis, row, -place)
    words = [label_text(row.label) for row in rows]
    ticks = axis.set_yticks([-place for place in range(len(rows))], [text for text, _ in words])
    for tick, (_, mathematics) in zip(ticks, words, strict=True):
        tick.label1.set_parse_math(mathematics)
    axis.tick_params(axis="y", length=0, labelsize=8.5, labelcolor="#333333")
    axis.set_ylim(0.6 - len(rows), 0.6)
    axis.grid(visible=False, axis="y")
    axis.grid(visible=True, axis="x")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_xlabel(f"Test {metric_word(group.key.metric)}, %")
    if group.teacher:
        axis.axvline(100 * group.teacher.score, color="#666666", linestyle=(0, (5, 3)), linewidth=1)
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, -1), min(high, 101))
    return figure


def ranking_caption(group: Group) -> str:
    """What its marks mean; only what this group's figure really shows."""
    rows = drawn_rows(group)
    counts = {len(row.ok) for row in rows}
    parts = ["Dot: mean over seeds." if max(counts) > 1 else "One seed: no interval."]
    if any(row.score and row.score.low is not None and len(row.ok) > 2 for row in rows):
        parts.append("Line: its 95 % interval.")
    if 2 in counts:
        parts.append("Ticks: the two seeds.")
    if any(row.data != "none" for row in rows):
        parts.append("Hollow: uses real images.")
    if group.teacher:
        parts.append(f"Dashed: {group.dashed}.")
    return " ".join(parts)


def ends_of(row: Row) -> tuple[float, float] | None:
    """Both ends of what is drawn beside a row's mean, in percent: the interval, or two seeds' scores."""
    if len(row.ok) == 2:
        return 100 * min(row.scores), 100 * max(row.scores)
    if row.score is None or row.score.low is None or row.score.high is None or len(row.ok) < 2:
        return None
    return 100 * row.score.low, 100 * row.score.high


def _draw(axis: Axes, row: Row, y: float) -> None:
    assert row.score is not None
    colour = SOFT if row.method in BASELINES or row.data != "none" else PALETTE[0]
    if ends := ends_of(row):
        line = {"marker": "|", "linestyle": "", "markersize": 8} if len(row.ok) == 2 else {"linewidth": 2}
        axis.plot(ends, [y, y], color=colour, **line)
    face = colour if row.data == "none" else "white"
    axis.plot([100 * row.score.value], [y], "o", color=colour, markerfacecolor=face, markersize=5.5)


def ticks_of(values: Sequence[float]) -> list[float]:
    """Round numbers in percent that reach from the smallest of the values to the largest."""
    found = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(min(values), max(values))
    return [float(tick) for tick in found if -1e-9 <= tick <= 100 + 1e-9]
