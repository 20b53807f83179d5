"""The leaderboard as one Markdown file: the cells of the tables, the notes under them and the figures' places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bench.analysis.report.sections import anytime, class_table, image_metrics, pool_text, published, quality_text
from bench.analysis.report.sections.groups import Group, Table, tables_of
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
from bench.utils.markdown import escape as _md
from bench.utils.markdown import line as _line
from bench.utils.markdown import titled

if TYPE_CHECKING:
    from bench.analysis.report.pages.drawing import Drawn


def markdown(
    groups: Sequence[Group],
    parts: Iterable[Sequence[str]],
    overall: Sequence[tuple[str, Sequence[Sequence[str]], Sequence[str], Sequence[tuple[str, str]]]] = (),
) -> str:
    """The whole leaderboard; ``parts`` holds the lines of each group.

    ``overall`` holds title, table, notes and figures (relative path, alternative text) of each comparison over all
    tasks.
    """
    lines = ["# Leaderboard"]
    for title, numbers, remarks, figures in overall:
        lines += [*titled(_md(title), numbers, remarks), *(f"\n![{_md(text)}]({path})" for path, text in figures)]
    lines.append("")
    lines += [line for part in parts for line in part]
    lines += ["## Columns", "", *(f"- {name}: {meaning}." for name, meaning in MEANINGS.items()), ""]
    lines += ["## Methods", "", *(f"- {_md(text)}" for text in methods(groups)), ""]
    return "\n".join(lines)


def group_markdown(group: Group, drawn: Drawn | None = None) -> list[str]:
    """The lines of one group, with what was drawn of it."""
    lines = [f"## {_md(group.key.task)}: {_md(budget_words(group))}", "", _md(". ".join(facts(group)) + "."), ""]
    for table in tables_of(group):
        lines += [f"**{title_of(table)}**", "", *_markdown_table(group, table), ""]
    lines += [f"- {_md(note)}" for note in notes(group)]
    of_curves = drawn.measured if drawn else {}
    lines += titled(anytime.TITLE, anytime.anytime_table(group, of_curves), anytime.anytime_notes(group, of_curves))
    lines += _further_tables(group)
    if group.failures:
        lines += ["", "**Failures** (never counted as a score)", ""]
        lines += ["| Trial | Method | Seed | Status | Reason | Log |", "|---|---|--:|---|---|---|"]
        lines += [_line([_md(cell) for cell in failure(row, record)]) for row, record in group.failures]
    if drawn:
        lines += [line for path, text in drawn.listed for line in ("", f"![{_md(text)}]({path})")]
        lines += [line for section in drawn.sections for line in section.markdown]
        lines += [line for sweep in drawn.sweeps for line in sweep.markdown]
    lines += [*_quality_panel(group, drawn.scatter_path if drawn else None), ""]
    return lines


def _markdown_table(group: Group, table: Table) -> list[str]:
    lines = [_line(list(COLUMNS.values())), _line(["---" if name in ("method", "data") else "--:" for name in COLUMNS])]
    rows = [cells(group, rank, row, reference=False) for rank, row in table.ranked]
    rows += [cells(group, None, row, reference=True) for row in table.reference]
    return lines + [_line([_md(text) for text in row.values()]) for row in rows]


def _further_tables(group: Group) -> list[str]:
    """Image metrics and published numbers, each in a table of its own."""
    lines = titled(class_table.TITLE, class_table.class_table(group))
    lines += titled(image_metrics.TITLE, image_metrics.image_table(group), image_metrics.image_notes(group))
    if pools := pool_text.pool_table(group):
        lines += titled(pool_text.TITLE, pools, [pool_text.NOTE])
    if quotes := published.published(group):
        lines += ["", f"**{published.TITLE}**", "", published.WARNING, "", _line(list(published.HEAD)), "|---|--:|---|"]
        lines += [_line([_md(text) for text in quote]) for quote in quotes]
    return lines


def _quality_panel(group: Group, scatter: str | None) -> list[str]:
    """What the image metrics have to do with the scores."""
    said = quality_text.sentences(group)
    lines = titled(quality_text.TITLE, quality_text.quality_table(group), said)
    if scatter is not None:
        lines += ["", f"![Test score against each image metric on {_md(group.key.task)}]({scatter})"]
        lines += ["", _md(quality_text.quality_caption(group))]
    return lines


def methods(groups: Sequence[Group]) -> list[str]:
    """Every method that has a row, in a line: what it is and what it needs."""
    return [f"{name}: {said}" for name, said in method_facts(groups)]
