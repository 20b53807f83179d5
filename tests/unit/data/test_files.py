"""Data files: official, altered, truncated, corrupted or missing, and what the user is told."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import idx_files
import pytest
import torch
from idx_files import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, images_file, labels_file, md5, pack, write

from bench import data
from bench.errors import MissingData, UserError

FILES = idx_files.tiny_files()
SOURCE = idx_files.source_of(FILES)


@pytest.fixture(autouse=True)
def _no_other_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(data.SOURCES, "tiny", SOURCE)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", FILES)


def load(folder, **options):
    return data.load("tiny", size=28, folder=folder, **options)


def states(folder):
    return {status.name: status.state for status in data.status("tiny", folder)}


def state_and_error(folder, name):
    """The state of the file ``name``, and what loading says; allowing altered files must not help."""
    with pytest.raises(UserError) as with_altered:
        load(folder, allow_altered=True)
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value) == str(with_altered.value)
    return states(folder)[name], str(error.value)


def test_official_files_load_in_their_order(folder):
    tiny = load(folder)
    assert tiny.name == "tiny"
    assert tiny.altered == ()
    assert tiny.classes == tuple("0123456789")
    assert tiny.train.images.dtype == torch.uint8
    assert tiny.train.images.shape == (6, 1, 28, 28)
    assert tiny.train.images.numpy().tobytes() == FILES[TRAIN_IMAGES][16:]
    assert tiny.test.images.numpy().tobytes() == FILES[TEST_IMAGES][16:]
    assert tiny.train.labels.dtype == torch.int64
    assert tiny.train.labels.tolist() == [3, 1, 4, 1, 5, 9]
    assert tiny.test.labels.tolist() == [2, 7, 1, 8]


def test_gzipped_files_load_as_the_unpacked_ones_do(folder, tmp_path):
    packed = write(tmp_path / "packed", idx_files.packed_files(FILES))
    assert load(packed).fingerprint == load(folder).fingerprint
    assert set(states(packed).values()) == {"ok"}


def test_another_archive_of_the_official_contents_is_official(tmp_path):
    files = {f"{name}.gz": gzip.compress(content, mtime=1) for name, content in FILES.items()}
    folder = write(tmp_path / "debian", files)
    status = data.status("tiny", folder)[0]
    assert status.state == "ok"
    assert (status.actual_size, status.actual_md5) == (len(FILES[TRAIN_IMAGES]), md5(FILES[TRAIN_IMAGES]))
    assert load(folder).altered == ()


def test_status_tells_sizes_and_checksums(folder):
    status = data.status("tiny", folder)[0]
    assert (status.name, status.path) == (TRAIN_IMAGES, folder / TRAIN_IMAGES)
    assert status.expected_size == status.actual_size == 16 + 6 * 28 * 28
    assert status.expected_md5 == status.actual_md5 == md5(FILES[TRAIN_IMAGES])
    assert status.message == f"{folder / TRAIN_IMAGES}: the official file"


def test_altered_files_load_only_when_allowed_and_are_named(folder):
    altered = labels_file(3, 1, 4, 1, 5, 0)
    write(folder, {TRAIN_LABELS: altered})
    assert states(folder)[TRAIN_LABELS] == "altered"
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value) == (
        f"tiny: {folder / TRAIN_LABELS}: altered: md5 {md5(altered)}, official {md5(FILES[TRAIN_LABELS])}. "
        f"Pass --allow-altered to use it anyway, or move it elsewhere and run `dfkd data fetch tiny --data {folder}`"
    )
    loaded = load(folder, allow_altered=True)
    assert loaded.altered == (TRAIN_LABELS,)
    assert loaded.train.labels.tolist() == [3, 1, 4, 1, 5, 0]


def test_an_altered_archive_is_compared_by_its_contents(folder):
    (folder / TRAIN_LABELS).unlink()
    write(folder, {f"{TRAIN_LABELS}.gz": pack(labels_file(0, 0, 0, 0, 0, 0))})
    assert states(folder)[TRAIN_LABELS] == "altered"
    assert load(folder, allow_altered=True).train.labels.tolist() == [0] * 6


@pytest.mark.parametrize("kept", [0, 3, 10, 4000])
def test_truncated_file_says_how_much_is_there(folder, kept):
    write(folder, {TRAIN_IMAGES: FILES[TRAIN_IMAGES][:kept]})
    state, error = state_and_error(folder, TRAIN_IMAGES)
    assert state == "truncated"
    assert error == (
        f"tiny: {folder / TRAIN_IMAGES}: truncated: {kept} of 4720 bytes. "
        f"Run `dfkd data fetch tiny --data {folder}`, or place the official files there by hand"
    )


def test_truncated_archive_says_how_much_is_there(folder):
    (folder / TEST_IMAGES).unlink()
    archive = pack(FILES[TEST_IMAGES])
    write(folder, {f"{TEST_IMAGES}.gz": archive[:-20]})
    state, error = state_and_error(folder, TEST_IMAGES)
    assert state == "truncated"
    assert f"{folder / TEST_IMAGES}.gz: truncated: {len(archive) - 20} of {len(archive)} bytes." in error


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            TRAIN_IMAGES,
            b"<!DOCTYPE html>" * 400,
            "not an IDX file of this kind: magic number 1008813135 instead of 2051",
        ),
        (TRAIN_IMAGES, labels_file(1, 2, 3), "not an IDX file of this kind: magic number 2049 instead of 2051"),
        (TRAIN_LABELS, images_file(6), "not an IDX file of this kind: magic number 2051 instead of 2049"),
        (TRAIN_IMAGES, images_file(7), "corrupted: 5504 bytes where the official file has 4720"),
        (
            TRAIN_IMAGES,
            struct.pack(">4I", 2051, 7, 28, 28) + bytes(4704),
            "corrupted: its header promises 7x28x28 values, and 4704 follow",
        ),
        (
            TRAIN_IMAGES,
            struct.pack(">4I", 2051, 6, 14, 56) + bytes(4704),
            "corrupted: images of 14x56 pixels, not 28x28",
        ),
        (TEST_LABELS, labels_file(0, 10, 0, 0), "corrupted: label 10, but there are 10 classes"),
    ],
)
def test_corrupted_file_says_what_is_wrong(folder, name, content, sentence):
    write(folder, {name: content})
    state, error = state_and_error(folder, name)
    assert state == "corrupted"
    assert f"tiny: {folder / name}: {sentence}. Run `dfkd data fetch tiny" in error


@pytest.mark.parametrize("archive", [b"not a gzip file", pack(FILES[TEST_IMAGES])[:-8] + bytes(8)])
def test_corrupted_archive_says_so(folder, archive):
    (folder / TEST_IMAGES).unlink()
    write(folder, {f"{TEST_IMAGES}.gz": archive})
    state, error = state_and_error(folder, TEST_IMAGES)
    assert state == "corrupted"
    assert f"{folder / TEST_IMAGES}.gz: not a complete gzip file: " in error


def test_unreadable_file_says_so(folder, monkeypatch):
    def deny(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", deny)  # not chmod: it would stop nobody who runs tests as root
    state, error = state_and_error(folder, TEST_IMAGES)
    assert state == "corrupted"
    assert f"{folder / TEST_IMAGES}: cannot be read: Permission denied" in error


def test_numbers_of_images_and_labels_have_to_agree(tmp_path, monkeypatch):
    files = {**FILES, TEST_LABELS: labels_file(1, 2, 3)}
    monkeypatch.setitem(data.SOURCES, "tiny", idx_files.source_of(files))
    with pytest.raises(UserError) as error:
        load(write(tmp_path / "data", files))
    assert str(error.value) == f"{TEST_IMAGES} has 4 images, but {TEST_LABELS} has 3 labels"


def test_a_source_with_wrong_facts_ends_in_a_user_error(tmp_path, monkeypatch):
    files = {**FILES, TEST_LABELS: labels_file(1, 2, 3, 77)}
    monkeypatch.setitem(data.SOURCES, "tiny", idx_files.source_of(files))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte: corrupted: label 77"):
        load(write(tmp_path / "data", files))


def test_missing_set_names_files_folders_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(MissingData) as error:
        load(tmp_path / "nothing")
    assert str(error.value) == (
        f"tiny: missing (plain and as .gz) from {tmp_path / 'nothing'}, {tmp_path / 'elsewhere'}, "
        f"{tmp_path / 'cache' / 'data'}: {TRAIN_IMAGES}, {TRAIN_LABELS}, {TEST_IMAGES}, {TEST_LABELS}. "
        "Run `dfkd data fetch tiny`, or put them there yourself"
    )
    assert set(states(tmp_path / "nothing").values()) == {"missing"}


def test_one_missing_file_is_reported_with_the_folder_of_the_others(folder):
    (folder / TEST_LABELS).unlink()
    with pytest.raises(MissingData) as error:
        load(folder)
    assert str(error.value) == (
        f"tiny: missing (plain and as .gz) from {folder}: {TEST_LABELS}. "
        f"Run `dfkd data fetch tiny --data {folder}`, or place the official files there by hand"
    )
    status = data.status("tiny", folder)[-1]
    assert (status.state, status.path) == ("missing", None)
    assert status.message == f"{TEST_LABELS} (or t10k-labels-idx1-ubyte.gz) is missing from {folder}"


def test_every_bad_file_is_named(folder):
    write(folder, {TRAIN_IMAGES: b"", TRAIN_LABELS: labels_file(0, 0, 0, 0, 0, 0)})
    (folder / TEST_LABELS).unlink()
    with pytest.raises(MissingData) as error:
        load(folder)
    for name in (TRAIN_IMAGES, TRAIN_LABELS, TEST_LABELS):
        assert name in str(error.value)
    assert TEST_IMAGES not in str(error.value)


def test_a_checksum_is_worked_out_once_until_the_file_changes(folder, monkeypatch):
    load(folder)
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, how: read.append(file.name) or digest(file, how))
    load(folder)
    assert read == []
    changed = folder / TRAIN_LABELS
    changed.write_bytes(labels_file(0, 0, 0, 0, 0, 0))
    os.utime(changed, ns=(1, 1))
    assert states(folder)[TRAIN_LABELS] == "altered"
    assert read == [str(changed)]


def test_size_below_one_pixel_is_refused(folder):
    with pytest.raises(UserError, match="image size 0: must be at least 1 pixel"):
        data.load("tiny", size=0, folder=folder)
