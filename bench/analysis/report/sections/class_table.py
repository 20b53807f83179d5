"""What else was measured of the students on the test images: pixel accuracy and the IoU of each class."""

from __future__ import annotations

from statistics import fmean

from bench.analysis.report.sections.groups import Group, Row

TITLE = "Further test metrics, %"
ABSENT = "—"


def class_table(group: Group) -> list[list[str]]:
    """A head and one line per method: mean over seeds of each metric; empty where the score is all there is.

    ``—``: neither the labels nor the answers have the class.
    """
    names = list(dict.fromkeys(name for row in group.rows for record in row.ok for name in record.test_metrics))
    if not names:
        return []
    head = ["Method", *(name.replace("_", " ").removeprefix("iou[").removesuffix("]") for name in names)]
    return [head, *([row.label, *(_mean(row, name) for name in names)] for row in group.rows if row.ok)]


def _mean(row: Row, name: str) -> str:
    found = [record.test_metrics.get(name) for record in row.ok]
    values = [value for value in found if value is not None]
    return f"{100 * fmean(values):.1f}" if values else ABSENT
