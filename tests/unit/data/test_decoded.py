"""The cache of decoded images: made once, never trusted blindly, never in the way, and fenced off."""

from __future__ import annotations

import os

import pytest
import torch
from tree_files import truncate

from bench import data
from bench.data.decoded import cached

TENSORS = {"images": torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4), "labels": torch.tensor([3, 1])}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Where the cache lies; it is not there yet."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "set" / name for name in ("a.png", "b.png")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    return paths


def get(files, make=TENSORS.copy, name="tiny", size=4):
    return cached(name, files[0].parent, files, size, make)


def never():
    pytest.fail("made again")


def same(tensors):
    return tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_tensors_are_made_once(files, folder):
    assert same(get(files))
    assert same(get(files, never))
    (kept,) = folder.iterdir()
    assert kept.name.startswith("tiny-4-")


def test_another_set_size_file_time_or_order_is_made_anew(files, folder):
    get(files)
    get(files, name="other")
    get(files, size=5)
    get(files[::-1])
    files[0].write_text("longer than before")
    get(files)
    os.utime(files[0], ns=(0, 0))
    get(files)
    files[1].rename(files[1].with_name("c.png"))
    get([files[0], files[1].with_name("c.png")])
    assert len(list(folder.iterdir())) == 7


def test_a_set_that_was_moved_is_the_same(files, tmp_path):
    get(files)
    (tmp_path / "set").rename(tmp_path / "moved")
    assert same(get([tmp_path / "moved" / path.name for path in files], never))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [truncate, flip, lambda path: path.write_bytes(b"?"), lambda path: path.unlink()])
def test_a_damaged_file_is_made_again(files, folder, harm):
    get(files)
    (kept,) = folder.iterdir()
    whole = kept.read_bytes()
    harm(kept)
    assert same(get(files))
    assert kept.read_bytes() == whole


def test_without_a_place_to_write_nothing_is_kept(files, folder):
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    assert same(get(files))
    folder.unlink()
    get(files)
    (kept,) = folder.iterdir()
    replace(kept)
    assert same(get(files))
    assert list(folder.iterdir()) == [kept]


def test_an_error_while_making_keeps_nothing(files, folder):
    def fail():
        raise ValueError("broken image")

    threads = torch.get_num_threads()
    with pytest.raises(ValueError, match="broken image"):
        get(files, fail)
    assert not folder.exists()
    assert torch.get_num_threads() == threads


def test_the_real_images_in_it_are_fenced_off(folder):
    assert folder in data.protected_paths()
