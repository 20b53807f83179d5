"""axe-core on a page, without the network: the script comes with axe-playwright-python."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

needs_axe = pytest.mark.skipif(
    importlib.util.find_spec("axe_playwright_python") is None,
    reason="needs axe-playwright-python: pip install '.[browser]'",
)
# Shadows are backgrounds, and on those axe measures no contrast: it is measured without them.
NO_SHADOWS = ".scroll { background: none !important; }"


def violations(browser: Any, file: Path, width: int, scheme: str) -> list[str]:
    """What axe-core finds on a page whose folded parts are open: each rule with the first element that breaks it."""
    from axe_playwright_python.base import AXE_SCRIPT

    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    if page.locator(".interactive").count():
        page.locator(".interactive.live canvas").first.wait_for()
    page.add_style_tag(content=NO_SHADOWS)
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    page.close()
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]
