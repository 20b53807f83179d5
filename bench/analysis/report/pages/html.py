"""The pages as HTML: no request leaves them, readable on a phone and in the dark. The index and the page of a task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.analysis.report.figures.curves import Curves, caption, first_sheets
from bench.analysis.report.pages import trial as trial_page
from bench.analysis.report.pages.drawing import Drawn
from bench.analysis.report.pages.index import board
from bench.analysis.report.pages.links import INDEX, embedded, embedded_sheet, method_page
from bench.analysis.report.pages.sensitivity import Picture, SensitivitySection
from bench.analysis.report.pages.sweeps import DrawnSweep
from bench.analysis.report.sections import (
    against,
    anytime,
    class_table,
    image_metrics,
    overall_text,
    pool_text,
    published,
    quality_text,
    sweeps_text,
)
from bench.analysis.report.sections.groups import Group, Row, tables_of
from bench.analysis.report.sections.leaderboard import (
    COLUMNS,
    MEANINGS,
    budget_words,
    cells,
    facts,
    failure,
    method_facts,
    notes,
    title_of,
)
from bench.analysis.report.sections.overall import TITLE, TaskSet
from bench.analysis.report.sections.sensitivity_text import IMPORTANCE

BACK = [("Leaderboard", f"../{INDEX}")]  # from a page in a folder of the report


@dataclass(frozen=True)
class Overall:
    """A comparison over all tasks and its two figures for the page."""

    block: TaskSet
    profiles: Curves
    ranks: Curves


def page(groups: Sequence[Group], sections: Sequence[Mapping[str, object]]) -> str:
    """A task's page, of what :func:`section` found for each of its groups."""
    return _html(
        "task.html",
        nav=BACK,
        heading=groups[0].key.task,
        groups=sections,
        sweeps_title=sweeps_text.TITLE,
        columns=COLUMNS,
        meanings=MEANINGS,
        methods=[(f"../{method_page(name)}", name, said) for name, said in method_facts(groups)],
    )


def section(group: Group, results: Path, drawn: Drawn, paged: Collection[str] = ()) -> dict[str, object]:
    """What a task's page shows of a group; ``paged``: ids of trials that have a page."""
    return (
        _section(group, results, drawn.curves, paged)
        | _quality(group, drawn.scatter)
        | _pools(group, drawn.kept)
        | _anytime(group, drawn.measured)
        | {"sections": [_sensitive(each) for each in drawn.sections]}
        | {"sweeps": [_sweep(each) for each in drawn.sweeps]}
    )


def method_html(shown: Mapping[str, object]) -> str:
    """A method's page, from what :func:`bench.analysis.report.pages.method.method_pages` found for it."""
    return _html("method.html", nav=BACK, **shown)


def trial_html(shown: Mapping[str, object]) -> str:
    """A trial's page, from what :func:`bench.analysis.report.pages.trial.trial_pages` found for it."""
    return _html("trial.html", **shown)


def index_page(groups: Sequence[Group], overall: Sequence[Overall] = (), paged: Collection[str] = ()) -> str:
    """The index: who leads, who does over all tasks, all rows, the ways to the other pages.

    ``paged``: the ids of trials that have a page.
    """
    return _html(
        "index.html",
        **board(groups, paged),
        overall=[_overall(each) for each in overall],
        overall_title=TITLE,
        overall_notes=overall_text.NOTES,
    )


def _html(template: str, **values: object) -> str:
    return environment().get_template(template).render(**values)


def _section(group: Group, results: Path, curves: Curves | None, paged: Collection[str]) -> dict[str, object]:
    return {
        "name": group.name,
        "task": group.key.task,
        "budget": budget_words(group),
        "facts": facts(group),
        "tables": [
            {
                "title": title_of(table),
                "ranked": [_line(group, rank, row, reference=False, paged=paged) for rank, row in table.ranked],
                "reference": [_line(group, None, row, reference=True, paged=paged) for row in table.reference],
            }
            for table in tables_of(group)
        ],
        "notes": notes(group),
        "without": trial_page.without_page((*group.rows, *group.left_out), paged),
        "segmentation": group.key.metric == "miou",
        "classes": class_table.class_table(group),
        "classes_title": class_table.TITLE,
        "images": image_metrics.image_table(group),
        "images_title": image_metrics.TITLE,
        "images_notes": image_metrics.image_notes(group),
        "against": against.against_table(group),
        "against_title": against.TITLE,
        "against_notes": against.NOTES,
        "quotes": published.published(group),
        "quotes_title": published.TITLE,
        "quotes_warning": published.WARNING,
        "quotes_head": published.HEAD,
        "failures": [(failure(row, record), trial_page.page_of(record, paged)) for row, record in group.failures],
        "caption": caption(group) if curves else "",
        "wide": embedded(curves.wide, "svg+xml") if curves else "",
        "narrow": embedded(curves.narrow, "svg+xml") if curves else "",
        "sheets": [
            {
                "source": embedded_sheet(sheet),
                "label": row.label,
                "seed": record.trial.seed,
                "page": trial_page.page_of(record, paged),
                "count": f"{record.images.count:,}",
                "clipped": f"{100 * record.images.clipped:.1f}",
            }
            for row, record, sheet in first_sheets(group, results)
        ],
    }


