"""What the options change: one section for each option of a method, as words, and as a figure where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from bench.analysis.report.figures.sweeps import draw_sweep
from bench.analysis.report.pages.links import slug
from bench.analysis.report.pages.pictures import Draw, Picture, draw_picture
from bench.analysis.report.sections import sweeps_text
from bench.analysis.report.sections.groups import CurvesOf, Group
from bench.analysis.report.sections.sweeps import Sweep, sweeps_of
from bench.utils.markdown import escape, titled


@dataclass(frozen=True)
class DrawnSweep:
    """Everything that is said about one option of a method in a group."""

    title: str
    table: list[list[str]]
    notes: list[str]
    picture: Picture | None

    @property
    def markdown(self) -> list[str]:
        lines = titled(f"{sweeps_text.TITLE}: {escape(self.title)}", self.table, self.notes)
        return lines + (["", self.picture.markdown] if self.picture else [])


def swept_of(
    group: Group, curves: CurvesOf, colours: Mapping[str, str], figures: int
) -> tuple[list[DrawnSweep], dict[str, bytes]]:
    """The sections of a group, and the contents of their figures' files by relative path.

    Args:
        group: rows that may be compared.
        curves: of the group.
        colours: by method.
        figures: how many are drawn at most: of the options that move the mean score the most.
    """
    found = sweeps_of(group, curves)
    drawn = {id(sweep) for sweep in sorted(found, key=_moves, reverse=True)[:figures]}
    sections: list[DrawnSweep] = []
    files: dict[str, bytes] = {}
    for sweep in found:
        picture = None
        notes = sweeps_text.sweep_notes(sweep, group)
        if id(sweep) in drawn:
            path = f"figures/{group.name}-{slug(sweep.method)}-{slug(sweep.option)}"
            if f"{path}.png" in files:  # the same option, with another version of the method's code
                path += f"-{len(sections)}"
            picture = draw_picture(
                files,
                path,
                _draw(sweep, colours),
                alt=sweeps_text.sweep_alt(sweep, group),
                caption=sweeps_text.sweep_caption(sweep),
            )
        else:
            shown = f"only the {figures} options here that change the mean score the most have figures"
            notes.append(
                f"Not drawn: {shown if figures else 'a report of so many trials shows options in tables only'}."
            )
        sections.append(
            DrawnSweep(
                title=sweep.title,
                table=sweeps_text.sweep_table(sweep),
                notes=notes,
                picture=picture,
            )
        )
    return sections, files


def _draw(sweep: Sweep, colours: Mapping[str, str]) -> Draw:
    return lambda layout, _: draw_sweep(sweep, colours, layout)


def _moves(sweep: Sweep) -> float:
    """The distance of the highest from the lowest mean score of the swept method's cells."""
    own = zip(sweep.cells, sweep.measures[0].readings, strict=True)
    means = [fmean(reading.value for reading in readings) for cell, readings in own if not cell.other]
    return max(means) - min(means)
