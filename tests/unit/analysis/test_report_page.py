"""A task's page answers in ten seconds: its order, one ranking, its verdict; images and titles of a whole report."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from html_pages import Page, dead_links
from option_cells import grid_of
from record_builder import add, make_demo, make_record

from bench.analysis.report import render
from bench.analysis.report.pages.parallel import MOST, parallel
from bench.analysis.report.pages.single import SINGLE
from bench.analysis.report.pages.task import FIRST
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.sensitivity_cells import sensitivities_of
from bench.analysis.report.sections.verdict import verdicts
from bench.analysis.report.vendor import LICENCE, NAME, SHA256, VERSION, vendored
from bench.cli import answer
from bench.records import Record, open_results

STUDY = "name: my-study\ndescription: Does it work?\nmethods: [dafl]\n"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with a method on other images, one trial that failed, a grid, and the study's file."""
    folder = tmp_path_factory.mktemp("page")
    results = make_demo(folder / "results")
    for seed in (0, 1):
        add(results, make_record("dfnd", seed, data="pool", pool="svhn", final=0.93))
    add(results, make_record("zskd", 2, status="diverged"))
    for record in grid_of():
        add(results, record.model_copy(update={"study": "demo"}))
    (results / "study.yaml").write_text(STUDY)
    render(results, folder / "out", single_file=True)
    return folder / "out"


def group_of(*records: Record) -> Group:
    (found,) = group_records(records)
    return found


# Who wins


def test_the_page_is_in_a_readers_order(report: Path) -> None:
    html = (report / "tasks" / "digits-lenet5-half.html").read_text()
    places = [html.index(text) for text in (
        "<h1>", 'class="verdict"', 'class="forest"', "What it cost</h3>", "What the images look like</h3>",
        "How to repeat it</h3>", "Details</h3>", "<details",
    )]  # fmt: skip
    assert places == sorted(places)


def test_a_page_has_one_ranking_with_each_row_once(report: Path) -> None:
    html = (report / "tasks" / "digits-lenet5-half.html").read_text()
    for name in re.findall(r'<section id="(digits[^"]+)"', html):
        section = html[html.index(f'<section id="{name}"') :].split("</section>")[0]
        tables = re.findall(r'<table class="forest">(.*?)</table>', section, re.DOTALL)
        methods = [each for table in tables for each in re.findall(r'<td class="method"><a [^>]*>([^<]+)</a>', table)]
        assert methods
        assert len(methods) == len(set(methods))
    assert "Without real data" in html
    assert "With other real images" in html
    assert "For reference, with the training images" in html


def test_the_verdict_is_one_sentence_with_lead_and_chance() -> None:
    runs = (("dafl", 0.9), ("zskd", 0.7), ("noise", 0.5), ("kd", 0.99))
    clear = [
        make_record(name, seed, final=final + 0.001 * (seed * place % 3))
        for seed in range(4)
        for place, (name, final) in enumerate(runs, 1)
    ]
    (found,) = verdicts(group_of(*clear))
    assert re.fullmatch(
        r"dafl leads without real data: 90\.1 % \(.* to .*\), 20\.. points above zskd \(beyond chance\), "
        r"\d\d % of the way from noise to kd\.",
        found.sentence,
    )
    (unclear,) = verdicts(
        group_of(*(make_record(n, s, final=0.9 + 0.02 * (s % 2)) for n in ("a", "b") for s in (0, 1)))
    )
    assert unclear.sentence == "a is ahead without real data: 91.0 % (90.0, 92.0), level with b (within chance)."
    (alone,) = verdicts(group_of(make_record("a", final=0.9)))
    assert alone.sentence == "a is the only one without real data: 90.0 % (one seed)."
    (chance,) = verdicts(group_of(make_record("a", final=0.1), make_record("b", final=0.1)))
    assert chance.sentence.startswith("Nobody leads without real data")


