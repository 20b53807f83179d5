"""The history as one page that carries all it shows, in the look of the report."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.regression.history import Series
from bench.analysis.regression.summary import plain_number
from bench.analysis.report.figures.curves import PALETTE, style, to_bytes
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.pages.html import environment
from bench.analysis.report.pages.links import embedded
from bench.utils.git import Commit

STEP_COLUMNS = ("Task", "Method", "Number", "Commit", "Date", "Before", "After", "Verdict", "Subject")


def history_page(series: Sequence[Series], line: Sequence[Commit], branch: str) -> str:
    """The HTML: all steps in a table, then a figure for each number of each method that is not always the same."""
    moving = [each for each in series if any(dict(values) != dict(each.values[0]) for values in each.values)]
    with style():
        figures = [
            {
                "title": f"{each.task}, {each.method}: {each.metric}",
                "source": embedded(to_bytes(draw(each), "svg", transparent=True), "svg+xml"),
                "caption": caption(each),
            }
            for each in moving
        ]
    steps = [[each.task, each.method, each.metric, *step_cells(each, place)] for each, place in _steps(series)]
    tracked = {commit.sha for each in series for commit in each.commits}
    return (
        environment()
        .get_template("history.html")
        .render(
            branch=branch,
            commits=len(line),
            tracked=len(tracked),
            head=STEP_COLUMNS,
            steps=steps,
            figures=figures,
            still=[
                f"{each.task}, {each.method}: {each.metric}, {plain_number(each.means[-1], each.unit)}"
                for each in series
                if each not in moving
            ],
        )
    )


def step_cells(series: Series, place: int) -> list[str]:
    """A step in words: commit, date, level before and after, verdict, subject."""
    step = series.steps[place]
    levels = [plain_number(level, series.unit) for level in (step.before, step.after)]
    doubt = f" or one of {len(step.untracked)} before it" if step.untracked else ""
    return [f"{step.commit.short}{doubt}", step.commit.date[:10], *levels, step.verdict, step.commit.subject]


def caption(series: Series) -> str:
    """What a figure shows, for those who do not see it."""
    means = series.means
    last = plain_number(means[-1], series.unit)
    steps = f"{len(series.steps)} step{'' if len(series.steps) == 1 else 's'}"
    return f"{len(means)} tracked commits, {steps}; now {last}"


def draw(series: Series) -> Figure:
    """Every seed as a dot, the mean of each commit as a line, levels and steps over it."""
    figure = Figure(figsize=(9.6, 2.6), layout=SteadyLayout())
    axes = figure.add_subplot()
    factor = 100 if series.unit == "share" else 1
    places = list(range(len(series.commits)))
    for place, values in zip(places, series.values, strict=True):
        axes.plot([place] * len(values), [factor * value for value in values.values()], ".", color="#BBBBBB", ms=4)
    axes.plot(places, [factor * mean for mean in series.means], "-", color=PALETTE[0], lw=1.2, marker="o", ms=3)
    edges = [0, *(step.index for step in series.steps), len(places)]
    for start, end in itertools.pairwise(edges):
        level = factor * sum(series.means[start:end]) / (end - start)
        axes.plot([start - 0.4, end - 0.6], [level, level], color="#333333", lw=1.4)
    for step in series.steps:
        colour = {"worse": PALETTE[1], "better": PALETTE[2]}.get(step.verdict, PALETTE[3])
        axes.axvline(step.index - 0.5, color=colour, ls="--", lw=1)
        top = axes.get_xaxis_transform()
        axes.text(step.index - 0.4, 0.97, step.commit.short, transform=top, va="top", fontsize=8, color=colour)
    ticks = [int(tick) for tick in MaxNLocator(8, integer=True).tick_values(0, max(1, len(places) - 1))]
    shown = [tick for tick in ticks if 0 <= tick < len(places)]
    axes.set_xticks(shown, [series.commits[tick].short[:7] for tick in shown])
    axes.set_ylabel(f"{series.metric}, %".replace("$", r"\$") if factor == 100 else series.metric.replace("$", r"\$"))
    return figure


def _steps(series: Sequence[Series]) -> list[tuple[Series, int]]:
    return [(each, place) for each in series for place in range(len(each.steps))]
