"""Where data is looked for, what is protected, and what importing the registry costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import idx_files
import platformdirs
import pytest
import sklearn

from bench import data
from bench.errors import MissingData, UserError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.delenv("DFKD_CACHE", raising=False)


def test_search_order_is_argument_then_environment_then_cache(monkeypatch, tmp_path):
    users = Path(platformdirs.user_cache_dir("dfkd")) / "data"
    assert data.search_folders() == [users]
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "env"))
    assert data.search_folders(tmp_path / "arg") == [tmp_path / "arg", tmp_path / "env", users]
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    assert data.search_folders() == [tmp_path / "env", tmp_path / "cache" / "data"]


def test_empty_variables_count_as_unset(monkeypatch):
    unset = data.search_folders()
    monkeypatch.setenv("DFKD_DATA", "")
    monkeypatch.setenv("DFKD_CACHE", "")
    assert data.search_folders() == unset


def test_search_folders_are_absolute_and_named_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "here"))
    folders = data.search_folders(Path("here"))
    assert folders[0] == tmp_path / "here"
    assert len(folders) == 2
    assert data.search_folders(Path("~/there"))[0] == Path.home() / "there"


def test_the_first_folder_that_holds_the_set_is_used(monkeypatch, tmp_path):
    files = idx_files.tiny_files()
    monkeypatch.setitem(data.SOURCES, "tiny", idx_files.source_of(files))
    argument, environment = tmp_path / "arg", tmp_path / "env"
    monkeypatch.setenv("DFKD_DATA", str(environment))
    idx_files.write(environment, files)
    assert data.status("tiny", argument)[0].path == environment / idx_files.TRAIN_IMAGES
    idx_files.write(argument, files)
    assert data.status("tiny", argument)[0].path == argument / idx_files.TRAIN_IMAGES


def test_a_set_is_never_mixed_from_several_folders(monkeypatch, tmp_path):
    files = idx_files.tiny_files()
    monkeypatch.setitem(data.SOURCES, "tiny", idx_files.source_of(files))
    monkeypatch.setenv("DFKD_DATA", str(idx_files.write(tmp_path / "whole", files)))
    mine = idx_files.write(tmp_path / "mine", {idx_files.TRAIN_LABELS: idx_files.labels_file(0, 0, 0, 0, 0, 0)})
    with pytest.raises(MissingData, match=idx_files.TRAIN_IMAGES):
        data.load("tiny", size=28, folder=mine, allow_altered=True)


def test_protected_paths_cover_search_folders_links_and_the_digits(monkeypatch, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "env"))
    protected = data.protected_paths(tmp_path / "link")
    assert {*data.search_folders(tmp_path / "link"), tmp_path / "real"} <= set(protected)
    assert any((folder / "digits.csv.gz").is_file() for folder in protected)
    assert Path(sklearn.__file__).parent / "datasets" / "data" in protected


def test_unknown_name_gets_a_hint():
    for use in (lambda: data.load("mnits", size=28), lambda: data.status("mnits"), lambda: data.fetch("mnits")):
        with pytest.raises(UserError, match="unknown data set 'mnits'; did you mean 'mnist'"):
            use()


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from bench import data; data.protected_paths(); [data.status(name) for name in data.NAMES]; "
        "print(sorted({'torch', 'numpy', 'sklearn', 'torchvision', 'PIL'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("name", data.NAMES)
def test_every_source_states_its_facts(name):
    source = data.SOURCES[name]
    assert source.name == name
    assert source.title
    assert source.licence
    assert source.citation
    assert source.how_to_place
    assert len(source.classes) == len(set(source.classes))
    assert bool(source.classes) == (source.kind != "unlabelled")
    ways = (source.files, source.tree, source.bundled, source.make)
    # what is bundled may need cutting up (`make`); all else comes in one way
    assert sum(map(bool, ways)) == (2 if source.bundled and source.make else 1)
    for file in source.files:
        assert len(file.md5) == 32
        assert file.urls or source.archive is not None
        if file.gz_md5 is not None:
            assert len(file.gz_md5) == 32
            assert all(url.endswith(Path(file.name).name + ".gz") for url in file.urls)
