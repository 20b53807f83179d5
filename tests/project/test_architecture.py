"""The folder tree explains itself: what docs/architecture.md says of it, and the rules that keep it so."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = sorted(file.parent for file in BENCH.rglob("__init__.py") if file.parent != BENCH)


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) <= 250


def test_few_modules_lie_outside_the_packages() -> None:
    assert {file.name for file in BENCH.glob("*.py")} == {"__init__.py", "__main__.py", "_version.py", "errors.py"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.relative_to(ROOT).as_posix())
def test_a_package_says_what_lives_there_and_what_may_not(package: Path) -> None:
    lives, may_not, *_ = (ast.get_docstring(ast.parse((package / "__init__.py").read_bytes())) or "").split("\n\n")
    assert lives.endswith(".")
    assert re.search(r"\b(Nothing|No|nothing|no)\b", may_not)


def test_every_package_stands_on_the_page() -> None:
    top = {f"bench.{package.name}" for package in PACKAGES if package.parent == BENCH}
    assert top == set(re.findall(r"`(bench\.(?!errors|_version)\w+)`", PAGE))


def test_every_place_on_the_page_is_there() -> None:
    """Paths as the walks write them, some relative to the folder that the line above names."""
    walks = "".join(re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL))
    named = set(re.findall(r"[\w/]*\w+\.py\b", walks))
    real = {file.relative_to(ROOT).as_posix() for file in BENCH.rglob("*.py")}
    assert len(named) > 20
    assert not [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in real)]


def test_one_class_name_means_one_thing() -> None:
    names = Counter(
        node.name
        for folder in (BENCH, ROOT / "methods")
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.ClassDef) and node.name != "Options"  # each method's own, as every method file has it
    )
    assert [name for name, count in names.items() if count > 1] == []
