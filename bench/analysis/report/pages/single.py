"""A report as one page to mail: its index, tasks and methods, with every image in it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bench.analysis.report.pages.html import environment, trial_html
from bench.analysis.report.pages.links import INDEX, embedded
from bench.analysis.report.pages.method import installed_methods
from bench.analysis.report.pages.trial import chosen, trial_pages
from bench.analysis.report.sections.grouping import read_groups
from bench.records import read_sheets
from bench.records.sheets import kind_of
from bench.spec.custom_tasks import published_of_kept

SINGLE = "report.html"
KINDS = {"svg": "svg+xml", "png": "png", "webp": "webp"}
PARTS = re.compile(r"<header>(.*?)</header>\s*<main id=\"main\">\n(.*?)</main>", re.DOTALL)
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
FILES = re.compile(r"<span class=\"files\">.*?</span>", re.DOTALL)
# Our own pages: whatever is put into them is escaped, so that no text has a quote, and these are attributes of tags.
HREF = re.compile(r" href=\"([^\"]*)\"")
IMAGE = re.compile(r" (src|srcset)=\"([^\"]*)\"")
NAME = re.compile(r" (id|for|aria-describedby|aria-labelledby)=\"([^\"]*)\"")
BOARD = ("board", "shown")  # what the script of the index looks for


def one_page(contents: Mapping[str, bytes]) -> str:
    """The pages of a report as one that needs no other file.

    Links between the pages become links to places in it; those to what is not in it (trials, files) end.

    Args:
        contents: the files of a report by path, as HTML where they are pages.
    """
    folders = ("tasks/", "methods/")
    names = [INDEX, *(each for folder in folders for each in sorted(contents) if each.startswith(folder))]
    places = {name: f"page-{number}" for number, name in enumerate(names)}
    pages = [_page(name, contents, places) for name in names]
    whole = "".join(page["main"] for page in pages)
    return (
        environment()
        .get_template("single.html")
        .render(
            nav=[(page["title"].rpartition(": ")[0] or page["title"], f"#{page['place']}") for page in pages],
            title=pages[0]["title"],
            pages=pages,
            curves='class="interactive"' in whole,
            parallel='class="parallel"' in whole,
        )
    )


def trial_alone(results: Path, name: str) -> str:
    """The page of one trial as one that needs no other file: links to other pages end, the contact sheet is in it.

    Args:
        results: a results folder that holds the trial.
        name: its id.
    """
    places = chosen(read_groups(results, published_of_kept(results), [name]))
    ((_, shown),) = trial_pages(places, results, installed_methods())
    sheets = read_sheets(results, [name])
    images = {each: embedded(sheet, KINDS[kind_of(sheet)]) for each, sheet in sheets.items()}
    html = trial_html(shown | {"nav": [], "sheet": images.get(name, "")})
    return HREF.sub(lambda found: found[0] if found[1].startswith("#") else "", html)


def _page(name: str, contents: Mapping[str, bytes], places: Mapping[str, str]) -> dict[str, Any]:
    text = contents[name].decode()
    parts, title = PARTS.search(text), TITLE.search(text)
    assert parts is not None
    assert title is not None
    folder, own = posixpath.dirname(name), places[name]

    def way(found: re.Match[str]) -> str:
        target, _, anchor = found[1].partition("#")
        path = posixpath.normpath(posixpath.join(folder, unquote(target))) if target else name
        if path not in places:
            return ""  # an anchor without a target: text
        return f' href="#{places[path]}{f"-{anchor}" if anchor else ""}"'

    def image(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, unquote(found[2])))
        return f' {found[1]}="{embedded(contents[path], KINDS[path.rpartition(".")[2]])}"'

    def named(found: re.Match[str]) -> str:
        return found[0] if found[2] in BOARD else f' {found[1]}="{own}-{found[2]}"'

    def moved(html: str) -> str:
        return NAME.sub(named, HREF.sub(way, IMAGE.sub(image, FILES.sub("", html))))

    return {"place": own, "title": unescape(title[1]), "header": moved(parts[1]), "main": moved(parts[2])}
