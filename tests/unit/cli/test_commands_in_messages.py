"""Commands that messages tell the user to run work when they are pasted: what stands for a path in them is quoted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli import answer
from bench.utils.paths import PACKAGE

BEGINS = re.compile(r"\bdfkd [a-z]+ ?[^`\n]*$")
SAFE = re.compile(r"""shlex\.|f['"]|each\.(file\.)?(name|used_by)$""")  # quoted, looked at by itself, or a name
PATHS = re.compile(r"\b(folder|results|file|place|out|path|archive|target|work|root)\b")


def unquoted(source: str) -> Iterator[str]:
    """The f-strings in which a path follows ``dfkd VERB`` as it is."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            value = ast.unparse(part.value)
            if BEGINS.search(text) and PATHS.search(value) and not SAFE.match(value):
                yield f"{text}{{{value}}}"
            text += "_"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('f"next: dfkd report --results {folder}"', 1),
        ('f"`dfkd merge {place} --out {out}` does"', 2),
        ('f"next: dfkd report --results {shlex.quote(str(folder))}"', 0),
        ('f"`dfkd report` reads {folder}"', 0),
        ('f"{folder} is none: `dfkd list {kind}`"', 0),
    ],
)
def test_what_is_looked_for_is_found(source: str, found: int) -> None:
    assert len(list(unquoted(source))) == found


def test_no_message_has_an_unquoted_path_in_a_command() -> None:
    found = {str(file): list(unquoted(file.read_text(encoding="utf-8"))) for file in PACKAGE.rglob("*.py")}
    assert {file: texts for file, texts in found.items() if texts} == {}


def test_a_path_with_blanks_and_wildcards_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["report", "--results", str(tmp_path / "my [1]* results")]) == 2
    assert f"--results '{tmp_path}/my [1]* results'` creates one" in " ".join(capsys.readouterr().err.split())
