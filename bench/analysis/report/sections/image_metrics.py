"""The image metrics that a study asked for, beside the methods' scores: as a table, and as a CSV of every trial."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from bench.analysis.report.sections.groups import Group, Row, once
from bench.analysis.report.sections.leaderboard import score_words
from bench.records import ImageMetric, Record
from bench.spec.metric_names import METRICS, Metric, extractor_of, metric_of

TITLE = "The images that the students were trained on"
ABSENT = "—"
UNRELIABLE = "!"
MARKS = {"unreliable": f"{UNRELIABLE} ", "unavailable": f"{ABSENT} ", "failed": f"{ABSENT} ", "ok": ""}
CSV_HEAD = (
    *("task", "budget", "teacher_sha", "method", "label", "seed", "id", "score", "metric", "extractor"),
    *("value", "status", "images", "real_images", "dimension", "pairs", "spread"),
)


@dataclass(frozen=True)
class Column:
    """One metric through one extractor: numbers from different extractors are never in one column."""

    name: str
    extractor: str  # hash; empty for a metric that needs none
    among_several: bool = False  # whether the group has this metric through other extractors of the same name as well

    @property
    def metric(self) -> Metric | None:
        return metric_of(self.name)

    @property
    def title(self) -> str:
        """``fd[teacher]``, or ``fd[teacher] @1a2b3c4d`` where its name alone would not tell it apart."""
        return f"{self.name} @{self.extractor[:8] or 'unknown'}" if self.among_several else self.name

    @property
    def head(self) -> str:
        """The title with an arrow in the better direction, where there is one."""
        better = self.metric.higher_is_better if self.metric else None
        return self.title + {True: " ↑", False: " ↓", None: ""}[better]

    def takes(self, entry: ImageMetric) -> bool:
        """Whether a measurement of this column's metric stands in it: it has a value, through the same extractor."""
        return _measured(entry) and entry.extractor == self.extractor

    def entry(self, record: Record) -> ImageMetric | None:
        """The record's measurement for this column, if it has one with a value."""
        entry = record.image_metrics.get(self.name)
        return entry if entry is not None and self.takes(entry) else None


@once
def columns_of(group: Group) -> list[Column]:
    """In the order in which the metrics are declared, then by extractor; those without any value too."""
    hashes = {
        name: {entry.extractor for _, _, entry in entries if _measured(entry)}
        for name, entries in _entries(group).items()
    }
    return [
        Column(name, extractor, len(hashes[name]) > 1)
        for name in sorted(hashes, key=_place)
        for extractor in sorted(hashes[name] or {""})
    ]


@once
def measured_of(group: Group) -> dict[Column, dict[int, list[tuple[Record, ImageMetric]]]]:
    """What stands in each column, by a row's ``id()``: the trials that have a value, in the order of their seeds."""
    found: dict[Column, dict[int, list[tuple[Record, ImageMetric]]]] = {}
    for column in columns_of(group):
        of_rows = found[column] = defaultdict(list)
        for row, record, entry in _entries(group)[column.name]:
            if column.takes(entry):
                of_rows[id(row)].append((record, entry))
    return found


def image_table(group: Group) -> list[list[str]]:
    """A head and one line per method: its score, the shares of clipped values and of different images, and the mean
    over seeds of each metric; empty when the study asked for none.

    In brackets: n, the number of images; d, the dimension of the extractor's features; pairs, of which a diversity is
    the mean. ``!``: at least one seed's value is unreliable. ``—``: there is none. ``image_notes`` says why.
    """
    columns = columns_of(group)
    if not columns:
        return []
    found = measured_of(group)
    lines = []
    for row in group.rows:
        if row.ok:
            values = [_cell(row, [entry for _, entry in found[column].get(id(row), ())]) for column in columns]
            lines.append([row.label, score_words(row), _clipped(row), _different(row), *values])
    return [["Method", "Score, %", "Clipped, %", "Different, %", *(column.head for column in columns)], *lines]


def _clipped(row: Row) -> str:
    """The share of the images' values that were outside the range of pixels: every metric sees them cut."""
    shares = [record.images.clipped for record in row.ok if record.images.count]
    return f"{100 * fmean(shares):.1f}" if shares else ABSENT


def _different(row: Row) -> str:
    """How many different images there are among a trial's images, as a share of them."""
    found = [record.images for record in row.ok if record.images.count]
    shares = [images.different / images.count for images in found if images.different is not None]
    return f"{100 * fmean(shares):.0f}" if shares and len(shares) == len(found) else ABSENT


