"""The pages of methods: what they say of a method, its rows and its options, and where links lead."""

from __future__ import annotations

from pathlib import Path

import pytest
from html_pages import Page, dead_links
from record_builder import add, make_demo, make_record

from bench.analysis.report import render
from bench.analysis.report.pages import method as method_panel
from bench.analysis.report.pages.links import method_page
from bench.analysis.report.pages.method import INSTALLED, QUOTED, UNKNOWN
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.published import percent
from bench.records import Record, open_results
from bench.spec.custom_tasks import save_tasks
from bench.spec.method_registry import find_methods
from bench.spec.task import get_task
from bench.utils.code_identity import RULE
from bench.utils.user_code import source_hash


def pages(*records: Record) -> dict[str, dict]:
    return method_panel.method_pages(group_records(records))


def test_every_method_has_a_page_and_every_link_of_the_report_leads_somewhere(tmp_path: Path) -> None:
    results = make_demo(tmp_path / "results")
    add(results, make_record("cmi", status="unsupported", reason="no batch norm"))
    add(results, make_record("<script>alert(1)</script>", task="mnist/lenet5-half"))
    render(results, tmp_path / "out")
    names = ("noise", "scratch", "kd", "dafl", "zskd", "cmi", "<script>alert(1)</script>")
    assert {path.name for path in (tmp_path / "out" / "methods").iterdir()} == {
        Path(method_page(name)).name for name in names
    }
    index = Page((tmp_path / "out" / "index.html").read_text())
    linked = {attributes["href"] for tag, attributes in index.tags if tag == "a"}
    assert {method_page(name) for name in names} <= linked
    assert dead_links(tmp_path / "out") == []
    (tmp_path / "out" / method_page("dafl")).unlink()
    assert any(method_page("dafl") in each for each in dead_links(tmp_path / "out"))


def test_results_have_rank_interval_and_place_of_every_task_and_budget() -> None:
    records = [make_record("dafl", seed, final=final) for seed, final in enumerate((0.90, 0.92))]
    records += [make_record("zskd", final=0.95), make_record("noise", final=0.5), make_record("kd", final=1.0)]
    records += [
        make_record("dafl", final=0.8, **other)
        for other in ({"task": "mnist/lenet5-half"}, {"budget": {"seconds": 20}})
    ]
    lines = [line for line in pages(*records)["dafl"]["results"] if not line["further"]]
    assert [(line["task"], line["budget"], line["score"], line["rank"], line["normalised"]) for line in lines] == [
        ("digits/lenet5-half", "20 seconds", "80.0 (one seed)", "1 of 1", "—"),
        ("digits/lenet5-half", "40,000 teacher images", "91.0 (90.0, 92.0)", "2 of 3", "0.82"),
        ("mnist/lenet5-half", "40,000 teacher images", "80.0 (one seed)", "1 of 1", "—"),
    ]
    assert pages(*records)["kd"]["results"][0]["rank"] == "—"


def test_papers_stand_beside_the_measured_score_with_difference_and_source() -> None:
    task = get_task("mnist/lenet5-half")
    quotes = [entry for entry in task.published.methods if entry.method == "dafl"]
    assert len(quotes) > 1
    shown = pages(make_record("dafl", task=task.name, final=0.9), make_record("dafl", final=0.9))["dafl"]
    quoted = [line for line in shown["results"] if line["source"]]
    assert [(line["published"], line["difference"], line["source"]) for line in quoted] == [
        (percent(entry), f"{100 * (0.9 - entry.score):+.1f}", entry.source) for entry in quotes
    ]
    assert {"98.20", "98.10 ± 0.1"} <= {line["published"] for line in quoted}
    assert [line["further"] for line in quoted] == [False] + [True] * (len(quotes) - 1)
    assert QUOTED in shown["results_notes"]
    assert QUOTED not in pages(make_record("dafl"))["dafl"]["results_notes"]


