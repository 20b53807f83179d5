"""The package, CITATION.cff and CHANGELOG.md name one version, and ``python -m bench`` is the command that says it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import bench
from bench.utils.yaml import plain, read_yaml

ROOT = Path(__file__).parents[2]
CITATION = plain(read_yaml(ROOT / "CITATION.cff"))
ENTRIES = re.findall(
    r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
)


def test_changelog_and_citation_name_the_version_of_the_package() -> None:
    assert ENTRIES[0][0] == bench.__version__
    assert CITATION["version"] == bench.__version__


def test_a_version_is_cited_with_a_date_once_it_is_released() -> None:
    date = ENTRIES[0][1]
    assert str(CITATION.get("date-released", "unreleased")) == date


def test_every_heading_of_the_changelog_is_a_version_and_only_the_newest_is_unreleased() -> None:
    headings = re.findall(r"^## .*$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) == len(ENTRIES)
    assert all(date != "unreleased" for _, date in ENTRIES[1:])


def test_python_m_bench_is_dfkd() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, f"dfkd {bench.__version__}\n"), done.stderr
    wrong = subprocess.run([sys.executable, "-m", "bench", "runn"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2
    assert "run" in wrong.stderr
    assert "Traceback" not in wrong.stderr
