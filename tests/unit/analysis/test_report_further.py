"""Published numbers and image metrics: in the report, but never among the ranked scores."""

from __future__ import annotations

import csv
import html
import io
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_record

from bench.analysis.report import render
from bench.analysis.report.pages.drawing import Drawn
from bench.analysis.report.pages.html import task_html
from bench.analysis.report.pages.markdown import group_markdown, markdown
from bench.analysis.report.pages.task import section
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group, tables_of
from bench.analysis.report.sections.image_metrics import (
    columns_of,
    image_csv,
    image_lines,
    image_notes,
    image_table,
    number,
)
from bench.analysis.report.sections.leaderboard import cells, comma_separated, score_words
from bench.analysis.report.sections.published import published
from bench.records import ImageFacts, Record, open_results, write_trial
from bench.spec.custom_tasks import save_tasks
from bench.spec.task import get_task


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
    text = (
        markdown([found], [group_markdown(found)])
        if form == "markdown"
        else task_html([found], [section(found, tmp_path, Drawn())])
    )
    assert text.index("Published numbers, quoted") > text.index("Ranking o")
    assert "Not measured here, and not ranked" in text
    assert "98.20" in text[text.index("Published numbers, quoted") :]
    assert "98.20" not in text[: text.index("Published numbers, quoted")]


def with_metrics(record: Record, **metrics: float | dict[str, Any] | None) -> Record:
    """The record with these image metrics; ``__`` in a name stands for its brackets: ``fd__teacher``."""
    found = {}
    for name, given in metrics.items():
        family, _, extractor = name.partition("__")
        entry = given if isinstance(given, dict) else {"value": given}
        status = "ok" if entry["value"] is not None else "unavailable"
        found[f"{family}[{extractor}]" if extractor else family] = {"status": status, "images": 9, **entry}
    return Record.model_validate({**record.model_dump(by_alias=True), "image_metrics": found})


def of_teacher(value: float | None, extractor: str = "1a2b3c4d5e6f", **more: Any) -> dict[str, Any]:
    return {"value": value, "images": 2048, "dimension": 84, "extractor": extractor, **more}


def one_group(*records: Record) -> Group:
    (found,) = group_records(records)
    return found


def images_table(found: Group) -> list[list[str]]:
    """The table without its columns of scores, clipped values and different images."""
    return [[row[0], *row[4:]] for row in image_table(found)]


def test_each_methods_score_stands_beside_what_was_measured_on_its_images() -> None:
    measured = {"distillation_loss": 0.25, "distillation_loss_variance": 0.04}
    found = one_group(*(with_metrics(make_record("dafl", seed), **measured) for seed in (0, 1)))
    head, line = image_table(found)
    assert [head[1], *head[4:]] == ["Score, %", "distillation_loss", "distillation_loss_variance"]
    assert [line[1], *line[4:]] == [score_words(found.rows[0]), "0.250 (n 9)", "0.0400 (n 9)"]


def kept(record: Record, count: int, clipped: float, different: int | None) -> Record:
    images = ImageFacts(count=count, clipped=clipped, different=different)
    return with_metrics(record.model_copy(update={"images": images}), confidence=0.4)


def test_the_table_of_images_says_how_many_values_are_cut_and_how_many_images_are_different() -> None:
    dafl = kept(make_record("dafl", 0), 8, 0.1, 8), kept(make_record("dafl", 1), 8, 0.15, 4)
    found = one_group(*dafl, kept(make_record("noise"), 0, 0.0, 0), kept(make_record("kd"), 8, 0.0, None))
    head, *lines = image_table(found)
    places = head.index("Clipped, %"), head.index("Different, %")
    shown = {line[0]: tuple(line[place] for place in places) for line in lines}
    assert shown == {"dafl": ("12.5", "75"), "noise": ("—", "—"), "kd": ("0.0", "—")}


def test_a_note_explains_what_is_cut_and_what_older_records_did_not_count() -> None:
    clipped, counted, older = "Clipped: values outside", "equal images are counted once", "— in older records"
    for record, said in (
        (kept(make_record(), 8, 0.1, 8), (True, True, False)),
        (kept(make_record(), 8, 0.0, None), (False, False, True)),
        (kept(make_record(), 0, 0.0, 0), (False, False, False)),
    ):
        notes = " ".join(image_notes(one_group(record)))
        assert (clipped in notes, counted in notes, older in notes) == said


