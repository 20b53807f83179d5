"""How sensitive the scores are: one section for each set of options, as figures, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.analysis.report.figures.curves import to_bytes
from bench.analysis.report.figures.heat_map import draw_heat
from bench.analysis.report.figures.option_lines import draw_lines, plots_of
from bench.analysis.report.pages.links import slug
from bench.analysis.report.sections import sensitivity_text
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.sensitivity_cells import Sensitivity, sensitivities_of
from bench.analysis.report.sections.sensitivity_numbers import importance_of
from bench.utils.markdown import escape, figure, titled


@dataclass(frozen=True)
class Picture:
    """A figure: its relative path, and what the page shows of it: SVG by (layout, whether it is dark)."""

    path: str
    alt: str
    caption: str
    shown: dict[tuple[str, bool], bytes]  # a figure without dark ones is inverted by the page


@dataclass(frozen=True)
class SensitivitySection:
    """Everything that is said about one set of options in a group."""

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
            lines += ["", figure(picture.path, picture.alt, picture.caption)]
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
    alone = draw_heat(of, pair, group)
    files |= {f"{name}.{kind}": to_bytes(alone, kind) for kind in ("png", "svg")}
    shown = {
        (layout, dark): to_bytes(draw_heat(of, pair, group, layout, dark), "svg", transparent=True)
        for layout in ("wide", "narrow")
        for dark in (False, True)
    }
    return Picture(
        f"{name}.png", sensitivity_text.heat_alt(of, pair, group), sensitivity_text.heat_caption(of, pair), shown
    )


def _lines(of: Sensitivity, group: Group, colours: Mapping[str, str], files: dict[str, bytes]) -> Picture:
    name = _free(f"figures/{group.name}-along-{'-'.join(map(slug, of.options))[:100]}", files)
    alone = draw_lines(of, group, colours)
    files |= {f"{name}.{kind}": to_bytes(alone, kind) for kind in ("png", "svg")}
    shown = {
        (layout, False): to_bytes(draw_lines(of, group, colours, layout), "svg", transparent=True)
        for layout in ("wide", "narrow")
    }
    titles = [plot.title for plot in plots_of(of, group)]
    return Picture(
        f"{name}.png", sensitivity_text.lines_alt(of, titles, group), sensitivity_text.lines_caption(of), shown
    )


def _free(name: str, files: dict[str, bytes]) -> str:
    """A name that no file has: methods whose values have too little in common have separate figures."""
    return f"{name}-{len(files)}" if f"{name}.png" in files else name
