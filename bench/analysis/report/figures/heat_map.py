"""Heat maps of two options: the mean score of every cell in colour and number, methods side by side in one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.analysis.report.figures.curves import Layout
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import symbol_text
from bench.analysis.report.figures.scatter import tick
from bench.analysis.report.sections.groups import Group, Row, metric_word
from bench.analysis.report.sections.option_axis import OptionAxis
from bench.analysis.report.sections.sensitivity_cells import Grid, Sensitivity
from bench.analysis.report.sections.sensitivity_numbers import scores_of

COLOURS = "viridis"  # grows evenly in lightness, so it is read without colours too
SPAN = 0.05  # of the highest score: what differs by next to nothing is not to look different
SCREEN = {False: ("#333333", "#BBBBBB"), True: ("#DFE3E6", "#4A525A")}  # ink and hatching, by whether it is dark
BESIDE = 3  # heat maps in a line
WIDEST, SMALLEST = 10.0, 5.0  # points of a number, if the cell is large enough


@dataclass(frozen=True)
class Square:
    """One square of a heat map. Scores in percent."""

    rows: tuple[Row, ...]  # none: no trial was run; several: the options that are not drawn differ

    @property
    def scores(self) -> list[float]:
        return [100 * score for score in scores_of(self.rows)]

    @property
    def mean(self) -> float | None:
        """Over the cells that have a score."""
        means = [100 * row.score[0] for row in self.rows if row.score]
        return fmean(means) if means else None

    @property
    def failed(self) -> list[str]:
        """Why trials have no score, a status each."""
        return [r.status.replace("_", " ") for row in self.rows for r in row.records if r.status != "ok"]

    @property
    def words(self) -> list[str]:
        """What stands in the square: the mean, the standard deviation, what failed."""
        failed, trials = self.failed, sum(len(row.records) for row in self.rows)
        if self.mean is None:
            return [failed[0] if len(set(failed)) == 1 else "failed", f"{len(failed)} of {trials}"] if failed else ["·"]
        spread = [f"±{stdev(self.scores):.1f}"] if len(self.scores) > 1 else []
        return [f"{self.mean:.1f}", *spread, *([f"✗ {len(failed)} of {trials}"] if failed else [])]


def squares(grid: Grid, axes: tuple[OptionAxis, OptionAxis]) -> list[list[Square]]:
    """The squares of one method: a line for each place of the second option, in it one for each of the first."""
    first, second = axes
    return [[Square(tuple(grid.where(**{first.name: x, second.name: y}))) for x in first.places] for y in second.places]


def draw_heat(
    of: Sensitivity, pair: tuple[str, str], group: Group, layout: Layout = "wide", dark: bool = False
) -> Figure:
    """One heat map a method, the first option across, the second upwards.

    Args:
        of: one of the group's; at least one of its cells has a score.
        pair: two of its options. Over the others the mean is taken.
        group: where it comes from.
        layout: for a wide screen and for files, or for a narrow screen.
        dark: for a page that is read in the dark.
    """
    ink, faint = SCREEN[dark]
    options = (of.axis(pair[0]), of.axis(pair[1]))
    maps = [squares(grid, options) for grid in of.grids]
    norm = _norm([each.mean for lines in maps for line in lines for each in line])
    columns = 1 if layout == "narrow" else min(BESIDE, len(maps))
    lines = -(-len(maps) // columns)
    width = 4.2 if layout == "narrow" else 9.6
    side = _side(len(options[0].places), len(options[1].places), width / max(columns, 2 if layout != "narrow" else 1))
    with matplotlib.rc_context({"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink}):
        figure = Figure(figsize=(width, lines * (side + 0.75) + 0.3), layout=SteadyLayout(wspace=0.04))
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis, grid, each in zip(axes.flat, of.grids, maps, strict=False):
            _draw(axis, each, norm, ink, faint)
            axis.set_title(grid.name, fontsize=9.5, loc="left")
            _label(axis, options)
        for axis in axes.flat[len(maps) :]:
            axis.remove()
        bar = figure.colorbar(
            ScalarMappable(norm, COLOURS), ax=axes.ravel().tolist(), pad=0.02, fraction=0.05, aspect=24
        )
        bar.outline.set_visible(False)
        bar.ax.grid(visible=False)
        bar.set_label(f"Test {metric_word(group.key.metric)}, %", fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
        bar.ax.yaxis.set_major_locator(MaxNLocator(5))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(tick))
    return figure


def on_colour(colour: Sequence[float]) -> str:
    """Black or white, whichever reads better on a colour (red, green, blue from 0 to 1): the contrast is 4.5 or more.

    >>> on_colour((1, 1, 0)), on_colour((0.2, 0, 0.3))
    ('#000000', '#FFFFFF')
    """
    return "#000000" if luminance(colour) > 0.179 else "#FFFFFF"


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance as WCAG 2.1 defines it, 0 for black, 1 for white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _norm(means: Sequence[float | None]) -> Normalize:
    known = [mean for mean in means if mean is not None]
    low, high = min(known), max(known)
    if high - low < (least := SPAN * abs(high) or 1.0):
        low, high = (low + high - least) / 2, (low + high + least) / 2
    return Normalize(low, high)


def _side(across: int, up: int, width: float) -> float:
    """How high a map is, in inches, that its squares are no higher than wide, and no lower than two lines of text."""
    return up * min(0.62, max(0.36, 0.8 * width / across))


def _draw(axis: Axes, lines: Sequence[Sequence[Square]], norm: Normalize, ink: str, faint: str) -> None:
    across, up = len(lines[0]), len(lines)
    colours = matplotlib.colormaps[COLOURS]
    axis.set_xlim(0, across)
    axis.set_ylim(0, up)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.tick_params(length=0, labelsize=8.5)
    size = float(np.clip(52 / across, SMALLEST, WIDEST))
    for y, line in enumerate(lines):
        for x, square in enumerate(line):
            look: dict[str, Any] = {"facecolor": "none", "linewidth": 0}
            text = ink
            if square.mean is not None:
                colour = colours(norm(square.mean))
                look, text = {"facecolor": colour, "linewidth": 0}, on_colour(colour)
            elif square.failed:
                look = {"facecolor": "none", "edgecolor": faint, "hatch": "////", "linewidth": 0}
            axis.add_patch(Rectangle((x + 0.015, y + 0.015), 0.97, 0.97, **look))
            _write(axis, (x + 0.5, y + 0.5), square, text, size)


def _write(axis: Axes, place: tuple[float, float], square: Square, colour: str, size: float) -> None:
    """The square's words, one below the other, the first the largest."""
    words = square.words
    small = 0.78 * size
    for number, word in enumerate(words):
        first = number == 0 and square.mean is not None
        axis.annotate(
            word,
            place,
            xytext=(0, 1.2 * small * ((len(words) - 1) / 2 - number)),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size if first else small,
            fontweight="bold" if first else "normal",
            color=colour,
        )


def _label(axis: Axes, options: tuple[OptionAxis, OptionAxis]) -> None:
    """The values below their squares; the ends of intervals between them."""
    for option, line in zip(options, (axis.xaxis, axis.yaxis), strict=True):
        if option.edges:
            line.set_ticks(range(len(option.edges)), [f"{edge:.2g}" for edge in option.edges])
        else:
            line.set_ticks([place + 0.5 for place in range(len(option.places))], [each.text for each in option.places])
        words, mathematics = symbol_text(option.name)
        line.set_label_text(words, fontsize=8.5, parse_math=mathematics)
