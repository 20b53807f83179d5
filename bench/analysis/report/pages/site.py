"""The front page of a site of many studies, as HTML and as Markdown: what each asks, and who leads in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.analysis.report.figures.asked import CAPTION
from bench.analysis.report.figures.board import shown_units
from bench.analysis.report.pages.boards import board_page
from bench.analysis.report.pages.html import environment
from bench.analysis.report.pages.index import leader
from bench.analysis.report.pages.links import INDEX, method_page
from bench.analysis.report.pages.method import installed_methods
from bench.analysis.report.pages.standings import standings
from bench.analysis.report.sections import against
from bench.analysis.report.sections.groups import FLOOR, Group, curves_of
from bench.analysis.report.sections.leaderboard import budget_words
from bench.analysis.report.sections.published import published
from bench.analysis.report.sections.standings import Standing
from bench.analysis.report.sections.study import commits_of, finished, read_study, records_of
from bench.utils.markdown import escape, figure, line, titled

HOME = "All studies"
NAV = b'<nav aria-label="Pages">'  # of every page, see base.html
SHOWN = 6  # leaders of a study on the front page, and commits
TITLES = {
    "": "Studies",
    "ablations": "Ablations: what a method's own idea does",
    "sensitivity": "Sensitivity to options",
}
ABOUT = (
    "Every study gives its methods the same budget, the same teacher and the same rule for the score. The leader is "
    "the data-free method with the best mean; the report says how sure that is."
)
OVER_ALL = (
    "Of several studies that measured a number, the one with the firmest verdict, then the one nearest to the paper's "
    "run, then the most teacher images."
)


@dataclass(frozen=True)
class PublishedStudy:
    """A study of a site: its name, which is its folder's path in the site, and its results folder or archive."""

    name: str
    results: Path


@dataclass(frozen=True)
class Entry:
    """What a front page says of a study; plain values, to be kept as JSON."""

    name: str
    description: str
    date: str  # on which the last trial ended, or empty
    commits: list[str]  # that the trials were run at, shortened
    budgets: list[str]
    tasks: list[str]
    trials: int
    failed: int
    seeds: str
    leaders: list[dict[str, str]] = field(default_factory=list)  # of each task and budget, as on a report's index
    against: list[dict[str, Any]] = field(default_factory=list)  # published against measured
    standings: list[dict[str, Any]] = field(default_factory=list)  # of each method, task and budget
    published: dict[str, list[list[str]]] = field(default_factory=dict)  # what papers say of each task


def describe(study: PublishedStudy, groups: Sequence[Group]) -> Entry:
    """What is said of a study, from the groups of its report."""
    records = records_of(groups)
    seeds = sorted({len(row.records) for group in groups for row in group.rows})
    cards = installed_methods()
    return Entry(
        name=study.name,
        description=read_study(study.results).description,
        date=max((finished(record)[:10] for record in records), default=""),
        commits=commits_of(records),
        budgets=list(dict.fromkeys(map(budget_words, groups))),
        tasks=list(dict.fromkeys(group.key.task for group in groups)),
        trials=len(records),
        failed=sum(record.status not in ("ok", "unsupported") for record in records),
        seeds=str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "0",
        leaders=[found for group in groups if (found := leader(group)) is not None],
        against=[line for group in groups for line in against.facts_of(group)],
        published={group.key.task: list(map(list, published(group))) for group in groups},
        standings=[
            asdict(each)
            for group in groups
            for each in standings(study.name, group, curves_of(group, study.results), cards)
        ],
    )


def standings_of(entries: Sequence[Entry]) -> list[Standing]:
    """How each method stands in every study."""
    return [Standing(**each) for entry in entries for each in entry.standings]


def published_of(entries: Sequence[Entry]) -> dict[str, list[list[str]]]:
    """What papers say of each task, from the study that quotes the most."""
    found: dict[str, list[list[str]]] = {}
    for entry in entries:
        for task, rows in entry.published.items():
            found[task] = max(found.get(task, []), rows, key=len)
    return found


def quoted_of(entries: Sequence[Entry]) -> dict[str, list[tuple[str, float, float]]]:
    """What papers print of each task, where it is known how long they trained: method, teacher images and percent."""
    tasks = {task for entry in entries for task in entry.tasks}
    return {task: against.quoted_at([entry.against for entry in entries], task) for task in sorted(tasks)}


def front_page(entries: Sequence[Entry]) -> str:
    """The site's front page, from what is said of each study."""
    found = standings_of(entries)
    return (
        environment()
        .get_template("site.html")
        .render(
            nav=[(HOME, INDEX)],
            about=ABOUT,
            boards=[_board(task, [each for each in found if each.task == task]) for task in _distinct(found, "task")],
            methods=[
                {
                    "name": method,
                    "page": method_page(method),
                    "title": next(e.title for e in found if e.method == method),
                }
                for method in _distinct(found, "method")
            ],
            sections=[(title, list(map(_card, each))) for title, each in _sorted(entries)],
            against=against.over_all({entry.name: entry.against for entry in entries}),
            against_title=against.TITLE,
            against_notes=(OVER_ALL, *against.NOTES),
        )
    )


