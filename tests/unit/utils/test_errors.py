"""The file that was meant is named where one is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import nearest_file


@pytest.mark.parametrize(
    ("name", "ending", "meant"),
    [
        ("mine", ".py", "mine.py"),
        ("mnie.py", ".py", "mine.py"),
        ("sub/studdy.yaml", ".yaml", "sub/study.yaml"),
        ("../lab/mine", ".py", "../lab/mine.py"),
        ("mine.yaml", ".yaml", None),  # another kind
        ("else.py", ".py", None),
        ("nowhere/mine.py", ".py", None),
        ("x" * 5000 + ".py", ".py", None),
        ("a\0b.py", ".py", None),
        ("", ".py", None),
    ],
)
def test_a_file_that_is_there_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str, meant: str | None
) -> None:
    lab = tmp_path / "lab"
    (lab / "sub").mkdir(parents=True)
    (lab / "mine.py").touch()
    (lab / "sub" / "study.yaml").touch()
    (lab / "folder.py").mkdir()
    monkeypatch.chdir(lab)
    assert nearest_file(name, ending) == (f"; did you mean the file {meant!r}?" if meant else "")
