"""Fashion-MNIST as a package of the system brings it: looked at last, never written to, and protected."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import idx_files
import pytest
from idx_files import TEST_LABELS, TRAIN_IMAGES, write

from bench import data
from bench.cli import answer
from bench.data import folders
from bench.errors import UserError

FILES = idx_files.tiny_files()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package's folder with all files directly in it, in archives with another header than the official ones."""
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    site = write(tmp_path / "site", idx_files.packed_files(FILES))
    folder = tmp_path / "package"
    source = idx_files.source_of(FILES, lambda name: (f"{site.as_uri()}/{name}.gz",))
    monkeypatch.setitem(data.SOURCES, "tiny", replace(source, package=folder))
    return write(folder, {f"{Path(name).name}.gz": gzip.compress(each, mtime=9) for name, each in FILES.items()})


def test_a_package_is_used_as_the_official_files(package, tmp_path):
    official = data.load("tiny", size=28, folder=write(tmp_path / "mine", FILES))
    packaged = data.load("tiny", size=28)
    assert packaged.altered == ()
    assert packaged.fingerprint == official.fingerprint
    status = data.status("tiny")[0]
    assert (status.state, status.path) == ("ok", package / "train-images-idx3-ubyte.gz")


def test_a_package_is_looked_at_last(package, tmp_path, monkeypatch):
    mine = write(tmp_path / "mine", {TRAIN_IMAGES: FILES[TRAIN_IMAGES]})
    assert data.status("tiny", mine)[0].path == mine / TRAIN_IMAGES
    assert data.status("tiny", mine)[1].state == "missing"
    monkeypatch.setenv("DFKD_DATA", str(mine))
    assert data.status("tiny")[0].path == mine / TRAIN_IMAGES


def test_a_package_is_fetched_from_only_where_nothing_is_named(package, tmp_path):
    assert data.fetch("tiny", progress=lambda *step: pytest.fail(f"{step} fetched")) == package
    assert data.fetch("tiny", tmp_path / "mine") == tmp_path / "mine"
    assert data.status("tiny", tmp_path / "mine")[0].path == tmp_path / "mine" / TRAIN_IMAGES


def test_a_damaged_package_is_told_and_left_alone(package, tmp_path):
    damaged = package / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(b"?")
    with pytest.raises(UserError) as error:
        data.load("tiny", size=28)
    message = str(error.value)
    assert message.startswith(f"tiny: {damaged}: not a complete gzip file: ")
    assert message.endswith(". Run `dfkd data fetch tiny`, or put them there yourself")
    before = {path: path.read_bytes() for path in package.iterdir()}
    assert data.fetch("tiny") == tmp_path / "cache" / "data"
    assert {path: path.read_bytes() for path in package.iterdir()} == before
    assert data.load("tiny", size=28).altered == ()


def test_missing_files_name_the_package_among_the_places(package, tmp_path):
    for path in package.iterdir():
        path.unlink()
    places = f"{tmp_path / 'cache' / 'data'}, {package}"
    assert data.status("tiny")[-1].message == f"{TEST_LABELS} (or t10k-labels-idx1-ubyte.gz) is not found in {places}"
    with pytest.raises(UserError, match=f"from {places}: "):
        data.load("tiny", size=28)


def test_the_command_line_lists_the_package(package, capsys):
    assert answer(["data", "status", "tiny"]) == 0
    assert f"  searched last  {package}\n" in capsys.readouterr().out
    assert answer(["data", "status", "tiny", "--json"]) == 0
    assert f'"{package}"' in capsys.readouterr().out
    assert answer(["data", "path", "tiny"]) == 0
    assert capsys.readouterr().out == f"{package}\n"


def test_packages_are_protected(monkeypatch, tmp_path):
    packages = [source.package for source in data.SOURCES.values() if source.package]
    assert packages == [Path("/usr/share/datasets/fashion-mnist")]
    assert set(packages) <= set(data.protected_paths())
    monkeypatch.setattr(folders, "FASHION_MNIST_PACKAGE", tmp_path / "package")
    assert tmp_path / "package" in data.protected_paths()
