"""The leaderboard as one Markdown file: the cells of the tables, the notes under them and the figures' places."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bench.analysis.report.sections import (
    against,
    anytime,
    class_table,
    image_metrics,
    pool_text,
    published,
    quality_text,
)
from bench.analysis.report.sections.groups import Group, Table, tables_of
from bench.analysis.report.sections.leaderboard import (
    MEANINGS,
    budget_words,
    cells,
    columns,
    facts,
    failure,
    method_facts,
    notes,
    title_of,
)
from bench.utils.markdown import escape as _md
from bench.utils.markdown import figure, titled
from bench.utils.markdown import line as _line

if TYPE_CHECKING:
    from bench.analysis.report.pages.drawing import Drawn
    from bench.analysis.report.pages.pictures import Picture


# Title, table, notes and figures (relative path, alternative text) of a comparison over all tasks.
Together = tuple[str, Sequence[Sequence[str]], Sequence[str], Sequence[tuple[str, str]]]
FEW = 2  # figures of a summary
FIGURE = re.compile(r"!\[.*?\]\((?P<path>figures/(?:(?P<task>\S+?-)[0-9a-f]{8}-(?P<rest>\S+)|(?P<whole>\S+))\.png)\)")
KINDS = {  # of figures, by their names; what tells the most about a study comes first
    "heat map": "-by-",
    "curves": "^curves$",
    "images": "^images$",
    "ranks": "ranks$",
    "share of the pool": "^kept$",
    "ranking": "^ranking$",
    "profiles": "profile$",
    "image quality": "^quality$",
    "along the options": "^along-",
    "one option": "",
}


def markdown(
    groups: Sequence[Group],
    parts: Iterable[Sequence[str]],
    overall: Sequence[Together] = (),
    summary: str = "",
) -> str:
    """The whole leaderboard, or a summary of it: with all tables, and with few figures.

    Args:
        groups: all groups.
        parts: the lines of each.
        overall: each comparison over all tasks.
        summary: what is said at the top of a summary; empty: all figures are shown.
    """
    lines = ["# Leaderboard"]
    lines += [*of_overall(overall), ""]
    lines += [line for part in parts for line in part]
    if summary:
        lines = [lines[0], "", summary, *_with_few_figures(lines[1:])]
    lines += ["## Columns", "", *(f"- {name}: {meaning}." for name, meaning in MEANINGS.items()), ""]
    lines += ["## Methods", "", *(f"- {_md(text)}" for text in methods(groups)), ""]
    return "\n".join(lines)


def of_overall(overall: Sequence[Together]) -> list[str]:
    """The lines of the comparisons over all tasks."""
    lines: list[str] = []
    for title, numbers, remarks, figures in overall:
        lines += titled(_md(title), numbers, remarks)
        lines += [line for path, text in figures for line in ("", figure(path, text))]
    return lines


def few_figures(lines: Iterable[str]) -> dict[str, str]:
    """The figures of a summary by their path in the report, and their path in the summary, at most ``FEW``.

    Of each kind the first, in the order of ``KINDS``. In a summary their names have no hash, so that a link to one
    stays good as long as the study has such a figure.
    """
    first: dict[str, tuple[str, str]] = {}
    for line in lines:
        if found := FIGURE.match(line):
            kind = _kind(found["rest"] or found["whole"])
            first.setdefault(
                kind, (found["path"], f"figures/{found['task'] or ''}{found['rest'] or found['whole']}.png")
            )
    return dict([first[kind] for kind in KINDS if kind in first][:FEW])


def _kind(name: str) -> str:
    for kind, pattern in KINDS.items():
        if re.search(pattern, name):
            return kind
    raise AssertionError(name)


def _with_few_figures(lines: Sequence[str]) -> list[str]:
    shown = few_figures(lines)
    kept: list[str] = []
    for line in lines:
        found = FIGURE.match(line)
        if found is None:
            kept.append(line)
        elif found["path"] in shown:
            kept.append(line.replace(f"]({found['path']})", f"]({shown[found['path']]})", 1))
        else:
            kept.pop()  # the empty line before it
    return kept


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
        lines += [line for shown in drawn.listed for line in ("", shown)]
        lines += [line for section in drawn.sections for line in section.markdown]
        lines += [line for sweep in drawn.sweeps for line in sweep.markdown]
    lines += [*_quality_panel(group, drawn.scatter if drawn else None), ""]
    return lines


def _markdown_table(group: Group, table: Table) -> list[str]:
    heads = columns(group.key.metric)
    lines = [_line(list(heads.values())), _line(["---" if name in ("method", "data") else "--:" for name in heads])]
    rows = [cells(group, rank, row, reference=False) for rank, row in table.ranked]
    rows += [cells(group, None, row, reference=True) for row in table.reference]
    return lines + [_line([_md(text) for text in row.values()]) for row in rows]


def _further_tables(group: Group) -> list[str]:
    """Image metrics and published numbers, each in a separate table."""
    lines = titled(class_table.TITLE, class_table.class_table(group))
    lines += titled(image_metrics.TITLE, image_metrics.image_table(group), image_metrics.image_notes(group))
    if pools := pool_text.pool_table(group):
        lines += titled(pool_text.TITLE, pools, [pool_text.NOTE])
    if quotes := published.published(group):
        lines += ["", f"**{published.TITLE}**", "", published.WARNING, "", _line(list(published.HEAD)), "|---|--:|---|"]
        lines += [_line([_md(text) for text in quote]) for quote in quotes]
    if compared := against.against_table(group):
        lines += titled(against.TITLE, compared, against.NOTES)
    return lines


def _quality_panel(group: Group, scatter: Picture | None) -> list[str]:
    """What the image metrics have to do with the scores."""
    lines = titled(quality_text.TITLE, quality_text.quality_table(group), quality_text.sentences(group))
    return lines + (["", scatter.markdown] if scatter else [])


def methods(groups: Sequence[Group]) -> list[str]:
    """Every method that has a row, in a line: what it is and what it needs."""
    return [f"{name}: {said}" for name, said in method_facts(groups)]
