"""A site of several studies: one front page, every page leads back to it, and nothing is rendered twice."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from axe import needs_axe, violations
from html_pages import Page, dead_links
from PIL import Image
from record_builder import add, make_demo, make_record

from bench.analysis.report.figures.board import board_data
from bench.analysis.report.figures.curves import PALETTE, colours_of, small_png
from bench.analysis.report.pages.boards import _said
from bench.analysis.report.pages.site import PublishedStudy, _board
from bench.analysis.report.pages.standings import standings
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.standings import Standing, usual_row
from bench.analysis.report.sections.verdict import verdicts
from bench.analysis.report.site import Made, make_site, studies_of
from bench.cli.places import results_below
from bench.errors import UserError
from bench.records import open_results
from bench.records.archive import write_archive
from bench.spec.method_registry import find_methods

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "<b>&|a study's own words"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``published``: three studies and a tracked commit as archives; ``site`` and ``reports``: what is made of them."""
    folder = tmp_path_factory.mktemp("rendered")
    published = folder / "published"
    demo = open_results(folder / "made" / "demo", create=True)
    for task in ("digits/lenet5-half", "mnist/lenet5-half"):
        for method in ("dafl", "zskd", "kd", "noise"):
            add(demo, make_record(method, 0, task=task), folder)
    (demo / "study.yaml").write_text("name: demo\ndescription: What is the demo about?\n")
    write_archive(demo, published / "demo" / "records.parquet")
    small = open_results(folder / "made" / "small", create=True)
    for seed in (0, 1):
        add(small, make_record("dafl", seed, options={"balance": 0.0}))
        add(small, make_record("dafl", seed, options={"balance": 5.0}, final=0.95))
    add(small, make_record("zskd", 0, "diverged"))
    write_archive(small, published / "ablations" / "small" / "records.parquet")
    strange = open_results(folder / "made" / "strange", create=True)
    (strange / "study.yaml").write_text(f'description: "{HOSTILE}"\n')
    add(strange, make_record("kd", 0))
    write_archive(strange, published / "a #strange name" / "records.parquet")
    write_archive(small, published / "tracked" / f"{'a' * 40}.parquet")
    made_of(published, folder / "site")
    made_of(published, folder / "reports", summary=True)
    return folder


@pytest.fixture
def published(rendered: Path, tmp_path: Path) -> Path:
    """A copy of all that, to be changed; what has been rendered is taken for what it is in another place too."""
    for name in ("published", "site", "reports", "made"):
        shutil.copytree(rendered / name, tmp_path / name)
    return tmp_path / "published"


