"""The wheel: what is in it, and that it works where no checkout is. Built and installed without the network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest

import bench

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "writing-a-method.md"
EXAMPLE = ROOT / "tests" / "contract" / "good" / "one_hot.py"


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel, and a folder of a user's own, far from the checkout."""

    wheel: Path
    python: Path
    packages: Path  # its site-packages
    home: Path

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command there, without anything of this process's environment that names the checkout."""
        return run([*map(str, words)], self.home, DFKD_CACHE=str(self.home / "cache"))

    def dfkd(self, *words: str) -> str:
        done = self.run(self.python.with_name("dfkd"), *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def run(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def pip(*words: str | Path) -> None:
    """pip of this environment, offline; build tools come from this environment too."""
    done = subprocess.run([sys.executable, "-m", "pip", *map(str, words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def build(source: Path, folder: Path) -> Path:
    pip("wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an environment of its own, which finds the libraries, and no editable install, of this one."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build(ROOT, folder / "dist")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    packages = next((folder / "env" / "lib").glob("python*/site-packages"))
    (packages / "libraries.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n", encoding="utf-8")
    pip("--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    home = folder / "home"
    home.mkdir()
    return Installation(wheel, python, packages, home)


@pytest.mark.slow
def test_the_wheel_holds_the_suite_and_nothing_else(installed: Installation) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "bench", "methods", "studies"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {name for name in names if ".dist-info/" not in name} == {name for name in tracked if (ROOT / name).exists()}
    for name in ("bench/py.typed", "methods/py.typed", "bench/recipes.yaml", "studies/demo.yaml"):
        assert name in names
    assert any(re.fullmatch(r"bench/tasks/\w+\.yaml", name) for name in names)
    assert any(re.fullmatch(r"bench/analysis/report/templates/\w+\.html", name) for name in names)


@pytest.mark.slow
def test_the_wheel_says_its_version_and_what_it_needs(installed: Installation) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        facts = Parser().parsestr(archive.read(name).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert facts["Name"] == project["name"]
    assert facts["Version"] == bench.__version__
    needed = [each for each in facts.get_all("Requires-Dist") or [] if "extra ==" not in each]
    assert len(needed) == len(project["dependencies"])


@pytest.mark.slow
def test_the_installed_suite_works_far_from_the_checkout(installed: Installation) -> None:
    where = installed.run(
        installed.python, "-P", "-c", "import bench, methods; print(bench.__file__, methods.__file__)"
    )
    assert all(Path(file).is_relative_to(installed.packages) for file in where.stdout.split()), where.stdout
    assert installed.dfkd("--version").strip().endswith(bench.__version__)
    methods = installed.dfkd("list", "methods")
    assert all(file.stem in methods for file in (ROOT / "methods").glob("dfa*.py"))
    assert "mnist/lenet5-half" in installed.dfkd("list", "tasks")
    assert "small/digits" in installed.dfkd("list", "studies")
    assert "noise" in installed.dfkd("run", "demo", "--dry-run", "--device", "cpu")
    assert not list(installed.home.glob("runs*"))


@pytest.mark.slow
def test_a_package_brings_methods_by_the_entry_point_of_the_tutorial(installed: Installation, tmp_path: Path) -> None:
    entry = next(text for text in blocks("toml") if "entry-points" in text)
    package = tmp_path / "source" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(EXAMPLE, package / "my_method.py")
    (tmp_path / "source" / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "my-package"\nversion = "1"\n{entry}',
        encoding="utf-8",
    )
    wheel = build(tmp_path / "source", tmp_path / "dist")
    pip("--python", installed.python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    try:
        assert "one_hot" in installed.dfkd("list", "methods")
    finally:
        pip("--python", installed.python, "uninstall", "--quiet", "--yes", "my-package")
    assert "one_hot" not in installed.dfkd("list", "methods")


# What torch and torchdistill have without types is not for the suite to fix.
UNTYPED = ("--allow-untyped-calls", "--disable-error-code=import-untyped", "--disable-error-code=import-not-found")


@pytest.mark.slow
def test_method_files_of_a_user_are_type_checked_against_the_installed_wheel(installed: Installation) -> None:
    files = [installed.home / "one_hot.py"]
    shutil.copy(EXAMPLE, files[0])
    for number, code in enumerate(text for text in blocks("python") if "@method(" in text):
        files.append(installed.home / f"tutorial_{number}.py")
        files[-1].write_text(code, encoding="utf-8")
    assert len(files) > 3
    wrong = installed.home / "wrong.py"
    wrong.write_text(
        EXAMPLE.read_text(encoding="utf-8")
        .replace("s.noise(o.batch, 32)", 's.noise("many")')
        .replace("access=Access.GRADIENTS", 'access="gradients"')
        .replace("s.teacher(images).logits", "s.teacher(images).logit"),
        encoding="utf-8",
    )
    typed = type_check(installed, *files, wrong, more=UNTYPED)
    errors = re.findall(r"^(\S+?):\d+: error: .*\[([\w-]+)\]$", typed.stdout, flags=re.MULTILINE)
    expected = [("wrong.py", "arg-type"), ("wrong.py", "arg-type"), ("wrong.py", "attr-defined")]
    assert sorted(errors) == expected, typed.stdout + typed.stderr

    (installed.packages / "bench" / "py.typed").rename(installed.home / "py.typed")
    try:
        untyped = type_check(installed, files[0])
    finally:
        (installed.home / "py.typed").rename(installed.packages / "bench" / "py.typed")
    assert 'Skipping analyzing "bench": module is installed, but missing library stubs or py.typed' in untyped.stdout


def type_check(installed: Installation, *files: Path, more: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """mypy as a user runs it: strict, in a folder of their own, for the environment with the wheel."""
    mypy = [sys.executable, "-P", "-m", "mypy", "--strict", "--python-executable", installed.python, *more]
    return installed.run(*mypy, "--cache-dir", installed.home / "mypy", "--no-color-output", *files)


def blocks(kind: str) -> list[str]:
    """The code blocks of the tutorial."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
