"""Everything that is measured and drawn for one group."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.analysis.report.figures.curve_data import curve_data
from bench.analysis.report.figures.curves import caption, draw_curves, draw_sheets, first_sheets, style, to_bytes
from bench.analysis.report.figures.pool import draw_kept
from bench.analysis.report.figures.ranking import draw_ranking, ranking_caption
from bench.analysis.report.figures.scatter import draw_scatter
from bench.analysis.report.pages.pictures import Draw, Picture, draw_picture
from bench.analysis.report.pages.sensitivity import SensitivitySection, sections_of
from bench.analysis.report.pages.sweeps import DrawnSweep, swept_of
from bench.analysis.report.sections import pool_text, quality_text
from bench.analysis.report.sections.anytime import AnytimeOf, anytime_of
from bench.analysis.report.sections.groups import Group, curves_of
from bench.utils.markdown import figure


@dataclass
class Drawn:
    """A group's figures, and what is said beside them."""

    measured: AnytimeOf = field(default_factory=dict)  # what the curves say of the rows
    files: dict[str, bytes] = field(default_factory=dict)  # by their path in the report
    listed: list[str] = field(default_factory=list)  # figures as Markdown
    ranking: Picture | None = None
    curves: Picture | None = None
    curve_data: str = ""  # JSON, for a page that is looked at with JavaScript
    scatter: Picture | None = None
    kept: Picture | None = None
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
        sparing: whether a figure has no layout for phones.
    """
    read = curves_of(group, results)
    drawn = Drawn(anytime_of(group, read))
    task = group.key.task

    def add(name: str, draw: Draw, alt: str, caption: str) -> Picture | None:
        path = f"figures/{group.name}-{name}"
        return draw_picture(drawn.files, path, draw, alt=alt, caption=caption, narrow=not sparing)

    with style():
        if any(row.ok for row in group.rows):
            drawn.curves = add(
                "curves",
                lambda layout, _: draw_curves(group, read, colours, layout),
                f"Score against the budget on {task}",
                caption(group),
            )
            drawn.ranking = add(
                "ranking",
                lambda layout, _: draw_ranking(group, layout),
                f"Scores on {task} with their intervals",
                ranking_caption(group),
            )
            found = curve_data(group, read, colours)
            drawn.curve_data = json.dumps(found, separators=(",", ":")) if found else ""
        drawn.listed += [each.markdown for each in (drawn.curves, drawn.ranking) if each]
        if sheets := first_sheets(group, results):
            name = f"figures/{group.name}-images.png"
            drawn.files[name] = to_bytes(draw_sheets(sheets), "png")  # pixels gain nothing from an SVG around them
            drawn.listed.append(figure(name, "Images that the students were trained on"))
        drawn.scatter = add(
            "quality",
            lambda layout, _: draw_scatter(group, colours, layout),
            f"Test score of every trial on {task} against each image metric",
            quality_text.quality_caption(group),
        )
        drawn.kept = add(
            "kept",
            lambda layout, _: draw_kept(group, read, colours, layout),
            f"Share of the pool that is kept on {task}",
            pool_text.CAPTION,
        )
        drawn.listed += [drawn.kept.markdown] if drawn.kept else []
        drawn.sections, files = sections_of(group, colours)
        drawn.files |= files
        drawn.sweeps, files = swept_of(group, read, colours, sweeps)
        drawn.files |= files
    return drawn