def test_image_metrics_are_means_over_seeds_with_their_direction() -> None:
    found = one_group(
        with_metrics(make_record(seed=0), class_balance=0.5, confidence=0.2, fd__teacher=of_teacher(12.0)),
        with_metrics(make_record(seed=1), class_balance=0.7, confidence=None, fd__teacher=of_teacher(12.6)),
    )
    assert images_table(found) == [
        ["Method", "class_balance ↑", "confidence", "fd[teacher] ↓"],
        ["dafl", "0.600 (n 9)", "0.200 (1 of 2 seeds, n 9)", "12.3 (n 2,048, d 84)"],
    ]
    assert r"| class_balance ↑ | confidence | fd\[teacher\] ↓ |" in markdown([found], [group_markdown(found)])


def test_pairs_and_counts_that_differ_between_seeds_are_beside_the_value() -> None:
    found = one_group(
        with_metrics(make_record(seed=0), lpips__alex={"value": 0.3, "images": 50, "pairs": 90, "extractor": "a"}),
        with_metrics(make_record(seed=1), lpips__alex={"value": 0.5, "images": 1200, "pairs": 5000, "extractor": "a"}),
    )
    assert images_table(found)[1] == ["dafl", "0.400 (n 50 to 1,200, pairs 90 to 5,000)"]


def test_columns_stand_in_the_order_of_declaration_and_then_of_extractors() -> None:
    names = ["kid__b", "zeta", "fd__teacher", "fd__inception_random", "class_balance", "kid__a", "is__teacher"]
    found = one_group(with_metrics(make_record(), **dict.fromkeys(names, 0.5)))
    titles = [column.title for column in columns_of(found)]
    assert titles == ["class_balance", "is[teacher]", "fd[inception_random]", "fd[teacher]", "kid[a]", "kid[b]", "zeta"]


def test_numbers_from_two_extractors_never_share_a_column() -> None:
    found = one_group(
        with_metrics(make_record("dafl", 0), fd__teacher=of_teacher(10.0, "1a2b3c4d5e6f")),
        with_metrics(make_record("dafl", 1), fd__teacher=of_teacher(500.0, "99887766ffff")),
        with_metrics(make_record("zskd", 0), fd__teacher=of_teacher(20.0, "1a2b3c4d5e6f")),
        with_metrics(make_record("zskd", 1), fd__teacher={"value": None, "note": "no file"}),
    )
    assert images_table(found) == [
        ["Method", "fd[teacher] @1a2b3c4d ↓", "fd[teacher] @99887766 ↓"],
        ["dafl", "10.0 (1 of 2 seeds, n 2,048, d 84)", "500 (1 of 2 seeds, n 2,048, d 84)"],
        ["zskd", "20.0 (1 of 2 seeds, n 2,048, d 84)", "—"],
    ]
    assert "— fd[teacher] (zskd): unavailable: no file" in image_notes(found)


def test_a_metric_that_is_nowhere_to_be_had_keeps_its_one_column() -> None:
    absent = {"value": None, "note": "weights are missing"}
    found = one_group(*(with_metrics(make_record(name), fid__inception=absent) for name in ("dafl", "noise")))
    assert images_table(found) == [["Method", "fid[inception] ↓"], ["dafl", "—"], ["noise", "—"]]
    assert image_notes(found)[1:] == ["— fid[inception]: unavailable: weights are missing"]


def test_unreliable_values_are_flagged_and_every_note_is_said_once() -> None:
    few = {"status": "unreliable", "note": "too few images"}
    found = one_group(
        with_metrics(make_record("dafl", 0), fd__teacher=of_teacher(1.0, **few), kid__teacher=of_teacher(1.0, **few)),
        with_metrics(make_record("dafl", 1), fd__teacher=of_teacher(3.0), kid__teacher=of_teacher(1.0)),
        with_metrics(make_record("zskd"), fd__teacher=of_teacher(1.0), kid__teacher=of_teacher(1.0, note="all")),
        with_metrics(make_record("noise"), fd__teacher={"value": None, "status": "failed", "note": "ValueError"}),
    )
    assert [row[1] for row in images_table(found)[1:]] == ["2.00! (n 2,048, d 84)", "1.00 (n 2,048, d 84)", "—"]
    assert image_notes(found)[1:] == [
        "! fd[teacher], kid[teacher] (dafl): unreliable: too few images",
        "— fd[teacher] (noise): failed: ValueError",
        "kid[teacher] (zskd): all",
    ]


