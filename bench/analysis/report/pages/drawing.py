"""Everything that is measured and drawn for one group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from bench.analysis.report.figures.curves import (
    Curves,
    Layout,
    draw_curves,
    draw_sheets,
    first_sheets,
    for_page,
    style,
    to_bytes,
)
from bench.analysis.report.figures.pool import draw_kept
from bench.analysis.report.figures.scatter import draw_scatter
from bench.analysis.report.pages.sensitivity import SensitivitySection, sections_of
from bench.analysis.report.pages.sweeps import DrawnSweep, swept_of
from bench.analysis.report.sections.anytime import AnytimeOf, anytime_of
from bench.analysis.report.sections.groups import Group, curves_of


@dataclass
class Drawn:
    """A group's figures, and what is said beside them."""

    measured: AnytimeOf = field(default_factory=dict)  # what the curves say of the rows
    files: dict[str, bytes] = field(default_factory=dict)  # by their path in the report
    listed: list[tuple[str, str]] = field(default_factory=list)  # for Markdown: path and alternative text
    curves: Curves | None = None
    scatter: Curves | None = None
    scatter_path: str | None = None
    kept: Curves | None = None
    sections: list[SensitivitySection] = field(default_factory=list)
    sweeps: list[DrawnSweep] = field(default_factory=list)


def draw_group(
    group: Group, results: Path, colours: Mapping[str, str], sweeps: int = 1000, sparing: bool = False
) -> Drawn:
    """One group's figures.

    Args:
        group: rows that may be compared.
        results: where they come from.
        colours: by method.
        sweeps: how many figures there are at most of what an option changes.
        sparing: whether a page shows the very SVG of the figure's file, then without a background, in place of two
            its own layouts.
    """
    read = curves_of(group, results)
    drawn = Drawn(anytime_of(group, read))
    task = group.key.task

    def add(name: str, draw: Callable[[Layout], Figure | None]) -> Curves | None:
        if (alone := draw("file")) is None:
            return None
        path = f"figures/{group.name}-{name}"
        drawn.files[f"{path}.png"] = to_bytes(alone, "png")
        drawn.files[f"{path}.svg"] = shown = to_bytes(alone, "svg", transparent=sparing)
        if sparing:
            return Curves(shown, shown)
        wide, narrow = draw("wide"), draw("narrow")
        return for_page(wide, narrow) if wide and narrow else None

    with style():
        if any(row.ok for row in group.rows):
            drawn.curves = add("curves", lambda layout: draw_curves(group, read, colours, layout))
            drawn.listed.append((f"figures/{group.name}-curves.png", f"Score against the budget on {task}"))
        if sheets := first_sheets(group, results):
            name = f"figures/{group.name}-images.png"
            drawn.files[name] = to_bytes(draw_sheets(sheets), "png")  # pixels gain nothing from an SVG around them
            drawn.listed.append((name, "Images that the students were trained on"))
        drawn.scatter = add("quality", lambda layout: draw_scatter(group, colours, layout))
        if drawn.scatter:
            drawn.scatter_path = f"figures/{group.name}-quality.png"
        drawn.kept = add("kept", lambda layout: draw_kept(group, read, colours, layout))
        if drawn.kept:
            drawn.listed.append((f"figures/{group.name}-kept.png", f"Share of the pool that is kept on {task}"))
        drawn.sections, files = sections_of(group, colours)
        drawn.files |= files
        drawn.sweeps, files = swept_of(group, read, colours, sweeps)
        drawn.files |= files
    return drawn
