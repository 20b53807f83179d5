"""Published against measured: what is compared with what, and what a verdict needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reproducing_table
from html_pages import Page
from record_builder import add, make_record

from bench.analysis.report import render
from bench.analysis.report.pages.links import task_page
from bench.analysis.report.sections.against import (
    HEAD,
    NOTES,
    OVER_HEAD,
    TITLE,
    Reproduction,
    against,
    against_table,
    facts_of,
    over_all,
)
from bench.analysis.report.sections.grouping import group_records
from bench.records import Record, open_results
from bench.spec.method_registry import find_methods
from bench.spec.presets import preset
from bench.spec.published import Published
from bench.spec.task import get_task

TASK = "mnist/lenet5-half"
PAPERS = dict(find_methods()["dfad"].defaults() | preset(find_methods()["dfad"], get_task(TASK), "paper"))
QUOTE = {"method": "dfad", "score": 0.983, "deviation": 0.002, "paper": "dfad", "teacher_images": 40_000}


def lines(finals: list[float], quote: dict[str, Any] | None = None, **changes: Any) -> list[Reproduction]:
    """The lines of one row, whose records have 40,000 teacher images and a teacher of 97.2 %; its best is 0.8 above."""
    of_row = {"options": PAPERS, "task": TASK, "headline": "last", **changes}
    records = [make_record("dfad", seed, final=final, **of_row) for seed, final in enumerate(finals)]
    (group,) = group_records(records)
    given = {"methods": [{**QUOTE, **(quote or {})}], "teachers": {"dfad": 0.972}}
    object.__setattr__(group, "published", Published.model_validate(given))
    return list(against(group))


@pytest.mark.parametrize(
    ("finals", "quantity", "verdict", "words"),
    [
        ([0.975, 0.976, 0.974], "best", "reproduced", "reproduced"),  # + 0.8, the best evaluation's
        ([0.983, 0.984, 0.982], "last", "reproduced", "reproduced"),
        ([0.975, 0.976, 0.974], "last", "not decided", "not decided: too few seeds for this spread"),
        ([0.95, 0.951, 0.949], "last", "differs", "differs"),
        ([0.998, 0.999, 1.0], "last", "differs", "differs"),
        ([0.983], "last", "not decided", "not decided: one seed"),
        ([0.983, 0.983], "last", "not decided", "not decided: equal scores"),
    ],
)
def test_a_verdict_is_that_of_an_equivalence_test(finals: list[float], quantity: str, verdict: str, words: str) -> None:
    (line,) = lines(finals, {"quantity": quantity})
    assert (line.verdict, line.words) == (verdict, words)


REASONS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"teacher_images": 400_000}, {}, "10 % of the teacher images"),
    ({"teacher": 0.99}, {}, "a teacher 1.8 points weaker"),
    ({"teacher": 0.95}, {}, "a teacher 2.2 points better"),
    ({"pool": "svhn"}, {"pool": "fashion_mnist"}, "fashion_mnist in place of svhn"),
    ({"form": "no attention"}, {}, "another form there: no attention"),
    ({}, {"altered_data": True}, "altered data files"),
    ({}, {"precision": "bfloat16"}, "bfloat16 in place of float32"),
    ({}, {"options": PAPERS | {"width": 32}}, "width 32 (128)"),
    ({"options": {"width": 64}}, {}, "width 128 (64)"),
]


@pytest.mark.parametrize(("quote", "changes", "reason"), REASONS)
def test_what_differs_excuses_a_difference_and_takes_no_number_back(
    quote: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    (far,) = lines([0.85, 0.86, 0.87], quote, **changes)
    assert (far.verdict, far.words) == ("not comparable", f"not comparable: {reason}")
    (near,) = lines([0.975, 0.976, 0.974], quote, **changes)
    assert (near.verdict, near.words) == ("reproduced", f"reproduced with {reason}")


def test_on_a_task_of_ones_own_the_papers_options_are_the_methods_defaults() -> None:
    (line,) = lines([0.975, 0.976, 0.974], task="mine", options=PAPERS | {"width": 32})
    assert line.words == "reproduced with width 32 (128)"


def test_without_the_papers_length_of_training_a_difference_is_no_verdict_and_other_words_stay() -> None:
    unknown = {"teacher_images": None, "paper": "", "source": "a table", "teacher": 0.972, "quantity": "last"}
    (far,) = lines([0.85, 0.86, 0.87], unknown)
    assert far.words == "not comparable: how long the paper trained is not known"
    (near,) = lines([0.983, 0.984, 0.982], unknown)
    assert near.words == "reproduced"
    (single,) = lines([0.983], unknown)
    assert single.words == "not decided: one seed"


@pytest.mark.parametrize(
    ("quote", "changes"),
    [
        ({"teacher_images": 44_000}, {}),
        ({"teacher": 0.965}, {}),
        ({"pool": "svhn"}, {"pool": "svhn"}),
        ({"options": {"width": 32}}, {"options": PAPERS | {"width": 32}}),
    ],
)
def test_a_difference_without_a_reason_is_one(quote: dict[str, Any], changes: dict[str, Any]) -> None:
    (line,) = lines([0.85, 0.86, 0.87], quote, **changes)
    assert line.verdict == "differs"


def test_of_several_rows_the_one_nearest_to_the_papers_options_is_compared() -> None:
    records = [
        make_record("dfad", seed, final=final + seed / 1000, task=TASK, options=PAPERS | other)
        for other, final in (({"width": 32, "batch": 64}, 0.99), ({"width": 64}, 0.7), ({"width": 16, "batch": 2}, 0.5))
        for seed in (0, 1)
    ]
    (group,) = group_records(records)
    assert {line.row.records[0].trial.options["width"] for line in against(group)} == {64}


def test_a_number_that_nobody_checked_says_so() -> None:
    (line,) = lines([0.975, 0.976, 0.974], {"checked": False})
    assert line.words == "reproduced; the quoted number is not checked"


def test_a_row_that_failed_is_a_line_too() -> None:
    (line,) = lines([0.9], status="diverged")
    assert (line.found, line.verdict, line.share) == (None, "failed", None)


def test_only_methods_with_a_row_and_tasks_with_numbers_have_lines() -> None:
    (group,) = group_records([make_record("noise", task=TASK), make_record("zskd", task=TASK)])
    assert {line.quoted.quote.method for line in against(group)} == {"noise", "zskd"}
    (digits,) = group_records([make_record("noise")])
    assert against_table(digits) == []


def report_of(records: list[Record], folder: Path) -> Path:
    results = open_results(folder / "results", create=True)
    for record in records:
        add(results, record)
    render(results, folder / "out")
    return folder / "out"


def test_it_stands_in_the_report_as_markdown_and_on_the_tasks_page(tmp_path: Path) -> None:
    records = [make_record("dfad", seed, task=TASK, options=PAPERS, final=0.9 + seed / 100) for seed in (0, 1)]
    out = report_of(records, tmp_path)
    text = (out / "leaderboard.md").read_text(encoding="utf-8")
    assert f"**{TITLE}**" in text
    row = next(line for line in text.splitlines() if line.startswith("| dfad | dfad | 98.30 ± 0.2 best |"))
    assert row.count("|") == len(HEAD) + 1
    assert "0.65 % of the teacher images" in row
    page = Page((out / task_page(TASK)).read_text(encoding="utf-8")).text
    assert TITLE in page
    assert "0.65 % of the teacher images" in page
    assert all(note[:40] in page for note in NOTES)


# ---- over all studies ------------------------------------------------------------------------------------------------


def fact(quote: str, rank: list[float], word: str) -> dict[str, Any]:
    return {
        "quote": [TASK, "dfad", quote, ""],
        "cells": ["dfad", quote, "98.30", "97.00", "—", "—", word],
        "rank": rank,
    }


def test_of_several_studies_the_firmest_verdict_is_shown_and_then_the_longest_run() -> None:
    table = over_all(
        {
            "a": [fact("dfad", [3, -0.5, -9], "not comparable"), fact("kd", [2, 0, -5], "short")],
            "b": [fact("dfad", [1, -0.1, -1], "differs"), fact("kd", [2, 0, -7], "long")],
            "c": [],
        }
    )
    assert [(line[2], line[-2], line[-1]) for line in table[1:]] == [("dfad", "differs", "b"), ("kd", "long", "b")]
    assert table[0] == list(OVER_HEAD)
    assert over_all({"c": []}) == []


def test_of_equal_verdicts_the_run_nearest_to_the_papers_comes_first() -> None:
    def facts(**changes: Any) -> list[dict[str, Any]]:
        options = {"options": PAPERS, "task": TASK, "headline": "last", **changes}
        (group,) = group_records([make_record("dfad", seed, final=0.975 + seed / 1000, **options) for seed in range(3)])
        object.__setattr__(
            group, "published", Published.model_validate({"methods": [QUOTE], "teachers": {"dfad": 0.972}})
        )
        return facts_of(group)

    table = over_all({"a": facts(options=PAPERS | {"width": 32}), "b": facts()})
    assert [(line[-2], line[-1]) for line in table[1:]] == [("reproduced", "b")]


def test_a_groups_lines_survive_being_kept_as_json() -> None:
    records = [make_record("dfad", seed, task=TASK, options=PAPERS, final=0.9 + seed / 100) for seed in (0, 1)]
    (group,) = group_records(records)
    found = facts_of(group)
    assert json.loads(json.dumps(found)) == found
    assert over_all({"s": found}) == over_all({"s": json.loads(json.dumps(found))})


def test_the_table_of_the_documentation_is_that_of_the_published_records() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reproducing.md").read_text(encoding="utf-8")
    assert page.split("<!-- against -->\n")[1].split("<!-- /against -->")[0] == reproducing_table.table()
