"""The documentation as a site (`make docs`): everything has its place there, and no link leads nowhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import bench
from bench.utils.yaml import plain, read_yaml

ROOT = Path(__file__).parents[2]
SOURCE = "https://example.org/source"
needs_mkdocs = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("material", "mkdocstrings")), reason="`make docs` installs MkDocs"
)


def test_the_reference_has_every_public_name() -> None:
    shown = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {f"bench.{name}" for name in bench.__all__} <= set(shown)
    assert len(shown) == len(set(shown))


def test_the_hosted_workflow_makes_what_the_makefile_has() -> None:
    jobs = plain(read_yaml(ROOT / ".github" / "workflows" / "ci.yml"))["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = [run.split()[1] for run in runs if run.startswith("make ")]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(made) >= {"lint", "test", "demo", "docs"}
    assert set(made) <= set(targets)
    named = [word for run in runs for word in run.split() if word.startswith("tests/")]
    assert all((ROOT / file).is_file() for file in named)
    needed = re.findall(r'Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert jobs["test"]["strategy"]["matrix"]["python"] == needed


def test_the_hosted_workflow_verifies_each_archive_of_a_pull_request(tmp_path: Path) -> None:
    """Its script runs here, on a repository with two new archives, with a ``dfkd`` that notes what it is asked."""
    workflow = plain(read_yaml(ROOT / ".github" / "workflows" / "submissions.yml"))
    script = workflow["jobs"]["verify"]["steps"][-1]["run"]
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(tmp_path)]
    subprocess.run([*git[:5], "init", "-q", "-b", "main", str(tmp_path)], check=True)
    dfkd = tmp_path / ".venv" / "bin" / "dfkd"
    dfkd.parent.mkdir(parents=True)
    dfkd.write_text(
        '#!/bin/sh\necho "$@" >> asked\n[ "$1" = query ] && printf "data\\ndigits\\nmnist\\n"\n'
        '[ "$1" = verify ] && cat > /dev/null\nexit 0\n'
    )
    dfkd.chmod(0o755)
    old = tmp_path / "results" / "submissions" / "old" / "records.parquet"
    old.parent.mkdir(parents=True)
    old.touch()
    for name in (None, "a", "b c"):
        if name:
            (old.parents[1] / name).mkdir()
            (old.parents[1] / name / "records.parquet").write_text(name)
        subprocess.run([*git, "add", "results"], check=True)
        subprocess.run([*git, "commit", "-qm", "x"], check=True)
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    subprocess.run(bash, cwd=tmp_path, env={**os.environ, "BASE": "main~2"}, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    places = [f"results/submissions/{name}/records.parquet" for name in ("a", "b c")]
    assert [line for line in asked if line.startswith("verify")] == [f"verify {place} --sample 3" for place in places]
    assert asked.count("data fetch mnist") == 2
    assert "data fetch digits" not in asked


def build(root: Path, site: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "DFKD_SOURCE_URL": "", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def links(page: Path) -> set[str]:
    found = re.findall(r'(?:href|src)="([^"#]+)[^"]*"', page.read_text(encoding="utf-8"))
    return {link for link in found if not re.match(r"https?:|data:|mailto:", link)}


@needs_mkdocs
@pytest.mark.slow
def test_every_link_of_the_site_leads_to_a_page_or_to_a_file_of_the_project(tmp_path: Path) -> None:
    here = tmp_path / "here"
    done = build(ROOT, here)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [page for page in here.rglob("*.html") if page.name != "404.html"]
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} < {page.stem for page in pages}
    targets = [(page.parent / link).resolve() for page in pages for link in links(page)]
    assert [target for target in targets if not target.exists()] == []
    assert ROOT / "tests" / "unit" / "methods" / "test_zskd.py" in targets
    assert here / "writing-a-method.html" in targets
    assert (here / "reports" / "demo" / "figures").is_dir()  # the README's pictures
    assert all(f'id="bench.{name}"' in (here / "api.html").read_text() for name in bench.__all__)

    hosted = tmp_path / "hosted"
    done = build(ROOT, hosted, DFKD_SOURCE_URL=SOURCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'href="{SOURCE}/tests/unit/methods/test_zskd.py"' in (hosted / "methods.html").read_text()
    for page in hosted.glob("*.html"):
        assert all((page.parent / link).resolve().is_relative_to(hosted) for link in links(page) if link[0] != "/")
        assert str(ROOT) not in page.read_text()


MISTAKES = [
    ("docs/data.md", "[gone](../bench/gone.py)", "docs/data.md: the link to bench/gone.py leads nowhere"),
    ("README.md", "[gone](docs/gone.md)", "'index.md' contains a link 'gone.md', but the target is not found"),
    ("docs/data.md", "[gone](studies.md#gone)", "'studies.md' does not contain an anchor '#gone'"),
    ("docs/data.md", "[gone][bench.Gone]", "Could not find cross-reference target 'bench.Gone'"),
    ("docs/unlisted.md", "# A page", 'not included in the "nav" configuration:\n  - unlisted.md'),
]


@needs_mkdocs
@pytest.mark.slow
def test_mistakes_end_the_build_and_are_named(tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(ROOT / "docs", root / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for place in ROOT.iterdir():
        if place.suffix == ".md":
            shutil.copy(place, root)
        elif place.name not in ("docs", "build", ".git"):
            (root / place.name).symlink_to(place)
    for page, text, _ in MISTAKES:
        with (root / page).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}\n")
    done = build(root, tmp_path / "site")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert [complaint for _, _, complaint in MISTAKES if complaint not in said] == []
    assert f"Aborted with {len(MISTAKES)} warnings" in said, said
