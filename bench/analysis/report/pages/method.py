"""What the page of a method shows: its declaration, its options with the values that were used, and all of its rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bench.analysis.report.pages.links import task_page
from bench.analysis.report.pages.trial import seed_links, without_page
from bench.analysis.report.sections import leaderboard, published
from bench.analysis.report.sections.groups import Group, Row, ranks_of
from bench.errors import UserError
from bench.records import Record
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods
from bench.spec.options import limits_words, meaning_words, value_words
from bench.spec.published import PublishedScore
from bench.utils.text import cut

OPTIONS = ("Option", "Default", "Type", "Limits", "Values here", "Meaning")
SHOWN_VALUES = 8  # of one option; the others are counted
INSTALLED = "Meaning, default, type and limits come from the method's file as installed where this report was written."
UNKNOWN = "The method was not installed or readable where this report was written: these are the records' values."
QUOTED = "Published: from papers, with other budgets, teachers and selection rules. Not ranked."

OfMethod = Sequence[tuple[Group, Row, tuple[int, int] | None]]  # rows, with rank and how many have one


def method_pages(groups: Sequence[Group], paged: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """What each method's page shows, by the method's name, for every method that has a record.

    ``paged``: the ids of trials that have a page.
    """
    rows: dict[str, list[tuple[Group, Row, tuple[int, int] | None]]] = defaultdict(list)
    for group in groups:
        ranks = ranks_of(group)
        for row in (*group.rows, *group.left_out):
            rows[row.method].append((group, row, ranks.get(id(row))))
    cards = installed_methods()
    return {name: _page(name, found, cards.get(name), paged) for name, found in sorted(rows.items())}


def installed_methods() -> Mapping[str, MethodCard]:
    """What the installed methods declare. One of another package that cannot be read stops no report."""
    try:
        return find_methods()
    except UserError:
        return {}


def _page(name: str, rows: OfMethod, card: MethodCard | None, paged: Collection[str]) -> dict[str, Any]:
    results = [line for group, row, rank in rows for line in _lines(group, row, rank, paged)]
    quoted = any(line["published"] for line in results)
    return {
        "heading": name,
        "title": ", ".join(_distinct(record.method.title for _, row, _ in rows for record in row.records)),
        "doc": card.doc if card else "",
        "facts": _facts(rows, card),
        "options_head": OPTIONS,
        "options": _options(rows, card),
        "options_notes": _options_notes(rows, card),
        "results": results,
        "quoted": quoted,
        "results_notes": [*_one_seed(rows), *([QUOTED] if quoted else [])],
        "without": without_page((row for _, row, _ in rows), paged),
        "failures": [failure for group, row, _ in rows for failure in _failures(group, row, paged)],
    }


def _distinct(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts))


def _facts(rows: OfMethod, card: MethodCard | None) -> list[tuple[str, str]]:
    """Name and words: what the records say of the method, then what its installed file adds."""
    declared = [record.method for _, row, _ in rows for record in row.records]
    found = [
        ("Paper", "; ".join(_distinct(each.paper for each in declared))),
        ("Real data", ", ".join(_distinct(leaderboard.real_data(row) for _, row, _ in rows))),
        ("Teacher access", ", ".join(_distinct(each.access for each in declared))),
    ]
    return found + ([(words.capitalize(), said) for words, said in card.conditions()] if card else [])


def _options(rows: OfMethod, card: MethodCard | None) -> list[dict[str, str]]:
    """One line per option: those that the installed file declares, then those that only the records have."""
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for _, row, _ in rows:
        for option, value in row.records[0].trial.options.items():
            used[option][value_words(value)] += 1
    lines = []
    for spec in card.specs if card else ():
        default = value_words(spec.default)
        values = _values(used.pop(spec.name, Counter()), default)
        lines.append(
            (spec.name, f"{default} {spec.unit}", spec.type_name, limits_words(spec), values, meaning_words(spec))
        )
    lines += [(name, "", "", "", _values(values, ""), "") for name, values in sorted(used.items())]
    return [dict(zip(OPTIONS, line, strict=True)) for line in lines]


def _values(used: Counter[str], default: str) -> str:
    """The values of one option, the most frequent first, each with the number of its rows where there are several."""
    if not used:
        return leaderboard.ABSENT
    if len(used) == 1:
        return "the default" if default in used else next(iter(used))
    listed = sorted(used.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{value} ({count} row{'s' if count > 1 else ''})" for value, count in listed[:SHOWN_VALUES]]
    return ", ".join(words) + (f", {len(listed) - SHOWN_VALUES} others" if len(listed) > SHOWN_VALUES else "")


def _options_notes(rows: OfMethod, card: MethodCard | None) -> list[str]:
    if card is None:
        return [UNKNOWN]
    trials = [row.records[0].trial for _, row, _ in rows]
    installed = {rule: card.sha_by(rule) for rule in {trial.identity_rule for trial in trials}}
    other = len([trial for trial in trials if trial.method_sha != installed[trial.identity_rule]])
    return [INSTALLED] + ([f"{other} of {len(rows)} rows were measured with another version of it."] if other else [])


def _lines(group: Group, row: Row, rank: tuple[int, int] | None, paged: Collection[str]) -> list[dict[str, Any]]:
    """A line with everything measured of a row and the first number from a paper; one line per further number."""
    quotes = [entry for entry in group.published.methods if entry.method == row.method]
    first = {
        "task": group.key.task,
        "page": f"../{task_page(group.key.task)}#{group.name}",
        "budget": leaderboard.budget_words(group),
        "label": row.label,
        "teacher": leaderboard.teacher_words(group).strip(", %") or leaderboard.ABSENT,
        "score": leaderboard.named_score(row),
        "normalised": leaderboard.normalised_words(group, row),
        "rank": f"{rank[0]} of {rank[1]}" if rank else leaderboard.ABSENT,
        "seeds": leaderboard.seeds_words(row),
        "trials": seed_links(row.records, paged),
    }
    return [
        {**(first if place == 0 else {}), "further": place > 0, **_quote(row, quote)}
        for place, quote in enumerate(quotes or [None])
    ]


def _quote(row: Row, quote: PublishedScore | None) -> dict[str, str]:
    """A number from a paper, and how far the measured mean lies above it, in percentage points."""
    if quote is None:
        return {"published": "", "difference": "", "source": ""}
    difference = f"{100 * (row.score[0] - quote.score):+.1f}" if row.score else leaderboard.ABSENT
    return {"published": published.percent(quote), "difference": difference, "source": quote.source}


def _one_seed(rows: OfMethod) -> list[str]:
    return ["One seed: no interval."] if any(len(row.ok) == 1 for _, row, _ in rows) else []


def _failures(group: Group, row: Row, paged: Collection[str]) -> list[dict[str, Any]]:
    """A line for each status and reason of a row, with the seeds that ended so."""
    ended: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in row.records:
        if record.status != "ok":
            ended[record.status.replace("_", " "), cut(record.reason) or "not given"].append(record)
    return [
        {
            "task": group.key.task,
            "budget": leaderboard.budget_words(group),
            "label": row.label,
            "seeds": ", ".join(str(record.trial.seed) for record in of_status),
            "trials": seed_links(of_status, paged),
            "status": status,
            "reason": reason,
        }
        for (status, reason), of_status in ended.items()
    ]
