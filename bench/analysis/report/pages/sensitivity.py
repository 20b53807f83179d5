"""How sensitive the scores are: one section for each set of options, as figures, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.analysis.report.figures.heat_map import draw_heat
from bench.analysis.report.figures.option_lines import draw_lines, plots_of
from bench.analysis.report.pages.links import slug
from bench.analysis.report.pages.pictures import Picture, draw_picture
from bench.analysis.report.sections import sensitivity_text
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.sensitivity_cells import Sensitivity, sensitivities_of
from bench.analysis.report.sections.sensitivity_numbers import importance_of
from bench.utils.markdown import escape, titled


@dataclass(frozen=True)
class SensitivitySection:
    """Everything that is said about one set of options in a group."""

    of: Sensitivity
    title: str
    heat: tuple[Picture, ...]
    lines: Picture
    robustness: list[list[str]]
    importance: list[list[str]]
    notes: list[str]

    @property
    def markdown(self) -> list[str]:
        lines = titled(escape(self.title), self.robustness)
        lines += titled(sensitivity_text.IMPORTANCE, self.importance)
        lines += ["", *(f"- {escape(note)}" for note in self.notes)]
        for picture in (*self.heat, self.lines):
            lines += ["", picture.markdown]
        return lines


def sections_of(group: Group, colours: Mapping[str, str]) -> tuple[list[SensitivitySection], dict[str, bytes]]:
    """The sections of a group, and the contents of their figures' files by relative path.

    Args:
        group: rows that may be compared.
        colours: by method.
    """
    sections: list[SensitivitySection] = []
    files: dict[str, bytes] = {}
    for of in sensitivities_of(group):
        if any(grid.scored for grid in of.grids):
            importances = [importance_of(grid, of) for grid in of.grids]
            sections.append(
                SensitivitySection(
                    of=of,
                    title=f"{sensitivity_text.TITLE}: {of.title}",
                    heat=tuple(_heat(of, pair, group, files) for pair in of.pairs),
                    lines=_lines(of, group, colours, files),
                    robustness=sensitivity_text.robustness_table(of, group),
                    importance=sensitivity_text.importance_table(of, importances),
                    notes=sensitivity_text.sensitivity_notes(of, group, importances),
                )
            )
    return sections, files


def _heat(of: Sensitivity, pair: tuple[str, str], group: Group, files: dict[str, bytes]) -> Picture:
    name = _free(f"figures/{group.name}-{slug(pair[0])}-by-{slug(pair[1])}", files)
    drawn = draw_picture(
        files,
        name,
        lambda layout, dark: draw_heat(of, pair, group, layout, dark),
        alt=sensitivity_text.heat_alt(of, pair, group),
        caption=sensitivity_text.heat_caption(of, pair),
        dark=True,
    )
    assert drawn is not None
    return drawn


def _lines(of: Sensitivity, group: Group, colours: Mapping[str, str], files: dict[str, bytes]) -> Picture:
    name = _free(f"figures/{group.name}-along-{'-'.join(map(slug, of.options))[:100]}", files)
    titles = [plot.title for plot in plots_of(of, group)]
    drawn = draw_picture(
        files,
        name,
        lambda layout, _: draw_lines(of, group, colours, layout),
        alt=sensitivity_text.lines_alt(of, titles, group),
        caption=sensitivity_text.lines_caption(of),
    )
    assert drawn is not None
    return drawn


def _free(name: str, files: dict[str, bytes]) -> str:
    """A name that no file has: methods whose values have too little in common have separate figures."""
    return f"{name}-{len(files)}" if f"{name}.png" in files else name