def _distinct(found: Sequence[Standing], name: str) -> list[str]:
    return sorted({str(getattr(each, name)) for each in found})


def _board(task: str, found: Sequence[Standing]) -> dict[str, Any]:
    """A task's line on the front page."""
    free = [each for each in found if each.need == "none" and each.known and each.method != FLOOR]
    best = min(free, key=lambda each: (-each.score, each.method), default=None)
    return {
        "task": task,
        "page": board_page(task),
        "budgets": list(shown_units(found)),
        "studies": len({each.study for each in found}),
        "methods": len({each.method for each in found}),
        "best": f"{best.method}, {best.score:.1f} % ({best.budget_words})" if best else "none above chance",
    }


def readme(entries: Sequence[Entry], figures: Mapping[str, str]) -> str:
    """The same as Markdown, with the ways to the summaries in place of the reports.

    ``figures``: where those of score against teacher images lie, by task.
    """
    lines = ["# Published studies", "", ABOUT, ""]
    lines += [
        "Here are summaries: of each study the leaderboard and one or two figures. `make site` renders the whole",
        "reports into `site/`, with a page for each task, method and trial. The records are in [results/](../results),",
        "one archive for each study. `make reports` writes this folder.",
    ]
    if figures:
        lines += ["", "## Score against teacher images, over all studies"]
        for task, file in figures.items():
            lines += ["", figure(file, f"Score against teacher images on {task}")]
        lines += ["", CAPTION]
    for title, each in _sorted(entries):
        lines += [
            "",
            f"## {escape(title)}",
            "",
            line(["Study", "Tasks", "Budget", "Trials", "Leading, data-free", "Last trial"]),
        ]
        lines.append(line(["---", "---", "---", "--:", "---", "---"]))
        lines += [line(_cells(entry)) for entry in each]
    if compared := against.over_all({entry.name: entry.against for entry in entries}):
        lines += ["", f"## {against.TITLE}", *titled("", compared, (OVER_ALL, *against.NOTES))[2:]]
    return "\n".join([*lines, ""])


def with_way_home(content: bytes, path: str, depth: int) -> bytes:
    """A page of a report with a link to the site's front page.

    Args:
        content: of a file of the report; what is no page stays as it is.
        path: of the file, in the report.
        depth: how many folders the report lies below the front page.
    """
    if not path.endswith(".html"):
        return content
    way = f"{'../' * (depth + path.count('/'))}{INDEX}"
    return content.replace(NAV, NAV + f'<a href="{way}">{HOME}</a>'.encode(), 1)


def _sorted(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """The studies in sections, by the folder that they lie in; those in no folder come first."""
    ordered = sorted(entries, key=lambda entry: (entry.name.rpartition("/")[0], entry.name))
    return [
        (TITLES.get(folder, folder), list(each))
        for folder, each in groupby(ordered, key=lambda entry: entry.name.rpartition("/")[0])
    ]


def _card(entry: Entry) -> dict[str, Any]:
    failed = f", {entry.failed} failed" if entry.failed else ""
    return {
        "name": entry.name,
        "page": f"{quote(entry.name)}/{INDEX}",
        "description": entry.description,
        "facts": [
            ("Tasks", ", ".join(entry.tasks)),
            ("Budget", "; ".join(entry.budgets)),
            ("Trials", f"{entry.trials}{failed}"),
            ("Seeds", entry.seeds),
            ("Last trial", entry.date or "unknown"),
            ("Commit", _few(entry.commits) or "unknown"),
        ],
        "leaders": [each | {"page": f"{quote(entry.name)}/{each['page']}"} for each in entry.leaders[:SHOWN]],
        "several": len(entry.budgets) > 1,
        "more": max(0, len(entry.leaders) - SHOWN),
    }


def _cells(entry: Entry) -> list[str]:
    said = f": {escape(entry.description)}" if entry.description else ""
    several = len({each["task"] for each in entry.leaders}) > 1
    leaders = [
        f"{each['label']}{' ' + each['among'] if each['among'] else ''}{' on ' + each['task'] if several else ''}"
        for each in entry.leaders
    ]
    return [
        f"[{escape(entry.name)}]({quote(entry.name)}/leaderboard.md){said}",
        escape(", ".join(entry.tasks)),
        escape("; ".join(entry.budgets)),
        str(entry.trials),
        escape(_few(leaders)),
        escape(entry.date),
    ]


def _few(texts: Sequence[str]) -> str:
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")
