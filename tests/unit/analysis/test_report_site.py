"""A site of several studies: one front page, every page leads back to it, and nothing is rendered twice."""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from html_pages import Page, dead_links
from PIL import Image
from record_builder import add, make_demo, make_record

from bench.analysis.report.figures.curves import PALETTE, small_png
from bench.analysis.report.pages.site import PublishedStudy
from bench.analysis.report.site import Made, make_site, studies_of
from bench.cli.places import results_below
from bench.errors import UserError
from bench.records import open_results
from bench.records.archive import write_archive

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
    assert "<script" not in index.read_text()
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
    (out / "demo" / "leaderboard.md").unlink()  # somebody tidied up
    assert made_of(published, out).rendered == ("ablations/small", "demo")
    assert contents(out)["demo/leaderboard.md"] == before["demo/leaderboard.md"]


@pytest.mark.slow
def test_side_by_side_gives_the_same_bytes_as_one_by_one(published: Path, tmp_path: Path) -> None:
    before = contents(tmp_path / "site")
    for name in ("demo", "ablations/small", "a #strange name"):
        (tmp_path / "site" / name / ".made.json").unlink()
    assert len(made_of(published, tmp_path / "site", processes=2).rendered) == 3
    assert contents(tmp_path / "site") == before


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
    left = {name for name in contents(out) if not name.startswith("demo/")}
    assert left == {".report-files", "index.html", "ablations/notes.txt", "a #strange name/notes.txt"}


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


def test_a_summary_has_all_tables_and_at_most_three_figures(rendered: Path) -> None:
    out, whole = rendered / "reports", rendered / "site"
    for name in ("demo", "ablations/small", "a #strange name"):
        folder = out / name
        text = (folder / "leaderboard.md").read_text()
        shown = re.findall(r"!\[[^\n]*\]\((figures/\S+)\)", text)
        files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        assert files == {"leaderboard.md", ".report-files", ".made.json", *shown}
        assert 1 <= len(shown) == len(set(shown)) <= 3
        assert not re.search(r"-[0-9a-f]{8}[-.]", " ".join(shown))
        tables = [line for line in (whole / name / "leaderboard.md").read_text().splitlines() if line.startswith("|")]
        assert [line for line in text.splitlines() if line.startswith("|")] == tables
        (way,) = re.findall(r"\[All studies\]\((\S+)\)", text)
        assert (folder / way).resolve() == out / "README.md"
    assert (out / "demo" / "figures").joinpath("overall-none-2-ranks.png").is_file()
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
    assert [f"Of {name}." in text for name in names] == [True, True, True, False, False]
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
        assert page.url == front.as_uri()
        assert all(url.startswith((front.parent.as_uri(), "data:")) for url in asked)
        browser.close()
