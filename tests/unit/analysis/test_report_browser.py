"""The report in a real browser, from disk: sorting, filtering, links, no error, no request that leaves the folder."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe import needs_axe, violations
from option_cells import grid_of
from record_builder import add, make_demo, make_record

from bench.analysis.report import render
from bench.analysis.report.pages.links import method_page, trial_page
from bench.analysis.report.pages.single import SINGLE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None, reason="needs playwright: pip install '.[browser]'"
    ),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]
HOSTILE = "<script>alert(1)</script>"
PAGES = [
    *("index.html", "tasks/digits-lenet5-half.html", "methods/dafl.html", "methods/cmi.html", method_page(HOSTILE)),
    *(trial_page(make_record("dafl").id), trial_page(make_record(HOSTILE, title=HOSTILE, final=0.7).id)),
    *(trial_page(make_record("zskt", status="diverged").id), SINGLE),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    results = make_demo(folder / "results")
    add(results, make_record("cmi", status="unsupported", reason="no batch norm"))
    add(results, make_record("zskt", status="diverged"))
    add(results, make_record("dafl", task="mnist/lenet5-half", budget={"seconds": 20}))
    add(results, make_record(HOSTILE, title=HOSTILE, final=0.7))
    add(results, make_record("dfnd", data="pool", pool="svhn", final=0.9))
    for record in grid_of("rdskd"):
        add(results, record)
    render(results, folder / "out", single_file=True)
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, index: Path) -> Iterator[Any]:
    """The index page; whatever it complains of, asks for outside its folder or pops up fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    inside = index.parent.as_uri()
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda r: None if r.url.startswith((inside, "data:")) else wrong.append(r.url))
    page.goto(index.as_uri())
    yield page
    page.close()
    assert wrong == []


def eventually(found: Any) -> Any:
    """What is said of a page, or a place of it, must become true: events come a moment after what caused them."""
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)
    return expect(found)


def column(page: Any, title: str) -> list[str]:
    """What the visible rows have in a column."""
    script = """title => [...document.querySelectorAll('#board tbody tr')].filter(row => !row.hidden)
        .map(row => [...row.cells].find(cell => cell.dataset.label === title).dataset.value)"""
    return list(page.evaluate(script, title))


def test_a_button_in_the_head_sorts_and_says_so(opened: Any) -> None:
    button = opened.get_by_role("button", name="Score, %")
    button.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    down = [float(value) for value in column(opened, "Score, %") if value]
    assert down == sorted(down, reverse=True)
    assert column(opened, "Score, %")[-1] == ""  # failures last, in both directions
    button.click()
    assert opened.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in column(opened, "Score, %") if value] == down[::-1]
    assert column(opened, "Score, %")[-1] == ""


def test_filters_narrow_the_rows_and_are_undone(opened: Any) -> None:
    everything = column(opened, "Method")
    opened.get_by_label("Outcome", exact=True).select_option("unsupported")
    assert column(opened, "Method") == ["cmi"]
    assert opened.locator("#shown").inner_text() == f"1 of {len(everything)} rows"
    opened.get_by_role("button", name="Show all").click()
    opened.wait_for_function(f"document.getElementById('shown').textContent.startsWith('{len(everything)} of')")
    opened.get_by_label("Kind of budget").select_option("seconds")
    assert column(opened, "Task") == ["mnist/lenet5-half"]
    opened.get_by_label("Task", exact=True).select_option("digits/lenet5-half")
    assert column(opened, "Task") == []


def test_filters_and_order_are_in_the_address(opened: Any, browser: Any) -> None:
    opened.get_by_label("Real data", exact=True).select_option("none")
    opened.get_by_role("button", name="Score, %").click()
    eventually(opened).to_have_url(re.compile("#data=none&sort=-score$"))
    shown = column(opened, "Method")
    opened.goto("about:blank")
    opened.go_back()
    eventually(opened.locator("th[aria-sort]")).to_have_count(1)
    assert column(opened, "Method") == shown
    opened.get_by_role("link", name="Skip to content").focus()
    opened.evaluate("location.hash = '#outcome=failed&task=<b>nothing</b>&sort=nothing'")  # by hand, and wrong
    eventually(opened.locator("th[aria-sort]")).to_have_count(0)
    assert set(column(opened, "Outcome")) == {"failed"}


