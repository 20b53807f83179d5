"""The image metrics that a study asked for, beside the methods' scores."""

from __future__ import annotations

from statistics import fmean

from bench.metrics import METRICS
from bench.report.groups import Group, Row

TITLE = "The images that the students were trained on"
ABSENT = "—"


def image_table(group: Group) -> list[list[str]]:
    """A head and one line a method: mean over seeds of each metric; empty when the study asked for none.

    A metric's arrow says which direction is better, where one is. ``—`` stands where it could not be measured.
    """
    names = sorted({name for row in group.rows for record in row.ok for name in record.image_metrics})
    if not names:
        return []
    head = ["Method", *(f"{name}{_arrow(name)}" for name in names), "Images"]
    return [head, *([row.label, *(_mean(row, name) for name in names), _count(row)] for row in group.rows if row.ok)]


def _arrow(name: str) -> str:
    metric = METRICS.get(name)
    if metric is None or metric.higher_is_better is None:
        return ""
    return " ↑" if metric.higher_is_better else " ↓"


def _mean(row: Row, name: str) -> str:
    found = [record.image_metrics[name].value for record in row.ok if name in record.image_metrics]
    values = [value for value in found if value is not None]
    return f"{fmean(values):.3f}" if values else ABSENT


def _count(row: Row) -> str:
    return f"{fmean(record.images.count for record in row.ok):,.0f}"
