"""What tests ask of a report's pages."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote


class Page(HTMLParser):
    """What a browser would make of the page: its tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def dead_links(report: Path) -> list[str]:
    """Links of all pages of a report that lead to no file, or to no place in it."""
    read = {path: Page(path.read_text()) for path in report.rglob("*.html")}
    places = {path: {attributes.get("id") for _, attributes in page.tags} for path, page in read.items()}
    dead = []
    for path, page in read.items():
        for target in (attributes["href"] for tag, attributes in page.tags if tag == "a" and "href" in attributes):
            file, place = map(unquote, (target or "").partition("#")[::2])  # a # in a file's name is quoted
            found = (path.parent / file).resolve() if file else path
            if not found.is_file() or (place and place not in places[found]):
                dead.append(f"{path.name}: {target}")
    return dead