def test_a_hostile_name_stays_text(opened: Any) -> None:
    opened.get_by_label("Method", exact=True).select_option(HOSTILE)
    assert column(opened, "Method") == [HOSTILE]
    assert HOSTILE in opened.locator("#board").inner_text()
    opened.get_by_role("link", name=HOSTILE).first.click()
    eventually(opened.locator("h1")).to_contain_text(HOSTILE)


def test_links_lead_to_the_task_and_back(opened: Any) -> None:
    opened.locator("#board a").first.click()
    eventually(opened).to_have_url(re.compile("/tasks/"))
    assert opened.locator("h1").inner_text() in ("digits/lenet5-half", "mnist/lenet5-half")
    opened.get_by_role("link", name="demo: all results").click()
    eventually(opened).to_have_url(re.compile("/index.html$"))


def test_a_trial_is_reached_from_the_index_by_the_keyboard_and_leads_back(opened: Any) -> None:
    failed = opened.get_by_role("link", name="seed 0").first
    failed.focus()
    opened.keyboard.press("Enter")
    opened.wait_for_url("**/trials/*.html")
    opened.get_by_role("link", name="digits/lenet5-half").first.click()
    opened.locator("td.seeds a").first.click()
    eventually(opened.locator(".plots svg")).to_have_count(2)
    summary = opened.locator("summary").first
    summary.focus()
    opened.keyboard.press("Enter")
    eventually(opened.get_by_role("columnheader", name="Score, %")).to_be_visible()
    assert "dfkd run trial.yaml" in opened.get_by_role("region", name="Commands").inner_text()
    opened.get_by_role("link", name="demo: all results").click()
    eventually(opened).to_have_url(re.compile("/index.html$"))


# Figures to look at


def test_curves_can_be_hidden_and_read_and_put_on_logarithmic_axes(opened: Any) -> None:
    opened.locator("#board a").first.click()
    opened.locator(".contents a", has_text="Score against the budget").first.click()
    box = opened.locator(".interactive").first
    box.locator("canvas").wait_for()
    eventually(box.locator("img")).not_to_be_visible()
    before = box.locator("canvas").screenshot()
    for label in ("dafl", "logarithmic budget", "logarithmic score"):
        box.get_by_label(label, exact=True).first.click()
        after = box.locator("canvas").screenshot()
        assert after != before
        before = after
    box.locator(".u-over").hover()
    values = box.locator("output").all_inner_texts()
    assert all(0 <= float(value) <= 100 for value in values if value)
    assert any(values)
    box.get_by_label("Spent").select_option("seconds")
    assert box.locator("canvas").screenshot() != before


def test_without_javascript_the_figures_stay(browser: Any, index: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((index.parent / "tasks" / "digits-lenet5-half.html").as_uri())
    page.get_by_text("Score against the budget").last.click()
    image = page.locator(".interactive img").first
    image.scroll_into_view_if_needed()
    eventually(image).to_be_visible()
    assert page.locator("form:visible").count() == 0
    context.close()


def test_lines_of_a_sweep_are_chosen_by_value_and_score(browser: Any, index: Path) -> None:
    page = browser.new_page()
    page.goto((index.parent / "tasks" / "digits-lenet5-half.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    view = page.locator(".parallel").first
    eventually(view.locator("polyline")).to_have_count(4)
    view.get_by_label("temperature", exact=True).select_option("4")
    eventually(view.locator("polyline:not(.out)")).to_have_count(2)
    view.get_by_role("button", name="Show all").click()
    page.wait_for_function("!document.querySelector('.parallel polyline.out')")
    page.close()


# Every kind of page


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_the_screen(browser: Any, index: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    for name in PAGES:
        page.goto((index.parent / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cards = "[...document.querySelectorAll('.scroll')].filter(each => each.querySelector('.cards'))"
        cut = page.evaluate(f"{cards}.filter(each => each.scrollWidth > each.clientWidth).length")
        assert width > 700 or cut == 0
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    page.close()


@needs_axe
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, index: Path, width: int, scheme: str) -> None:
    for name in PAGES:
        assert violations(browser, index.parent / name, width, scheme) == [], name


def test_wide_tables_scroll_with_a_tab_stop(browser: Any, index: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    for name in PAGES:
        page.goto((index.parent / name).as_uri())
        script = """[...document.querySelectorAll('table')].filter(table => {
            const box = table.closest('.scroll');
            return !box || box.tabIndex !== 0 || getComputedStyle(box).backgroundImage === 'none';
        }).length"""
        assert page.evaluate(script) == 0, name
    page.close()