def _line(group: Group, rank: int | None, row: Row, reference: bool, paged: Collection[str]) -> dict[str, object]:
    return {
        "cells": cells(group, rank, row, reference),
        "method_page": f"../{method_page(row.method)}",
        "trials": trial_page.seed_links(row.records, paged),
    }


def _quality(group: Group, scatter: Curves | None) -> dict[str, object]:
    """The panel on image quality; empty where no image metric was measured."""
    return {
        "quality": quality_text.quality_table(group),
        "quality_title": quality_text.TITLE,
        "quality_said": quality_text.sentences(group),
        "quality_caption": quality_text.quality_caption(group) if scatter else "",
        "quality_wide": embedded(scatter.wide, "svg+xml") if scatter else "",
        "quality_narrow": embedded(scatter.narrow, "svg+xml") if scatter else "",
    }


def _pools(group: Group, figure: Curves | None) -> dict[str, object]:
    """The panel on other real images; empty where no method used any."""
    return {
        "pools": pool_text.pool_table(group),
        "pools_title": pool_text.TITLE,
        "pools_note": pool_text.NOTE,
        "kept_caption": pool_text.CAPTION if figure else "",
        "kept_wide": embedded(figure.wide, "svg+xml") if figure else "",
        "kept_narrow": embedded(figure.narrow, "svg+xml") if figure else "",
    }


def _anytime(group: Group, measured: anytime.AnytimeOf) -> dict[str, object]:
    return {
        "anytime": anytime.anytime_table(group, measured),
        "anytime_title": anytime.TITLE,
        "anytime_notes": anytime.anytime_notes(group, measured),
    }


def _sweep(drawn: DrawnSweep) -> dict[str, object]:
    return {
        "title": drawn.title,
        "table": drawn.table,
        "notes": drawn.notes,
        "caption": drawn.caption,
        "alt": drawn.alt,
        "wide": embedded(drawn.figure.wide, "svg+xml") if drawn.figure else "",
        "narrow": embedded(drawn.figure.narrow, "svg+xml") if drawn.figure else "",
    }


def _sensitive(section: SensitivitySection) -> dict[str, object]:
    return {
        "title": section.title,
        "heat": [_picture(each) for each in section.heat],
        "lines": _picture(section.lines),
        "robustness": section.robustness,
        "importance": section.importance,
        "importance_title": IMPORTANCE,
        "notes": section.notes,
    }


def _picture(picture: Picture) -> dict[str, object]:
    shown = {
        f"{layout}_{'dark' if dark else 'light'}": embedded(content, "svg+xml")
        for (layout, dark), content in picture.shown.items()
    }
    return {"alt": picture.alt, "caption": picture.caption, **shown}


def _overall(drawn: Overall) -> dict[str, object]:
    return {
        "title": overall_text.title(drawn.block),
        "table": overall_text.overall_table(drawn.block),
        "links": {method: method_page(method) for method in drawn.block.rows},
        "notes": overall_text.overall_notes(drawn.block),
        "figures": [
            {"wide": embedded(figure.wide, "svg+xml"), "narrow": embedded(figure.narrow, "svg+xml"), "caption": caption}
            for figure, caption in (
                (drawn.profiles, overall_text.profile_caption(drawn.block)),
                (drawn.ranks, overall_text.ranks_caption(drawn.block)),
            )
        ],
    }


@cache
def environment() -> Environment:
    """The templates of all pages: whatever is put into them is escaped."""
    return Environment(
        loader=PackageLoader("bench.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
