"""Published numbers and image metrics: in the report, but never among the ranked scores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from record_builder import make_record

from bench.records import Record
from bench.report.groups import Group, group_records, tables_of
from bench.report.image_table import image_table
from bench.report.page import page
from bench.report.published import published
from bench.report.tables import cells, comma_separated, markdown
from bench.task import get_task


def group(task: str = "mnist/lenet5-half") -> Group:
    (found,) = group_records(
        [make_record(method=name, seed=seed, task=task) for name in ("dafl", "noise") for seed in (0, 1)]
    )
    return found


def test_papers_are_quoted_with_their_source_for_their_task_alone() -> None:
    quotes = published(group())
    task = get_task("mnist/lenet5-half")
    assert task.published.teacher is not None
    assert quotes[0] == ("teacher", "98.91", task.published.teacher.source)
    assert {name for name, _, _ in quotes} == {"teacher", *(entry.method for entry in task.published.methods)}
    assert all(source for _, _, source in quotes)
    assert published(group("digits/lenet5-half")) == []
    assert published(group("some/task")) == []


def test_no_quoted_number_reaches_a_ranking_or_the_csv() -> None:
    found = group()
    quoted = {score for _, score, _ in published(found)}
    ranked = [cells(found, rank, row, reference=False) for table in tables_of(found) for rank, row in table.ranked]
    assert not quoted & {text for row in ranked for text in row.values()}
    assert not any(score in comma_separated([found]) for score in quoted)
    assert {row["method"] for row in ranked} == {"dafl", "noise"}


@pytest.mark.parametrize("form", ["markdown", "page"])
def test_quotes_stand_in_a_table_of_their_own_under_a_warning(form: str, tmp_path: Path) -> None:
    found = group()
    text = markdown([found], {}) if form == "markdown" else page([found], tmp_path, {})
    assert text.index("Published numbers, quoted") > text.index("Ranking of data-free methods")
    assert "Not measured here, and in no ranking" in text
    assert "98.20" in text[text.index("Published numbers, quoted") :]
    assert "98.20" not in text[: text.index("Published numbers, quoted")]


def with_metrics(record: Record, **values: float | None) -> Record:
    metrics = {
        name: {"value": value, "status": "ok" if value is not None else "unavailable", "images": 9, "note": ""}
        for name, value in values.items()
    }
    return Record.model_validate({**record.model_dump(by_alias=True), "image_metrics": metrics})


def test_image_metrics_are_means_over_seeds_with_their_direction() -> None:
    records = [
        with_metrics(make_record(seed=0), class_balance=0.5, confidence=0.2),
        with_metrics(make_record(seed=1), class_balance=0.7, confidence=None),
    ]
    (found,) = group_records(records)
    head, row = image_table(found)
    assert head == ["Method", "class_balance ↑", "confidence", "Images"]
    assert row[1:3] == ["0.600", "0.200"]
    assert re.search(r"\| class_balance ↑ \|", markdown([found], {}))


def test_without_image_metrics_there_is_no_table() -> None:
    records = [with_metrics(make_record(seed=seed)) for seed in (0, 1)]
    (found,) = group_records(records)
    assert image_table(found) == []
    assert "class_balance" not in markdown([found], {})