def made_of(published: Path, out: Path, **options: Any) -> Made:
    return make_site(studies_of([published], results_below), out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_one_front_page_leads_to_every_report_and_every_page_leads_back(rendered: Path) -> None:
    out = rendered / "site"
    index = out / "index.html"
    assert dead_links(out) == []
    front = Page(index.read_text())
    for text in (
        "What is the demo about?",
        "digits/lenet5-half, mnist/lenet5-half",
        "40,000 teacher images",
        "012345678",
    ):
        assert text in front.text
    assert "5, 1 failed" in front.text
    assert "dafl (balance=5.0)" in front.text
    assert HOSTILE in front.text
    assert "Published against measured" in front.text
    assert "not comparable: " in front.text
    assert "<b>" not in front.text.replace(HOSTILE, "")
    assert not any(value.startswith("http") for _, tag in front.tags for value in tag.values() if value)
    for page in out.rglob("*.html"):
        ways = [tag["href"] or "" for name, tag in Page(page.read_text()).tags if name == "a"]
        assert any((page.parent / unquote(way)).resolve() == index for way in ways if "#" not in way), page


def test_only_what_has_changed_is_rendered_again(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    told: list[str] = []
    before = contents(out)
    assert made_of(published, out, told=told.append).kept == ("a #strange name", "ablations/small", "demo")
    assert told == []
    assert contents(out) == before
    small = tmp_path / "made" / "small"
    add(small, make_record("dafl", 7, options={"balance": 5.0}))
    (published / "ablations" / "small" / "records.parquet").unlink()
    write_archive(small, published / "ablations" / "small" / "records.parquet")
    (out / "a #strange name" / "leaderboard.md").unlink()  # somebody tidied up
    assert made_of(published, out).rendered == ("a #strange name", "ablations/small")
    assert contents(out)["a #strange name/leaderboard.md"] == before["a #strange name/leaderboard.md"]


@pytest.mark.slow
def test_side_by_side_gives_the_same_bytes_as_one_by_one(published: Path, tmp_path: Path) -> None:
    before = contents(tmp_path / "site")
    for name in ("demo", "ablations/small", "a #strange name"):
        (tmp_path / "site" / name / ".made.json").unlink()
    assert len(made_of(published, tmp_path / "site", processes=2).rendered) == 3
    assert contents(tmp_path / "site") == before


@pytest.mark.slow
def test_other_pages_or_other_code_are_another_site(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(published / "demo")
    shutil.rmtree(published / "ablations")
    assert made_of(published, tmp_path / "site", trial_pages=0).rendered == ("a #strange name",)
    assert made_of(published, tmp_path / "site", trial_pages=0).rendered == ()
    monkeypatch.setattr("bench.analysis.report.site._code", lambda: "another")
    assert made_of(published, tmp_path / "site", trial_pages=0).rendered == ("a #strange name",)


def test_a_study_that_is_gone_leaves_the_site_and_nothing_else_does(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    (out / "ablations" / "notes.txt").write_text("mine")
    (out / "a #strange name" / "notes.txt").write_text("mine")
    shutil.rmtree(published / "ablations")
    shutil.rmtree(published / "a #strange name")
    made_of(published, out)
    assert not (out / "ablations" / "small").exists()
    left = {name for name in contents(out) if not name.startswith(("demo/", "boards/", "methods/"))}
    assert {name.split("/")[1] for name in contents(out) if name.startswith("methods/")} == {
        f"{method}.html" for method in ("dafl", "kd", "noise", "zskd")
    }
    assert left == {".report-files", "index.html", "ablations/notes.txt", "a #strange name/notes.txt"}


# ---- over all studies -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_task_has_a_board_over_all_studies_and_budgets(tmp_path: Path) -> None:
    for name, budget, final in (("small", 10_000, 0.8), ("large", 40_000, 0.9)):
        results = open_results(tmp_path / "published" / name, create=True)
        for method in ("dafl", "kd", "noise"):
            for seed in (0, 1):
                more = {"final": final + seed / 100} if method == "dafl" else {}
                add(results, make_record(method, seed, budget={"teacher_images": budget}, **more))
        add(results, make_record("dafl", budget={"teacher_images": budget}, options={"batch": 7}, final=0.99))
    add(open_results(tmp_path / "published" / "large"), make_record("rdskd", budget={"seconds": 20}))
    made_of(tmp_path / "published", tmp_path / "site")
    board = tmp_path / "site" / "boards" / "digits-lenet5-half.html"
    html = board.read_text()
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[0])
    assert list(data["axes"]) == ["seconds", "teacher_images"]
    lines = {line["label"]: line["on"] for line in data["lines"]}
    assert set(lines) == {"dafl", "kd", "noise", "rdskd"}
    assert list(lines["rdskd"]) == ["seconds"]
    dafl = lines["dafl"]["teacher_images"]
    assert [x for x, *_ in dafl["dots"]] == [10_000, 40_000]
    assert dafl["dash"] == []
    page = Page(html)
    for text in ("10,000 teacher images", "40,000 teacher images", "small", "large", "lenet5, 97.2 %"):
        assert text in page.text
    for kind in ("svg", "pdf", "png"):
        assert (tmp_path / "site" / "boards" / "figures" / f"digits-lenet5-half.{kind}").is_file()
    assert "and 1 other row" in Page((tmp_path / "site" / "methods" / "dafl.html").read_text()).text
    assert dead_links(tmp_path / "site") == []


def test_a_board_keeps_verified_unverified_and_published_numbers_apart(tmp_path: Path) -> None:
    results = open_results(tmp_path / "published" / "study", create=True)
    told = {"dafl": ("same bits", None), "kd": ("differs", "same bits"), "noise": (None, None)}
    for method, outcomes in told.items():
        for seed, outcome in enumerate(outcomes):
            record = make_record(method, seed)
            found = {"verified": {"outcome": outcome}} if outcome else {}
            add(results, record.model_copy(update={"provenance": {**record.provenance, **found}}))
    made_of(tmp_path / "published", tmp_path / "site")
    html = (tmp_path / "site" / "boards" / "digits-lenet5-half.html").read_text()
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[0])
    filled = {line["label"]: [dot[2] for dot in line["on"]["teacher_images"]["dots"]] for line in data["lines"]}
    assert filled == {"dafl": [1], "kd": [0], "noise": [0]}
    rows = {row.split("</a>")[0].rpartition(">")[2]: Page(row).text for row in re.findall(r"<tr>(.*?)</tr>", html)}
    assert "1 of 2 verified" in rows["dafl"]
    assert "1 of 2 verified, 1 not the same" in rows["kd"]
    assert "verified" not in rows["noise"]
    assert "1 of 3 scores is verified, 1 came out otherwise" in Page(html).text
    method_page = Page((tmp_path / "site" / "methods" / "noise.html").read_text())
    assert "unverified" in method_page.text


def test_a_board_quotes_papers_in_a_table_of_its_own(rendered: Path) -> None:
    quoted = Page((rendered / "site" / "boards" / "mnist-lenet5-half.html").read_text()).text
    assert "Published numbers, quoted" in quoted
    assert "Not measured here, and not ranked" in quoted
    assert "98.20" in quoted  # DAFL's
    digits = Page((rendered / "site" / "boards" / "digits-lenet5-half.html").read_text()).text
    assert "Published numbers, quoted" not in digits


def test_of_equal_methods_all_pages_name_the_same_one() -> None:
    """The ranking has them by their names; the front page named the last of them as the best."""
    (group,) = group_records([make_record(method, final=0.9) for method in ("zskt", "pre_dfkd", "dafl", "rdskd")])
    found = standings("study", group, {}, {})
    assert verdicts(group)[0].row.label == "dafl"
    assert _board("digits/lenet5-half", found)["best"].startswith("dafl, 90.0 %")
    assert "The best score without real data is dafl's, 90.0 %" in _said(found)


def test_a_row_of_a_board_is_not_chosen_by_its_score() -> None:
    defaults = dict(find_methods()["dafl"].defaults())
    usual, tuned = (
        make_record("dafl", options=options, final=final)
        for options, final in ((defaults, 0.5), ({**defaults, "batch": 7}, 0.9))
    )
    (group,) = group_records([usual, tuned, make_record("dafl", 1, options={**defaults, "batch": 7}, final=0.9)])
    rows = [row for row in group.rows if row.method == "dafl"]
    assert usual_row(rows, find_methods()["dafl"]).records[0].id == usual.id
    assert len(usual_row(rows, None).records) == 2


def test_points_of_another_teacher_are_joined_by_a_dotted_line() -> None:
    def standing(teacher: str, budget: int) -> Standing:
        record = make_record("dafl", teacher_sha=teacher * 32, budget={"teacher_images": budget})
        (found,) = standings("study", group_records([record])[0], {}, {})
        return found

    same = [standing("ab", 10_000), standing("ab", 20_000)]
    other = [standing("ab", 10_000), standing("cd", 20_000)]
    assert board_data(same, colours_of(["dafl"]))["lines"][0]["on"]["teacher_images"]["dash"] == []
    assert board_data(other, colours_of(["dafl"]))["lines"][0]["on"]["teacher_images"]["dash"] != []


@pytest.mark.parametrize("name", ["boards", "figures", "methods/mine"])
def test_a_study_cannot_have_the_name_of_a_folder_of_the_site(tmp_path: Path, name: str) -> None:
    results = make_demo(tmp_path / "results", seeds=1)
    with pytest.raises(UserError, match="no study can be called"):
        make_site([PublishedStudy(name, results)], tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("taken", ["demo", "trials"])
def test_pages_are_never_written_among_records(tmp_path: Path, taken: str) -> None:
    results = make_demo(tmp_path / "results")
    out = tmp_path if taken == "demo" else results / taken
    before = contents(results)
    with pytest.raises(UserError, match="a report needs a separate folder"):
        make_site([PublishedStudy("results", results)], out)
    assert contents(results) == before


def test_what_cannot_be_a_site_is_told(published: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(published / "demo", tmp_path / "other" / "demo")
    places = [published / "demo", copy]
    with pytest.raises(UserError, match=r"would both be shown as 'demo'; name a folder that holds both"):
        make_site(studies_of(places, results_below), tmp_path / "new")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there are no results in"):
        studies_of([tmp_path / "empty"], results_below)
    with pytest.raises(UserError, match="none does not exist"):
        studies_of([tmp_path / "none"], results_below)
    assert not (tmp_path / "new").exists()


# ---- the summaries that are kept in git ----------------------------------------------------------------------------


def test_a_summary_has_all_tables_and_at_most_two_figures(rendered: Path) -> None:
    out, whole = rendered / "reports", rendered / "site"
    for name in ("demo", "ablations/small", "a #strange name"):
        folder = out / name
        text = (folder / "leaderboard.md").read_text()
        shown = re.findall(r"!\[[^\n]*\]\((figures/\S+)\)", text)
        files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        assert files == {"leaderboard.md", ".report-files", ".made.json", *shown}
        assert 1 <= len(shown) == len(set(shown)) <= 2
        assert not re.search(r"-[0-9a-f]{8}[-.]", " ".join(shown))
        tables = [line for line in (whole / name / "leaderboard.md").read_text().splitlines() if line.startswith("|")]
        assert [line for line in text.splitlines() if line.startswith("|")] == tables
        (way,) = re.findall(r"\[All studies\]\((\S+)\)", text)
        assert (folder / way).resolve() == out / "README.md"
    assert (out / "demo" / "figures").joinpath("digits-lenet5-half-curves.png").is_file()
    readme = (out / "README.md").read_text()
    ways = re.findall(r"\]\((\S+leaderboard\.md)\)", readme)
    assert len(ways) == 3
    assert all((out / unquote(way)).is_file() for way in ways)
    assert "&lt;b&gt;&amp;\\|a study's own words" in readme


@pytest.mark.slow
def test_the_same_records_give_the_same_summaries(published: Path, tmp_path: Path) -> None:
    made_of(published, tmp_path / "again", summary=True)
    assert contents(tmp_path / "again") == contents(tmp_path / "reports")


def test_a_caption_goes_with_its_figure() -> None:
    from bench.analysis.report.pages.markdown import markdown
    from bench.utils.markdown import figure

    names = ["curves", "images", "kept", "quality", "dafl-lr"]
    part = [line for name in names for line in ("", figure(f"figures/a-b-0123abcd-{name}.png", name, f"Of {name}."))]
    text = markdown([], [part], summary="A summary.")
    assert [f"Of {name}." in text for name in names] == [True, True, False, False, False]
    assert "![curves](figures/a-b-curves.png)\n\nOf curves." in text


def test_a_small_figure_has_the_colours_of_its_lines() -> None:
    random = np.random.default_rng(0)
    pixels = np.full((120, 200, 3), 255, dtype=np.uint8)
    pixels[:60] = random.integers(200, 256, (60, 200, 3))  # bands over bands
    colours = [tuple(bytes.fromhex(colour[1:])) for colour in PALETTE]
    for row, colour in enumerate(colours):
        pixels[70 + 4 * row] = colour
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, "png")
    small = small_png(whole.getvalue(), 256)
    assert small_png(whole.getvalue(), 256) == small
    assert len(small) < len(whole.getvalue()) / 2
    with Image.open(io.BytesIO(small)) as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    for row, colour in enumerate(colours):
        assert abs(shown[70 + 4 * row] - colour).max() <= 3


# ---- in a browser --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright: pip install '.[browser]'")
def test_the_search_narrows_the_front_page_and_is_in_the_address(rendered: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    front = rendered / "site" / "index.html"
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{front.as_uri()}#q=mnist")
        assert page.get_by_label("Search studies, tasks and methods").input_value() == "mnist"
        shown = page.locator(".searched:visible").all_inner_texts()
        assert shown
        assert all("mnist" in text for text in shown)
        page.get_by_label("Search studies, tasks and methods").fill("zskd digits")
        expect(page).to_have_url(f"{front.as_uri()}#q=zskd+digits")
        page.get_by_label("Search studies, tasks and methods").fill("")
        expect(page.locator("article:visible")).to_have_count(3)
        browser.close()


@pytest.mark.slow
@needs_axe
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_site(rendered: Path, width: int, scheme: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in ("index.html", "boards/digits-lenet5-half.html", "methods/dafl.html"):
            assert violations(browser, rendered / "site" / name, width, scheme) == [], name
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright: pip install '.[browser]'")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_front_page_fits_the_screen_without_javascript(rendered: Path, width: int, scheme: str) -> None:
    from playwright.sync_api import sync_playwright

    front = rendered / "site" / "index.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(front.as_uri())
        inner = page.evaluate("[document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]")
        assert inner[0] <= width
        assert (inner[1] == "rgb(21, 24, 27)") == (scheme == "dark")
        assert page.locator("article").count() == 3
        assert page.locator("h1").count() == 1
        page.get_by_role("link", name="demo", exact=True).click()
        page.get_by_role("link", name="All studies").click()
        page.wait_for_url(front.as_uri())
        assert all(url.startswith((front.parent.as_uri(), "data:")) for url in asked)
        browser.close()
