"""Which files are a method's own: by the imports of its file, wherever they stand in it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench.utils.paths import ROOT
from bench.utils.user_code import imports_of, own_files

EVERYWHERE = """
import a0
def function():
    import a1
    with open("x") as file:
        from a2 import b
    for _ in ():
        import a3
    else:
        import a4
class Class:
    async def method(self):
        try:
            import a5
        except OSError:
            import a6
        else:
            import a7
        finally:
            import a8
        match self:
            case 1:
                import a9
        value = (lambda: 1)() if self else [x for x in ()]
        while value:
            if value: import a10
            elif self: import a11
            else: from . import a12
"""


def walked(source: bytes) -> set[str]:
    """Import statements as the plain walk through all nodes finds them."""
    return {ast.dump(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)}


def test_imports_are_found_in_every_kind_of_statement() -> None:
    found = imports_of(EVERYWHERE.encode())
    assert len(found) == 13
    assert {ast.dump(node) for node in found} == walked(EVERYWHERE.encode())


@pytest.mark.parametrize("file", sorted((ROOT / "methods").rglob("*.py")), ids=lambda file: file.stem)
def test_imports_of_the_methods_are_those_of_a_plain_walk(file: Path) -> None:
    assert {ast.dump(node) for node in imports_of(file.read_bytes())} == walked(file.read_bytes())


@pytest.mark.parametrize("source", [b"def", b"\x00", b"import \xff"])
def test_what_is_not_python_imports_nothing(source: bytes) -> None:
    assert imports_of(source) == ()


def test_own_files_follow_imports_inside_functions(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f():\n    import beside\n", encoding="utf-8")
    (tmp_path / "beside.py").write_text("import further\n", encoding="utf-8")
    for name in ("further", "other"):
        (tmp_path / f"{name}.py").write_text("", encoding="utf-8")
    assert {file.name for file in own_files(tmp_path / "mine.py")} == {"mine.py", "beside.py", "further.py"}