@once
def image_notes(group: Group) -> list[str]:
    """What stands under the table: how to read it, and every different note of a record once."""
    columns = columns_of(group)
    if not columns:
        return []
    said: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    compared: dict[str, dict[str, None]] = {}
    for column in columns:
        for row, _, entry in _entries(group)[column.name]:
            if _measured(entry) and not column.takes(entry):
                continue
            if entry.note or entry.status != "ok":
                titles, labels = said.setdefault((entry.status, entry.note), ({}, {}))
                titles[column.title if _measured(entry) else column.name] = None
                labels[row.label] = None
            if entry.real_images is not None and _measured(entry):
                compared.setdefault(f"{entry.real_images:,}", {})[column.title] = None
    rows = [row for row in group.rows if row.ok]
    values = (entry for of_rows in measured_of(group).values() for found in of_rows.values() for _, entry in found)
    features = ", d: dimension of the features" if any(entry.dimension is not None for entry in values) else ""
    found = [f"Mean over seeds; n: images per seed{features}. ↑ ↓: the better direction."]
    if any(record.images.clipped for row in rows for record in row.ok):
        found[0] += " Clipped: values outside the range of pixels; the student got them so, the metrics see them cut."
    if any(record.images.different for row in rows for record in row.ok):
        found[0] += " Different: equal images are counted once."
    if any(record.images.count and record.images.different is None for row in rows for record in row.ok):
        found[0] += (
            f" Different: {ABSENT} in older records, where up to a quarter of the images are copies in the place of "
            "held-out ones: recall and coverage are a little lower for it."
        )
    found += [f"Compared with {count} training images: {', '.join(titles)}." for count, titles in compared.items()]
    for status, mark in MARKS.items():
        for (stated, note), (titles, labels) in said.items():
            if stated == status:
                whose = "" if len(labels) == len(rows) else f" ({', '.join(labels)})"
                reason = ": ".join(text for text in ("" if status == "ok" else status, note) if text)
                found.append(f"{mark}{', '.join(titles)}{whose}: {reason}")
    return found


def image_csv(parts: Iterable[str]) -> str:
    """One line per finished trial and metric, with plain numbers; empty when no trial has an image metric.

    ``parts`` holds the :func:`image_lines` of each group.
    """
    lines = "".join(parts)
    return f"{','.join(CSV_HEAD)}\n{lines}" if lines else ""


def image_lines(group: Group) -> str:
    """The lines of one group in the CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        _csv_line(group, row, record, name)
        for row in group.rows
        for record in row.ok
        for name in sorted(record.image_metrics, key=_place)
    )
    return out.getvalue()


def number(value: float) -> str:
    """At least three significant digits, whatever the magnitude.

    >>> [number(value) for value in (0, 0.0012, 0.98, 12.34, 1234.5, -0.000001)]
    ['0', '0.00120', '0.980', '12.3', '1,234', '-1.00e-06']
    """
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.2e}"))))
    return f"{value:,.{max(0, 2 - magnitude)}f}" if -5 < magnitude < 7 else f"{value:.2e}"


def _measured(entry: ImageMetric) -> bool:
    return entry.value is not None and math.isfinite(entry.value)


@once
def _entries(group: Group) -> dict[str, list[tuple[Row, Record, ImageMetric]]]:
    """What the trials that went well have of each metric, by its name; without a value too."""
    found: dict[str, list[tuple[Row, Record, ImageMetric]]] = defaultdict(list)
    for row in group.rows:
        for record in row.ok:
            for name, entry in record.image_metrics.items():
                found[name].append((row, record, entry))
    return found


@cache
def _place(name: str) -> tuple[int, str, str]:
    metric = metric_of(name)
    return list(METRICS).index(metric.name) if metric else len(METRICS), extractor_of(name), name


def _cell(row: Row, found: Sequence[ImageMetric]) -> str:
    if not found:
        return ABSENT
    beside = [f"{len(found)} of {len(row.ok)} seeds"] if len(found) < len(row.ok) else []
    beside += [f"n {_range([entry.images for entry in found])}"]
    beside += [f"d {text}" for text in [_range([entry.dimension for entry in found])] if text]
    beside += [f"pairs {text}" for text in [_range([entry.pairs for entry in found])] if text]
    flag = UNRELIABLE if any(entry.status == "unreliable" for entry in found) else ""
    mean = fmean(entry.value for entry in found if entry.value is not None)
    return f"{number(mean)}{flag} ({', '.join(beside)})"


def _range(counts: Sequence[int | None]) -> str:
    """``2,048``, or ``500 to 2,048`` where the seeds differ; empty where none has a count."""
    known = [count for count in counts if count is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _csv_line(group: Group, row: Row, record: Record, name: str) -> list[object]:
    entry = record.image_metrics[name]
    value = f"{entry.value:.9g}" if entry.value is not None and _measured(entry) else ""
    spread = f"{entry.spread:.9g}" if entry.spread is not None else ""
    score = f"{record.scores[record.headline]:.9g}"
    trial = [group.key.task, group.key.budget, group.key.teacher, row.method, row.label, record.trial.seed, record.id]
    counts = [entry.images, entry.real_images, entry.dimension, entry.pairs]
    return [*trial, score, name, entry.extractor, value, entry.status, *counts, spread]
