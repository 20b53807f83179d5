"""Numbers from papers: quoted with their source in a separate table, never mixed with measured ones."""

from __future__ import annotations

from bench.analysis.report.sections.groups import Group
from bench.spec.published import PublishedScore

TITLE = "Published numbers, quoted"
WARNING = "From papers, with other budgets, teachers and selection rules. Not measured here, and not ranked."
HEAD = ("Method", "Published, %", "Source")


def percent(quote: PublishedScore) -> str:
    """The number, and its deviation where the source gives one."""
    return f"{100 * quote.score:.2f}" + ("" if quote.deviation is None else f" ± {100 * quote.deviation:.1f}")


def published(group: Group) -> list[tuple[str, str, str]]:
    """(method, percent, source) for the teacher and every method that a paper gives a number for on this task."""
    quotes = [("teacher", group.published.teacher)] if group.published.teacher else []
    quotes += [(entry.method, entry) for entry in group.published.methods]
    return [(name, percent(entry), entry.source) for name, entry in quotes if entry is not None]