def test_each_data_need_has_a_sentence_and_the_references_have_none() -> None:
    found = verdicts(group_of(make_record("dafl"), make_record("dfnd", data="pool"), make_record("kd")))
    assert [each.need for each in found] == ["none", "pool"]
    assert [each.need for each in verdicts(group_of(make_record("kd"), make_record("scratch")))] == ["train"]
    assert verdicts(group_of(make_record(status="crashed"))) == []


def test_long_rankings_are_folded(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    for number in range(FIRST + 3):
        add(results, make_record(f"m{number:02d}", final=0.9 - number / 100))
    render(results, tmp_path / "out", trial_pages=0)
    html = (tmp_path / "out" / "tasks" / "digits-lenet5-half.html").read_text()
    before, after = html.split("<summary>3 more rows</summary>")[:2]
    assert before.count('<td class="rank">') == FIRST
    assert after.count('<td class="rank">') == 3


def test_a_page_says_how_to_repeat_it(report: Path) -> None:
    for name in ("index.html", "tasks/digits-lenet5-half.html"):
        text = Page((report / name).read_text()).text
        assert "git checkout 0123456789abcdef0123456789abcdef01234567" in text
        assert "dfkd run study.yaml --results again --device cpu" in text
    assert (report / "study.yaml").read_text() == STUDY


def test_what_is_no_yaml_stops_no_report(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    add(results, make_record())
    (results / "study.yaml").write_text("a: [")
    render(results, tmp_path / "out")
    assert not (tmp_path / "out" / "study.yaml").exists()
    assert "The results keep no study" in (tmp_path / "out" / "index.html").read_text()


# The index, titles, files


def test_the_index_says_what_the_study_is(report: Path) -> None:
    page = Page((report / "index.html").read_text())
    for text in ("my-study", "Does it work?", "2026-11-21", "012345678", "40,000 teacher images", "lenet5, 97.2 %"):
        assert text in page.text


def test_every_page_has_a_title_of_its_own(report: Path) -> None:
    pages = [path for path in report.rglob("*.html") if path.name != SINGLE]
    titles = [re.findall(r"<title>(.*?)</title>", path.read_text())[0] for path in pages]
    assert len(set(titles)) == len(pages) > 10
    assert all("my-study" in title for title in titles)


def test_every_image_stands_once_in_the_folder(report: Path) -> None:
    shown = set()
    for path in report.rglob("*.html"):
        if path.name == SINGLE:
            continue
        html = path.read_text()
        assert "data:image" not in html
        for source in re.findall(r' (?:src|srcset)="([^"]+)"', html):
            assert (path.parent / source).is_file()
            shown.add((path.parent / source).resolve())
    sheets = list((report / "images").iterdir())
    assert {path.resolve() for path in sheets} <= shown
    trials = {path.stem for path in (report / "trials").iterdir()}
    assert {path.stem for path in sheets} <= trials


def test_figures_are_pdf_too_and_have_no_title(report: Path) -> None:
    for path in (report / "figures").glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")
        assert b"CreationDate" not in path.read_bytes()
    from bench.analysis.report.figures.ranking import draw_ranking

    figure = draw_ranking(group_of(make_record("dafl"), make_record("kd")))
    assert figure is not None
    assert figure.get_suptitle() == ""
    assert figure.axes[0].get_title() == ""


def test_pdf_figures_embed_truetype_fonts_as_conferences_ask() -> None:
    from bench.analysis.report.figures.curves import style, to_bytes
    from bench.analysis.report.figures.ranking import draw_ranking

    with style():
        figure = draw_ranking(group_of(make_record("dafl"), make_record("kd")))
        assert figure is not None
        drawn = to_bytes(figure, "pdf")
    assert b"/FontFile2" in drawn
    assert b"/Type3" not in drawn


def test_options_have_the_symbols_of_papers_and_other_names_stay_text() -> None:
    from bench.analysis.report.figures.ranking import draw_ranking

    group = group_of(
        *(make_record("dafl", options={"temperature": t, "lr_student": 0.1 * t}) for t in (1.0, 4.0)),
        *(make_record("mine", options={"$x$": t}) for t in (1.0, 4.0)),
    )
    figure = draw_ranking(group)
    assert figure is not None
    labels = {text.get_text(): text.get_parse_math() for text in figure.axes[0].get_yticklabels()}
    assert labels[r"dafl ($\eta_S$=0.1, $\tau$=1.0)"] is True
    assert labels["mine ($x$=1.0)"] is False


# One page to mail


def test_one_page_carries_everything(report: Path) -> None:
    text = (report / SINGLE).read_text()
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert (attributes.get("href") or "#main")[1:] in ids
        for name in ("src", "srcset"):
            assert (attributes.get(name) or "data:image/").startswith("data:image/")
        for name in ("for", "aria-describedby", "aria-labelledby"):
            assert attributes.get(name) is None or attributes[name] in ids
    for expected in ("Does it work?", "git checkout", "What it cost", "Somebody et al., A Paper"):
        assert expected in page.text


@pytest.mark.slow
def test_one_page_is_made_on_request_alone(tmp_path: Path) -> None:
    results = make_demo(tmp_path / "results", seeds=1)
    out = tmp_path / "out"
    assert answer(["report", "--results", str(results), "--out", str(out), "--single-file"]) == 0
    first = hashlib.sha256((out / SINGLE).read_bytes()).hexdigest()
    assert answer(["report", "--results", str(results), "--out", str(out), "--single-file"]) == 0
    assert hashlib.sha256((out / SINGLE).read_bytes()).hexdigest() == first
    assert dead_links(out) == []
    assert answer(["report", "--results", str(results), "--out", str(out)]) == 0
    assert not (out / SINGLE).exists()


# What is looked at


def test_the_curves_are_in_the_page_as_data_that_no_name_can_leave(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    name = "</script><script>alert(1)</script>"
    for record in (make_record(name), make_record("kd")):
        add(results, record)
    render(results, tmp_path / "out")
    html = (tmp_path / "out" / "tasks" / "digits-lenet5-half.html").read_text()
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    read: dict[str, Any] = json.loads(data)
    assert {line["label"] for line in read["lines"]} == {name, "kd"}
    assert read["teacher"] == 97.2
    (kd,) = (line for line in read["lines"] if line["label"] == "kd")
    assert len(kd["on"]["teacher_images"]["x"]) == len(kd["on"]["teacher_images"]["y"]) == 21


def test_parallel_coordinates_have_a_line_a_cell_up_to_a_limit() -> None:
    group = group_of(*grid_of())
    (found,) = sensitivities_of(group)
    shown = parallel(found, group, "here")
    assert shown is not None
    assert [axis["name"] for axis in shown["axes"]] == list(found.options)
    assert len(shown["lines"]) == len(found.grids[0].cells)
    assert shown["lines"][-1]["score"] == max((line["score"] for line in shown["lines"]), key=float)
    many = group_of(*grid_of(temperatures=tuple(map(float, range(1, 21))), rates=tuple(k / 100 for k in range(1, 21))))
    (found,) = sensitivities_of(many)
    shown = parallel(found, many, "here")
    assert shown is not None
    assert len(shown["lines"]) == MOST
    assert shown["said"] == f"{MOST} of 400 cells"


def test_the_library_is_what_its_authors_published() -> None:
    assert (NAME, VERSION, LICENCE) == ("uPlot", "1.6.32", "MIT")
    assert sum(len(vendored(name)) for name in SHA256) < 100_000
    for name, expected in SHA256.items():
        assert hashlib.sha256(vendored(name).encode()).hexdigest() == expected
    assert VERSION in vendored("uPlot.iife.min.js")[:100]
    assert "MIT" in vendored("uPlot.LICENSE")
