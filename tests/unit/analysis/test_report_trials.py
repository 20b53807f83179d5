"""The pages of trials: what they say, which trials have one, and where links lead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from html_pages import Page, dead_links
from record_builder import add, make_demo, make_record

from bench.analysis.record_text import sections
from bench.analysis.report import render
from bench.analysis.report.figures.trial_curve import plots, points
from bench.analysis.report.pages.links import method_page, trial_page
from bench.analysis.report.pages.trial import LISTED, chosen, without_page
from bench.analysis.report.sections.grouping import group_records
from bench.cli import answer
from bench.records import Record, open_results

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    return {
        "hostile": make_record(HOSTILE, title=HOSTILE),
        "crashed": make_record("zskt", 1, status="crashed", reason="RuntimeError: <b>boom</b>"),
        "unsupported": make_record("cmi", status="unsupported", reason="no batch norm"),
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, records: dict[str, Record]) -> Path:
    folder = tmp_path_factory.mktemp("trials")
    results = make_demo(folder / "results")
    for record in records.values():
        (add(results, record) / "log.txt").write_text(
            "\x1b[31mfirst\x1b[0m\r\n"
            + "".join(f"step {step}\n" for step in range(60))
            + f'  File "/home/anna/dfkd/bench/x.py", {HOSTILE}\n'
        )
    render(results, folder / "out")
    return folder / "out"


def page_of(report: Path, record: Record) -> Page:
    return Page((report / trial_page(record.id)).read_text())


def links(page: Page) -> set[str | None]:
    return {attributes["href"] for tag, attributes in page.tags if tag == "a"}


def test_every_trial_has_a_page_that_rows_and_failures_lead_to(report: Path, records: dict[str, Record]) -> None:
    assert len(list((report / "trials").iterdir())) == 10 + len(records)
    assert dead_links(report) == []
    record = make_record("dafl", 1)
    for file in ("tasks/digits-lenet5-half.html", method_page("dafl")):
        assert f"../{trial_page(record.id)}" in links(Page((report / file).read_text()))
    index = links(Page((report / "index.html").read_text()))
    assert {trial_page(records[name].id) for name in ("crashed", "unsupported")} <= index
    assert f"../{trial_page(records['crashed'].id)}" in links(Page((report / method_page("zskt")).read_text()))


def test_a_page_shows_all_that_show_prints(report: Path) -> None:
    record = make_record("dafl")
    page = page_of(report, record)
    for section in sections(record).values():
        for row in section.rows:
            assert all(part in page.text for part in row)
    assert f"../{method_page('dafl')}" in links(page)
    assert re.search(r"Its row: \d\d\.\d \([^)]*\) from \d seeds\.", page.text)
    assert f"{trial_page(make_record('dafl', 1).id).removeprefix('trials/')}" in {
        Path(target or "").name for target in links(page)
    }
    assert [tag for tag, _ in page.tags].count("svg") == 2
    assert f"../images/{record.id}.png" in [attributes.get("src") for tag, attributes in page.tags if tag == "img"]
    assert (report / "images" / f"{record.id}.png").is_file()
    assert "dfkd run trial.yaml --device cpu" in page.text
    assert f'name: "trial-{record.id}"' in page.text


def test_what_a_study_states_is_named_and_nothing_where_it_states_none() -> None:
    for stated, words in (([["batch", "lr"], []], "options [[batch, lr], []], "), ([[]], ""), ([], "")):
        record = make_record("dafl")
        facts = {"settings": "small", "options": stated, "memory_format": "contiguous"}
        shown = sections(record.model_copy(update={"provenance": {"stated": facts}}))["provenance"]
        assert shown.rows == (("stated", f"settings small, {words}memory_format contiguous", ""),)


def test_a_failure_shows_reason_and_the_end_of_its_log_without_names(report: Path, records: dict[str, Record]) -> None:
    page = page_of(report, records["crashed"])
    assert "RuntimeError: <b>boom</b>" in page.text
    assert "svg" not in [tag for tag, _ in page.tags]
    assert "step 59" in page.text
    assert "step 5\n" not in page.text
    assert "~/dfkd/bench/x.py" in page.text
    assert "anna" not in page.text
    assert "\x1b" not in page.text
    assert "No seed of its row finished." in page.text


def test_a_hostile_name_stays_text(report: Path, records: dict[str, Record]) -> None:
    page = page_of(report, records["hostile"])
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.text.count(HOSTILE) > 3
    assert dead_links(report) == []


@pytest.mark.slow
def test_pages_are_the_same_each_time(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    (add(results, make_record(), tmp_path) / "log.txt").write_text("a line\n")
    first, second = (render(results, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_with_few_pages_each_row_has_one_and_failures_come_first() -> None:
    many = [make_record("dafl", seed) for seed in range(5)] + [make_record("zskd", seed) for seed in range(3)]
    failed = make_record("dafl", 9, status="crashed")
    found = chosen(group_records([*many, failed]), 3)
    assert list(found)[:2] == [failed.id, make_record("zskd").id]
    assert len(found) == 3
    assert len(chosen(group_records([*many, failed]))) == 9
    assert chosen(group_records(many), 0) == {}


def test_trials_without_a_page_are_named_with_the_way_to_them(tmp_path: Path) -> None:
    results = make_demo(tmp_path / "results")
    for count in (0, 4):
        out = tmp_path / f"out{count}"
        assert answer(["report", "--results", str(results), "--out", str(out), "--trial-pages", str(count)]) == 0
        assert len(list(out.glob("trials/*.html"))) == count
        assert dead_links(out) == []
        text = Page((out / "tasks/digits-lenet5-half.html").read_text()).text
        assert f"{10 - count} trials without a page" in text
        named = set(re.findall(r"seed \d+: ([0-9a-f]{16})", text))
        assert len(named) == 10 - count
        assert not named & {path.stem for path in out.glob("trials/*.html")}
        assert all(part in text for part in ("dfkd show ID", "--trial-pages N"))


def test_of_very_many_trials_without_a_page_some_are_named() -> None:
    (group,) = group_records([make_record("dafl", seed) for seed in range(LISTED + 7)])
    without: dict[str, Any] = without_page(group.rows, {make_record("dafl").id})
    assert (without["count"], len(without["listed"]), without["more"]) == (LISTED + 6, LISTED, 6)


def test_a_negative_number_of_pages_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["report", "--trial-pages", "-1"]) == 2
    assert "--trial-pages" in capsys.readouterr().err


def test_a_curve_starts_low_and_ends_at_its_place() -> None:
    record = make_record("dafl")
    curve = [
        {"progress": share, "score": score, "student_images": 1000 * share, "seconds": 0.0, "steps": 1}
        for share, score in ((0.0, 0.1), (0.5, None), (1.0, 0.9))
    ]
    (plot,) = plots(record, curve)  # no second plot: no time passed
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in plot["line"].split())
    assert x0 < x1
    assert y0 > y1
    assert [str(value) for value in plot["end"]] == plot["line"].split()[-1].split(",")
    assert plot["teacher"] is not None
    assert float(plot["teacher"]) < y1  # the teacher is better
    head, *lines = points(curve)
    assert [line[head.index("Score, %")] for line in lines] == ["10.0", "—", "90.0"]
    assert plots(record, []) == points([]) == []
