"""The history as one page that carries all it shows, in the look of the report, and as an Atom feed beside it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from xml.etree import ElementTree

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.regression.history import Drift, Event, History, Series, Step
from bench.analysis.regression.summary import plain_number
from bench.analysis.report.figures.curves import PALETTE, style, to_bytes
from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.pages.html import environment
from bench.analysis.report.pages.links import embedded
from bench.utils.git import Commit

STEP_COLUMNS = (
    *("Task", "Method", "Number", "Last before", "Commit", "Date", "Before", "After", "Change", "95 % interval"),
    *("Verdict", "Subject", "Options"),
)
DRIFT_COLUMNS = ("Task", "Method", "Number", "From", "To", "Before", "After", "Change", "95 % interval", "Verdict")
EVENT_COLUMNS = (
    "Task",
    "Number",
    "Last before",
    "Commit",
    "Date",
    "Series",
    "Changes",
    "Verdict",
    "Subject",
    "Also changed",
)
CHANGE_COLUMNS = ("Task", "Method", "Commit", "Date", "Options", "Subject")
QUESTION_COLUMNS = ("Task", "Question", "If so")
ATOM = "http://www.w3.org/2005/Atom"


def history_page(found: History, line: Sequence[Commit], branch: str, feed: str = "") -> str:
    """The HTML: all steps in a table, then a figure for each number of each method that is not always the same.

    Args:
        found: the history.
        line: all commits of the branch, oldest first.
        branch: its name.
        feed: the name of the feed's file beside the page; empty if there is none.
    """
    series = found.series
    moving = [each for each in series if any(dict(values) != dict(each.values[0]) for values in each.values)]
    with style():
        figures = [
            {
                "title": f"{each.task}, {each.method}: {each.metric}",
                "source": embedded(to_bytes(draw(each), "svg", transparent=True), "svg+xml"),
                "caption": caption(each),
            }
            for each in moving
        ]
    tracked = {commit.sha for each in series for commit in each.commits}
    return (
        environment()
        .get_template("history.html")
        .render(
            branch=branch,
            feed=feed,
            commits=len(line),
            tracked=len(tracked),
            tables=[{"title": title, "head": head, "rows": rows} for title, head, rows in tables(found) if rows],
            moved=any(each.steps or each.drift for each in series),
            figures=figures,
            still=[
                f"{each.task}, {each.method}: {each.metric}, {plain_number(each.means[-1], each.unit)}"
                for each in series
                if each not in moving
            ],
        )
    )


def tables(found: History) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    """What there is to say: title, columns and rows of a table each, which may have none."""
    series = found.series
    changes = [
        [each.task, each.method, commit.short, commit.date[:10], words, commit.subject]
        for each in series
        for commit, words in each.changes
    ]
    return [
        (
            "Steps",
            STEP_COLUMNS,
            [
                [each.task, each.method, each.metric, *step_cells(each, step)]
                for each in series
                for step in each.own_steps
            ],
        ),
        ("Steps of all series together", EVENT_COLUMNS, [event_cells(event) for event in found.events]),
        (
            "Drifts",
            DRIFT_COLUMNS,
            [
                [each.task, each.method, each.metric, *drift_cells(each, each.drift)]
                for each in series
                if each.drift is not None
            ],
        ),
        ("Changed defaults", CHANGE_COLUMNS, [list(row) for row in dict.fromkeys(map(tuple, changes))]),
        ("Open questions", QUESTION_COLUMNS, [[each.task, each.text, each.answer] for each in found.questions]),
    ]


def step_cells(series: Series, step: Step) -> list[str]:
    """A step in words: commits on both sides, date, levels, size with its interval, verdict, subject, options."""
    doubt = f" or one of {len(step.untracked)} before it" if step.untracked else ""
    levels = [plain_number(level, series.unit) for level in (step.before, step.after)]
    size = _change(series.unit, step.after - step.before)
    where = [f"{step.last.short} ({step.commits[0]})", f"{step.commit.short}{doubt} ({step.commits[1]})"]
    said = [size, _limits(series.unit, step.low, step.high), step.verdict, step.commit.subject, step.options]
    return [*where, step.commit.date[:10], *levels, *said]


def drift_cells(series: Series, drift: Drift) -> list[str]:
    """A drift in words: first and last commit, levels at both ends, the whole change with its interval, verdict."""
    levels = [plain_number(level, series.unit) for level in (drift.before, drift.after)]
    size = _change(series.unit, drift.after - drift.before)
    return [
        drift.first.short,
        drift.last.short,
        *levels,
        size,
        _limits(series.unit, drift.low, drift.high),
        f"drift, {drift.verdict}",
    ]


def event_cells(event: Event) -> list[str]:
    """An event in words."""
    sizes = [_change(event.unit, size) for size in (min(event.sizes), max(event.sizes))]
    return [
        event.task,
        event.metric,
        event.last.short,
        event.commit.short,
        event.commit.date[:10],
        ", ".join(event.methods),
        " to ".join(dict.fromkeys(sizes)),
        event.verdict,
        event.commit.subject,
        event.why or "no library or processor that the records know of",
    ]


def history_feed(found: History, branch: str) -> str:
    """An Atom feed of the same: an entry for each step, event, drift, changed default and question, newest first.

    The same history gives the same bytes. An entry's id names its commit and series, so that a reader shows it once.
    """
    entries: list[tuple[str, str, str, str]] = []  # date, id, title, text
    for each in found.series:
        name = f"{each.method} on {each.task}: {each.metric}"
        for step in each.own_steps:
            row = dict(zip(STEP_COLUMNS[3:], step_cells(each, step), strict=True))
            title = f"{name} {step.verdict}, {row['Before']} -> {row['After']}"
            entries.append((step.commit.date, f"{step.commit.sha}/step/{name}", title, _text(row)))
        if each.drift is not None:
            row = dict(zip(DRIFT_COLUMNS[3:], drift_cells(each, each.drift), strict=True))
            entries.append((each.drift.last.date, f"{each.drift.first.sha}/drift/{name}", f"{name} drifts", _text(row)))
        for commit, words in each.changes:
            about = f"{each.method} on {each.task}"
            entries.append((commit.date, f"{commit.sha}/default/{about}", f"{about}: {words}", commit.subject))
    for event in found.events:
        row = dict(zip(EVENT_COLUMNS, event_cells(event), strict=True))
        title = f"All series of {event.metric} on {event.task} together: {event.verdict}"
        entries.append((event.commit.date, f"{event.commit.sha}/event/{event.task}/{event.metric}", title, _text(row)))
    latest = max((each.commits[-1].date for each in found.series), default="1970-01-01T00:00:00+00:00")
    for question in found.questions:
        entries.append((latest, f"question/{question.task}/{question.answer}", question.text, question.answer))
    feed = ElementTree.Element("feed", {"xmlns": ATOM})
    for tag, text in (("id", f"tag:dfkd,2026:history/{branch}"), ("title", f"dfkd history of {branch}")):
        ElementTree.SubElement(feed, tag).text = text
    ElementTree.SubElement(feed, "updated").text = latest
    ElementTree.SubElement(ElementTree.SubElement(feed, "author"), "name").text = "dfkd history"
    # Commits of one second are in the order of the history.
    places = {commit.sha: place for each in found.series for place, commit in enumerate(each.commits)}
    entries.sort(key=lambda entry: (entry[0], places.get(entry[1].partition("/")[0], 0), *entry[1:]), reverse=True)
    for date, name, title, text in dict.fromkeys(entries):
        entry = ElementTree.SubElement(feed, "entry")
        for tag, value in (("id", f"tag:dfkd,2026:{name}"), ("title", title), ("updated", date), ("summary", text)):
            ElementTree.SubElement(entry, tag).text = value
    ElementTree.indent(feed)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(feed, encoding='unicode')}\n"


def _text(row: dict[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in row.items() if value)


def _change(unit: str, value: float) -> str:
    sign = "+" if value > 0 else ""
    return f"{sign}{100 * value:.2f} points" if unit == "share" else f"{sign}{plain_number(value, unit)}"


def _limits(unit: str, low: float, high: float) -> str:
    return f"{_change(unit, low)} to {_change(unit, high)}"


def caption(series: Series) -> str:
    """What a figure shows, for those who do not see it."""
    means = series.means
    last = plain_number(means[-1], series.unit)
    steps = "a drift" if series.drift else f"{len(series.steps)} step{'' if len(series.steps) == 1 else 's'}"
    return f"{len(means)} tracked commits, {steps}; now {last}"


def draw(series: Series) -> Figure:
    """Every seed as a dot, the mean of each commit as a line, levels and steps over it."""
    figure = Figure(figsize=(9.6, 2.6), layout=SteadyLayout())
    axes = figure.add_subplot()
    factor = 100 if series.unit == "share" else 1
    places = list(range(len(series.commits)))
    for place, values in zip(places, series.values, strict=True):
        axes.plot([place] * len(values), [factor * value for value in values.values()], ".", color="#BBBBBB", ms=4)
    axes.plot(places, [factor * mean for mean in series.means], "-", color=PALETTE[0], lw=1.2, marker="o", ms=3)
    if series.drift is not None:
        ends = [factor * series.drift.before, factor * series.drift.after]
        axes.plot([places[0], places[-1]], ends, color="#333333", lw=1.4)
    edges = [] if series.drift else [0, *(step.index for step in series.steps), len(places)]
    for start, end in itertools.pairwise(edges):
        level = factor * sum(series.means[start:end]) / (end - start)
        axes.plot([start - 0.4, end - 0.6], [level, level], color="#333333", lw=1.4)
    for step in series.steps:
        colour = {"worse": PALETTE[1], "better": PALETTE[2]}.get(step.verdict, PALETTE[3])
        axes.axvline(step.index - 0.5, color=colour, ls="--", lw=1)
        top = axes.get_xaxis_transform()
        axes.text(step.index - 0.4, 0.97, step.commit.short, transform=top, va="top", fontsize=8, color=colour)
    ticks = [int(tick) for tick in MaxNLocator(8, integer=True).tick_values(0, max(1, len(places) - 1))]
    shown = [tick for tick in ticks if 0 <= tick < len(places)]
    axes.set_xticks(shown, [series.commits[tick].short[:7] for tick in shown])
    axes.set_ylabel(f"{series.metric}, %".replace("$", r"\$") if factor == 100 else series.metric.replace("$", r"\$"))
    return figure
