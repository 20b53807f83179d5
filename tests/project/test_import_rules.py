"""The import contracts of pyproject.toml hold, and they would notice."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("bench", "methods"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("methods/dafl.py", "from bench.harness.trial_context import current", "methods use only bench's public names"),
        ("methods/common/losses.py", "import bench.models.lenet", "methods use only bench's public names"),
        ("bench/spec/study.py", "from methods.dafl import dafl", "bench knows no particular method"),
        ("bench/spec/task.py", "from methods.common import losses", "bench knows no particular method"),
        (
            "bench/analysis/stats/ranks.py",
            "import torch",
            "records, statistics, reports and comparisons open without torch",
        ),
        ("bench/errors.py", "import torchvision", "records, statistics, reports and comparisons open"),
    ],
)
def test_a_contract_notices(copy: Path, file: str, line: str, contract: str) -> None:
    with (copy / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1
    assert re.search(f"{contract}.* BROKEN", done.stdout)


def test_a_report_loads_no_torch() -> None:
    """The linter lets a task know data sets and networks; this is what that must not lead to."""
    opened = (
        "bench.analysis.report, bench.records, bench.analysis.stats, bench.spec.task, bench.analysis.regression.compare"
    )
    code = f"import sys, {opened}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
