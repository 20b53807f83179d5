"""The panel "What the options change" in words: tables and sentences that Markdown and the page share."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import fmean

from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.image_metrics import UNRELIABLE, number
from bench.analysis.report.sections.sensitivity_numbers import unchanged
from bench.analysis.report.sections.sweeps import Measure, Reading, Sweep

TITLE = "What the options change"
ABSENT = "—"


def sweep_table(sweep: Sweep) -> list[list[str]]:
    """A head and one line per cell: of each measure the mean over seeds, lowest and highest seed in brackets."""
    head = [sweep.option, "Seeds", *(f"{each.title}{' (logged)' if each.logged else ''}" for each in sweep.measures)]
    lines = [
        [cell.label, str(len(cell.row.ok)), *(_cell(measure.readings[place]) for measure in sweep.measures)]
        for place, cell in enumerate(sweep.cells)
    ]
    return [head, *lines]


def sweep_notes(sweep: Sweep, group: Group) -> list[str]:
    """How to read the table, which measures the option moves in every seed, and what is not in it."""
    found = []
    if any(len(cell.row.ok) > 1 for cell in sweep.cells):
        found.append("Mean over seeds; lowest and highest seed in brackets.")
    if any(measure.logged for measure in sweep.measures):
        found.append(
            "Logged: the method's own scalars. The table has the last value, a mean over the steps since the "
            "previous evaluation."
        )
    if not all(reading.reliable for measure in sweep.measures for cell in measure.readings for reading in cell):
        found.append(f"{UNRELIABLE}: at least one seed's value is unreliable.")
    if unchanged([cell.row for cell in sweep.cells if not cell.other], [sweep.option]):
        found.append(f"Warning: {sweep.option} changed nothing: the scores are the same, to the last bit. Is it used?")
    found += _parted(sweep)
    failed = [row.label for row in group.rows if row.method == sweep.method and not row.ok]
    return found + ([f"Left out because every seed failed: {', '.join(failed)}."] if failed else [])


def sweep_caption(sweep: Sweep) -> str:
    """What the marks and lines mean; only what this figure really shows."""
    several = any(len(cell.row.ok) > 1 for cell in sweep.cells)
    parts = ["A dot is a seed, a bar the mean over seeds." if several else "One seed: one dot each."]
    if any(measure.logged for measure in sweep.measures):
        thin = "; thin: single seeds" if several else ""
        parts.append(f"Lines over the share of the budget: what the method logs during training{thin}.")
    if not all(reading.reliable for measure in sweep.measures for cell in measure.readings for reading in cell):
        parts.append("Hollow: the value is unreliable.")
    if any(cell.other for cell in sweep.cells):
        parts.append("Diamonds: other methods, for comparison.")
    return " ".join(parts)


def sweep_alt(sweep: Sweep, group: Group) -> str:
    """The picture in a sentence; its numbers are in the table."""
    titles = ", ".join(measure.title for measure in sweep.measures)
    return f"{sweep.title} on {group.key.task}: {titles}, for {', '.join(sweep.values)}"


def _cell(readings: Sequence[Reading]) -> str:
    if not readings:
        return ABSENT
    values = [reading.value for reading in readings]
    flag = "" if all(reading.reliable for reading in readings) else UNRELIABLE
    low, high = number(min(values)), number(max(values))
    return f"{number(fmean(values))}{flag}{f' ({low} to {high})' if low != high else ''}"


def _parted(sweep: Sweep) -> list[str]:
    """For each line the measures in which all seeds of the first value lie on one side of all seeds of the last."""
    found = []
    for rest in sweep.rests:
        places = [place for place, cell in enumerate(sweep.cells) if not cell.other and cell.rest == rest]
        first, last = places[0], places[-1]
        names = [f"{sweep.option}={sweep.cells[place].label}" for place in (first, last)]
        counts = [len(sweep.cells[place].row.ok) for place in (first, last)]
        if min(counts) < 2:
            continue
        sides = {"below": _sided(sweep.measures, first, last), "above": _sided(sweep.measures, last, first)}
        said = [f"{side} in {', '.join(titles)}" for side, titles in sides.items() if titles]
        chance = 200 / comb(sum(counts), counts[0])
        what = f"is {' and '.join(said)}" if said else "is not consistently below or above in any measure"
        found.append(
            f"Every seed of {names[0]}, compared with every seed of {names[1]}, {what}. A measure that the option does "
            f"not change would be separated like this by chance in {chance:.2g} % of all cases."
        )
    return found


def _sided(measures: Sequence[Measure], low: int, high: int) -> list[str]:
    return [
        measure.title
        for measure in measures
        if (below := [reading.value for reading in measure.readings[low]])
        and (above := [reading.value for reading in measure.readings[high]])
        and max(below) < min(above)
    ]
