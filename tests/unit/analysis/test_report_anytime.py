"""How fast rows come near kd: from curves with known answers to the page, the CSV and the JSON."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_record

from bench.analysis.report import render
from bench.analysis.report.sections.anytime import AnytimeOf, anytime_notes, anytime_numbers, anytime_of, anytime_table
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group, curves_of
from bench.records import Record, open_results, write_trial

BUDGET = {"teacher_images": 1000, "seconds": 100}


def points(scores: list[float], asks: bool = True, end: float = 1.0) -> list[dict[str, Any]]:
    """Evaluations at even distances, from nothing spent to a share ``end`` of the budget."""
    shares = [end * place / (len(scores) - 1) for place in range(len(scores))]
    return [
        {"progress": share, "seconds": 100 * share, "steps": 0, "teacher_images": int(1000 * share) if asks else 0}
        | {"student_images": int(1000 * share), "gmacs": 0.0, "score": score, "score_ema": score / 2}
        for share, score in zip(shares, scores, strict=True)
    ]


def measured(tmp_path: Path, *trials: tuple[Record, list[dict[str, Any]]]) -> tuple[Group, AnytimeOf]:
    results = open_results(tmp_path / "results", create=True)
    for record, curve in trials:
        write_trial(results, record, curve, {})
    (group,) = group_records(record for record, _ in trials)
    return group, anytime_of(group, curves_of(group, results))


def of(group: Group, found: AnytimeOf, method: str) -> dict[str, float | None]:
    row = next(row for row in group.rows if row.method == method)
    return anytime_numbers(found.get(row.records[0].id))


@pytest.fixture
def some(tmp_path: Path) -> tuple[Group, AnytimeOf]:
    return measured(
        tmp_path,
        (make_record("kd", 0, budget=BUDGET, final=1.0), points([0.0, 1.0])),
        (make_record("dafl", 0, budget=BUDGET, final=0.96), points([0.0, 0.92, 0.96])),
        (make_record("dafl", 1, budget=BUDGET, final=0.92), points([0.0, 0.5, 0.92])),
        (make_record("dafl", 2, budget=BUDGET, final=0.5), points([0.5, 0.5])),
        (make_record("scratch", 0, budget=BUDGET, final=0.8), points([0.0, 0.8], asks=False)),
        (make_record("zskd", 0, budget=BUDGET, status="crashed"), []),
    )


def test_numbers_are_those_of_the_curves(some: tuple[Group, AnytimeOf]) -> None:
    found = of(*some, "dafl")
    assert found["area_teacher_images"] == pytest.approx((0.70 + 0.48 + 0.5) / 3)
    assert found["area_seconds"] == pytest.approx(found["area_teacher_images"])
    assert found["area_steps"] is None  # no limit of this budget
    assert (found["seconds_to_90"], found["teacher_images_to_90"], found["reached_90"]) == (75, 750, 2)
    assert (found["seconds_to_95"], found["reached_95"]) == (100, 1)
    assert (found["seconds_to_99"], found["reached_99"]) == (None, 0)


def test_table_says_how_many_seeds_get_there_and_that_none_does(some: tuple[Group, AnytimeOf]) -> None:
    head, *lines = anytime_table(*some)
    assert head[:5] == [
        *("Method", "Mean over teacher images, %", "Mean over seconds, %"),
        *("Seconds to 90 % of kd", "Seconds to 95 % of kd"),
    ]
    cells = {line[0]: line[3:] for line in lines}
    assert cells["dafl"] == [
        *("75.0 (2 of 3 seeds)", "100.0 (1 of 3 seeds)", "not reached"),
        *("750 (2 of 3 seeds)", "1,000 (1 of 3 seeds)", "not reached"),
    ]
    assert cells["kd"] == ["100.0", "100.0", "100.0", "1,000", "1,000", "1,000"]
    assert "zskd" not in cells


def test_a_method_that_never_asks_is_averaged_over_student_images(some: tuple[Group, AnytimeOf]) -> None:
    assert of(*some, "scratch")["area_teacher_images"] == pytest.approx(0.4)
    assert "scratch †" in [line[0] for line in anytime_table(*some)]
    assert any("† never queries the teacher" in note for note in anytime_notes(*some))


def test_an_early_end_holds_the_last_student(tmp_path: Path) -> None:
    group, found = measured(tmp_path, (make_record("dafl", budget=BUDGET), points([0.0, 0.8], end=0.5)))
    assert of(group, found, "dafl")["area_seconds"] == pytest.approx(0.6)


def test_the_curve_is_that_of_the_headline_rule(tmp_path: Path) -> None:
    group, found = measured(tmp_path, (make_record("dafl", budget=BUDGET, headline="ema"), points([0.8, 0.8])))
    assert of(group, found, "dafl")["area_seconds"] == pytest.approx(0.4)


def test_without_kd_there_are_areas_alone_and_it_is_said(tmp_path: Path) -> None:
    group, found = measured(tmp_path, (make_record("dafl", budget=BUDGET), points([0.5, 0.5])))
    assert anytime_table(group, found)[1] == ["dafl", "50.0 (one seed)", "50.0 (one seed)", *6 * ["—"]]
    assert "Nothing is reported for kd's score: kd did not finish here." in anytime_notes(group, found)


def test_unusable_evaluations_are_left_out_and_a_row_of_them_alone_has_no_line(tmp_path: Path) -> None:
    broken = [point | {"score": None} for point in points([0.0, 0.0])]
    group, found = measured(
        tmp_path,
        (make_record("dafl", budget=BUDGET), broken),
        (make_record("zskd", budget=BUDGET), [broken[0], points([0.0, 0.6])[1]]),
    )
    assert [line[0] for line in anytime_table(group, found)[1:]] == ["zskd"]
    assert of(group, found, "zskd")["area_seconds"] == pytest.approx(0.6)


def test_csv_json_markdown_and_page_have_them(some: tuple[Group, AnytimeOf], tmp_path: Path) -> None:
    out = tmp_path / "out"
    render(tmp_path / "results", out)
    rows = list(csv.DictReader(io.StringIO((out / "leaderboard.csv").read_text())))
    (dafl,) = (row for row in rows if row["method"] == "dafl")
    assert (dafl["seconds_to_90"], dafl["reached_90"], dafl["seconds_to_99"]) == ("75", "2", "")
    (group,) = json.loads((out / "leaderboard.json").read_text())
    (row,) = (row for row in group["rows"] if row["method"] == "dafl")
    assert row["anytime"]["percent_of_kd"]["95"] == {"seeds": 1, "seconds": 100, "teacher_images": 1000}
    assert row["anytime"]["area"]["seconds"]["mean"] == pytest.approx(0.56)
    for text in ((out / "leaderboard.md").read_text(), (out / "tasks" / "digits-lenet5-half.html").read_text()):
        assert "How fast the score is reached" in text
        assert "not reached" in text
