"""What is kept in git stays small: the hook refuses large files, and the repository is within its limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.records import read_beside

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "sizes"


def sizes(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *names], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def put(tree: Path, name: str, size: int) -> None:
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_bytes(b"x" * size)
    subprocess.run(["git", "-C", str(tree), "add", name], check=True)


def test_a_file_over_the_limit_is_named(tree: Path) -> None:
    put(tree, "figure.png", 300 * 1024)
    assert sizes(tree, "figure.png").returncode == 0
    put(tree, "figure.png", 300 * 1024 + 1)
    for names in (["figure.png"], []):
        done = sizes(tree, *names)
        assert done.returncode == 1
        assert done.stderr.startswith("figure.png: 300 KB, and a tracked file has at most 300 KB")


def test_an_archive_of_records_may_be_larger_and_has_a_limit_too(tree: Path) -> None:
    put(tree, "results/zoo/records.parquet", 900 * 1024)
    put(tree, "other/records.parquet", 900 * 1024)
    assert sizes(tree, "results/zoo/records.parquet").returncode == 0
    assert "other/records.parquet" in sizes(tree).stderr
    put(tree, "results/zoo/records.parquet", 1024 * 1024 + 1)
    assert "results/zoo/records.parquet: 1,024 KB" in sizes(tree).stderr


def test_too_many_files_are_told(tree: Path) -> None:
    for number in range(1_000):
        (tree / f"{number}.txt").write_text("")
    subprocess.run(["git", "-C", str(tree), "add", "."], check=True)
    assert "1,000 files are tracked" in sizes(tree).stderr
    subprocess.run(["git", "-C", str(tree), "rm", "--quiet", "--cached", "0.txt"], check=True)
    assert sizes(tree).returncode == 0


def test_too_large_a_tree_is_told(tree: Path) -> None:
    for number in range(16):
        put(tree, f"results/{number}/records.parquet", 1024 * 1024)
    assert "the tracked files have 16.0 MB" in sizes(tree).stderr


def test_the_hook_is_this_script() -> None:
    assert "entry: .ci/sizes, language: system}" in (ROOT / ".pre-commit-config.yaml").read_text()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git checkout")
def test_the_repository_is_within_its_limits() -> None:
    done = sizes(ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git checkout")
def test_every_figure_that_is_kept_is_shown_by_a_summary() -> None:
    """`dfkd site --summary` removes what an earlier one wrote by a list that is not in git: a fresh clone has none."""
    listed = subprocess.run(
        ["git", "ls-files", "reports/*.png"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    figures = [ROOT / name for name in listed if (ROOT / name).is_file()]
    assert figures
    for figure in figures:
        texts = [text.read_text(encoding="utf-8") for text in figure.parents[1].glob("*.md")]
        assert any(f"](figures/{figure.name})" in text for text in texts), f"{figure} is shown nowhere: remove it"


def test_the_study_beside_an_archive_is_the_one_in_it() -> None:
    for archive in ROOT.glob("results/**/records.parquet"):
        assert (archive.parent / "study.yaml").read_text(encoding="utf-8") == read_beside(archive, "study.yaml")