def test_what_was_compared_with_is_said() -> None:
    found = one_group(with_metrics(make_record(), fd__teacher=of_teacher(1.0, real_images=1437)))
    assert "Compared with 1,437 training images: fd[teacher]." in image_notes(found)


@pytest.mark.parametrize("form", ["markdown", "page"])
def test_table_and_notes_of_images_are_in_both_forms(form: str, tmp_path: Path) -> None:
    few = {"status": "unreliable", "note": "too few <images>"}
    found = one_group(with_metrics(make_record(), fd__teacher=of_teacher(12.3, **few)))
    text = (
        markdown([found], [group_markdown(found)])
        if form == "markdown"
        else task_html([found], [section(found, tmp_path, Drawn())])
    )
    text = html.unescape(text).replace("\\", "")
    assert "12.3!" in text
    assert "(n 2,048, d 84)" in text
    assert "! fd[teacher]: unreliable: too few <images>" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0012, "0.00120"),
        (0.98, "0.980"),
        (0.9996, "1.00"),
        (-0.0421, "-0.0421"),
        (12.34, "12.3"),
        (99.96, "100"),
        (1234.4, "1,234"),
        (0.0000123, "1.23e-05"),
        (12345678.0, "1.23e+07"),
    ],
)
def test_numbers_have_three_significant_digits_at_every_magnitude(value: float, text: str) -> None:
    assert number(value) == text


def test_csv_has_a_line_for_each_finished_trial_and_metric() -> None:
    shaky = of_teacher(1.5, status="unreliable", spread=0.25, pairs=7, real_images=1437)
    found = one_group(
        with_metrics(make_record(seed=0, final=0.9), fd__teacher=shaky, class_balance=None),
        with_metrics(make_record(seed=1), fd__teacher=of_teacher(float("nan"))),
        with_metrics(make_record("zskd", status="diverged"), fd__teacher=of_teacher(3.0)),
    )
    lines = list(csv.DictReader(io.StringIO(image_csv([image_lines(found)]))))
    assert [(line["method"], line["seed"], line["metric"]) for line in lines] == [
        ("dafl", "0", "class_balance"),
        ("dafl", "0", "fd[teacher]"),
        ("dafl", "1", "fd[teacher]"),
    ]
    assert lines[1] == {
        "task": "digits/lenet5-half",
        "budget": "teacher_images=40000",
        "teacher_sha": "ab" * 32,
        "method": "dafl",
        "label": "dafl",
        "seed": "0",
        "id": make_record(seed=0).id,
        "score": "0.9",
        "metric": "fd[teacher]",
        "extractor": "1a2b3c4d5e6f",
        "value": "1.5",
        "status": "unreliable",
        "images": "2048",
        "real_images": "1437",
        "dimension": "84",
        "pairs": "7",
        "spread": "0.25",
    }
    assert (lines[0]["value"], lines[0]["status"]) == ("", "unavailable")
    assert lines[2]["value"] == ""


def test_without_image_metrics_there_is_no_table() -> None:
    records = [with_metrics(make_record(seed=seed)) for seed in (0, 1)]
    (found,) = group_records(records)
    assert image_table(found) == image_notes(found) == []
    assert image_csv([image_lines(found)]) == ""
    assert "class_balance" not in markdown([found], [group_markdown(found)])


def test_a_users_own_task_is_quoted_from_beside_its_records(tmp_path: Path) -> None:
    results = open_results(tmp_path, create=True)
    for record in (make_record(method=name, task="mine/own") for name in ("dafl", "noise")):
        write_trial(results, record, [], {})
    quoted = {"teacher": {"score": 0.4321, "source": "A paper of ours"}}
    save_tasks(
        results, [get_task("mnist/lenet5-half").model_dump(mode="json") | {"name": "mine/own", "published": quoted}]
    )
    render(results, tmp_path / "report")
    assert "| teacher | 43.21 | A paper of ours |" in (tmp_path / "report" / "leaderboard.md").read_text(
        encoding="utf-8"
    )