def test_number_of_a_paper_for_a_users_own_task_is_compared_too(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    add(results, make_record("dafl", task="mine/own", final=0.5))
    quoted = {"methods": [{"method": "dafl", "score": 0.625, "source": "A paper of ours"}]}
    save_tasks(
        results, [get_task("mnist/lenet5-half").model_dump(mode="json") | {"name": "mine/own", "published": quoted}]
    )
    render(results, tmp_path / "out")
    text = Page((tmp_path / "out" / method_page("dafl")).read_text()).text
    assert all(part in text for part in ("62.50", "-12.5", "A paper of ours"))


def test_options_have_their_declaration_and_the_values_that_were_used() -> None:
    card = find_methods()["dafl"]
    used = dict(card.defaults()) | {"batch": 64}
    cells = [make_record("dafl", options={**used, "balance": value}) for value in (5.0, 0.25, 0.125)]
    shown = pages(*cells, make_record("dafl", 1, options={**used, "balance": 5.0}))["dafl"]
    lines = {line["Option"]: line for line in shown["options"]}
    assert list(lines) == [spec.name for spec in card.specs]
    assert lines["batch"]["Values here"] == "64"
    assert lines["latent"]["Values here"] == "the default"
    assert lines["balance"]["Values here"] == "0.125 (1 row), 0.25 (1 row), 5 (1 row)"
    assert (lines["balance"]["Default"].strip(), lines["balance"]["Type"], lines["balance"]["Limits"]) == (
        "5",
        "float",
        ">= 0",
    )
    assert lines["balance"]["Meaning"] == "weight of the information entropy (log10) loss"
    assert shown["doc"] == card.doc


@pytest.mark.parametrize("same", [True, False])
def test_rows_of_another_version_of_the_file_are_counted(same: bool) -> None:
    sha = find_methods()["dafl"].sha if same else "0" * 12
    notes = pages(make_record("dafl", method_sha=sha, identity_rule=RULE))["dafl"]["options_notes"]
    assert notes == [INSTALLED] + ([] if same else ["1 of 1 rows were measured with another version of it."])


def test_the_installed_version_is_known_by_the_rule_of_each_record() -> None:
    card = find_methods()["dafl"]
    assert card.sha_by(1) == source_hash(card.file) != card.sha == card.sha_by(RULE)
    first = make_record("dafl", method_sha=card.sha_by(1))
    second = make_record("dafl", 1, method_sha=card.sha, identity_rule=RULE)
    unknown = make_record("dafl", 2, method_sha=card.sha, identity_rule=99)
    assert pages(first, second)["dafl"]["options_notes"] == [INSTALLED]
    assert "1 of 3 rows were" in pages(first, second, unknown)["dafl"]["options_notes"][1]


def test_of_many_values_the_frequent_ones_are_listed() -> None:
    records = [make_record("mine", options={"lr": value / 100}) for value in range(1, 12)]
    (line,) = pages(*records, make_record("mine", options={"lr": 0.11}, threads=2))["mine"]["options"]
    assert line["Values here"].startswith("0.11 (2 rows), 0.01 (1 row)")
    assert line["Values here"].endswith(", 3 others")


def test_method_that_is_not_installed_has_a_page_from_its_records() -> None:
    shown = pages(make_record("mine", title="Mine", data="pool", pool="svhn", options={"lr": 0.1}))["mine"]
    assert shown["title"] == "Mine"
    assert shown["facts"] == [
        ("Paper", "Somebody et al., A Paper, ICCV 2019"),
        ("Real data", "pool: svhn"),
        ("Teacher access", "features"),
    ]
    assert [(line["Option"], line["Default"], line["Values here"]) for line in shown["options"]] == [("lr", "", "0.1")]
    assert shown["options_notes"] == [UNKNOWN]


def test_what_failed_or_was_unsupported_is_listed_with_its_reason() -> None:
    crashed = [make_record("cmi", seed, status="crashed", reason="boom") for seed in (0, 2)]
    able = [make_record("dafl", task="mnist/lenet5-half")]
    left_out = make_record("cmi", task="mnist/lenet5-half", status="unsupported", reason="no batch norm")
    found = pages(*crashed, make_record("cmi", 1), *able, left_out)["cmi"]["failures"]
    assert [(each["task"], each["seeds"], each["status"], each["reason"]) for each in found] == [
        ("digits/lenet5-half", "0, 2", "crashed", "boom"),
        ("mnist/lenet5-half", "0", "unsupported", "no batch norm"),
    ]


def test_a_broken_package_of_methods_stops_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise method_panel.UserError("entry point 'x' names 'y', which is not installed")

    monkeypatch.setattr(method_panel, "find_methods", broken)
    assert pages(make_record("dafl"))["dafl"]["options_notes"] == [UNKNOWN]
