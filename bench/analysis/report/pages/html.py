"""The pages as HTML: no request leaves their folder, readable on a phone and in the dark."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.analysis.report.pages.index import board
from bench.analysis.report.pages.links import INDEX, method_page
from bench.analysis.report.pages.pictures import Picture
from bench.analysis.report.sections import overall_text
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.leaderboard import MEANINGS, method_facts
from bench.analysis.report.sections.overall import TITLE, TaskSet
from bench.analysis.report.sections.study import StudyWords
from bench.analysis.report.vendor import vendored


@dataclass(frozen=True)
class Overall:
    """A comparison over all tasks and its two figures."""

    block: TaskSet
    profiles: Picture
    ranks: Picture


def task_html(groups: Sequence[Group], sections: Sequence[Mapping[str, Any]], study: str = "") -> str:
    """A task's page, of what :func:`bench.analysis.report.pages.task.section` found for each of its groups."""
    parts = [part for each in sections for detail in each["details"] for part in detail["parts"]]
    return _html(
        "task.html",
        nav=_back(study),
        study=study,
        heading=groups[0].key.task,
        groups=_called(sections),
        meanings=MEANINGS,
        methods=[(f"../{method_page(name)}", name, said) for name, said in method_facts(groups)],
        curves=any(part.get("curves") for part in parts),
        parallel=any(part["kind"] == "parallel" for part in parts),
    )


def _called(sections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The groups with names that identify their tables to a screen reader."""
    found = []
    for place, each in enumerate(sections):
        twins = sum(other["budget"] == each["budget"] for other in sections[:place])
        called = f"{each['task']}, {each['budget']}{f', no. {twins + 1}' if twins else ''}"
        found.append({**each, "called": called})
    return found


def method_html(shown: Mapping[str, Any], study: str = "") -> str:
    """A method's page, from what :func:`bench.analysis.report.pages.method.method_pages` found for it."""
    return _html("method.html", nav=_back(study), study=study, **shown)


def trial_html(shown: Mapping[str, Any]) -> str:
    """A trial's page, from what :func:`bench.analysis.report.pages.trial.trial_pages` found for it."""
    return _html("trial.html", **shown)


def index_page(
    groups: Sequence[Group],
    overall: Sequence[Overall] = (),
    paged: Collection[str] = (),
    study: StudyWords | None = None,
    files: Sequence[str] = (),
) -> str:
    """The index: what the study asks, who leads, who does over all tasks, all rows, the ways to the other pages.

    Args:
        groups: all of the report.
        overall: the comparisons over all tasks.
        paged: the ids of trials that have a page.
        study: what the results keep of their study.
        files: what can be downloaded, by path in the report.
    """
    return _html(
        "index.html",
        **board(groups, paged, study or StudyWords()),
        overall=[_overall(each) for each in overall],
        overall_title=TITLE,
        overall_notes=overall_text.NOTES,
        files=files,
    )


def _html(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)


def _back(study: str) -> list[tuple[str, str]]:
    """From a page in a folder of the report to its index."""
    return [(f"{study}: all results" if study else "All results", f"../{INDEX}")]


def _overall(drawn: Overall) -> dict[str, Any]:
    return {
        "title": overall_text.title(drawn.block),
        "table": overall_text.overall_table(drawn.block),
        "links": {method: method_page(method) for method in drawn.block.rows},
        "notes": overall_text.overall_notes(drawn.block),
        "figures": [picture.shown() for picture in (drawn.profiles, drawn.ranks)],
    }


@cache
def environment() -> Environment:
    """The templates of all pages: whatever is put into them is escaped."""
    found = Environment(
        loader=PackageLoader("bench.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Not escaped: our own copies of files, whose checksums are tested.
    found.globals["vendored"] = lambda name: Markup(vendored(name))
    found.globals["island"] = island
    return found


def island(json_text: str) -> Markup:
    r"""JSON as a script element holds it: no text in it can end the element.

    >>> print(island('{"a": "</script>"}'))
    {"a": "\u003c/script\u003e"}
    """
    for sign in "<>&":
        json_text = json_text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(json_text)
