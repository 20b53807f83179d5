"""SVHN: the official MATLAB files and nothing else, and the real set where it is there."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from idx_files import md5, write
from mat_files import DOUBLE_CLASS, UINT8_CLASS, mat_file
from scipy.io import savemat

from bench import data
from bench.cli import answer
from bench.data.source import SourceFile
from bench.errors import MissingData, UserError
from bench.utils.torchvision_compat import torchvision

TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"
LABELS = {TRAIN: [1, 9, 10, 3, 10], TEST: [5, 10, 1]}  # as in the files: 10 is the digit 0


def images(name: str) -> np.ndarray:
    """uint8 (N, 3, 32, 32)."""
    return np.random.default_rng(len(name)).integers(0, 256, (len(LABELS[name]), 3, 32, 32), dtype=np.uint8)


def mat(compressed: bool = True, **variables: object) -> bytes:
    out = io.BytesIO()
    savemat(out, variables, do_compression=compressed)
    return out.getvalue()


def official(name: str, compressed: bool = True, **changes: object) -> bytes:
    values = {"X": images(name).transpose(2, 3, 1, 0), "y": np.array(LABELS[name], np.uint8)[:, None]}
    return mat(compressed, **{**values, **changes})


FILES = {name: official(name) for name in (TRAIN, TEST)}
SOURCE = replace(
    data.SOURCES["svhn"],
    name="tiny",
    files=tuple(
        SourceFile(name, len(content), md5(content), images=len(LABELS[name])) for name, content in FILES.items()
    ),
)


@pytest.fixture(autouse=True)
def _tiny_set(monkeypatch, tmp_path, request):
    if request.node.get_closest_marker("data") is None:  # the real set is where the user says
        monkeypatch.delenv("DFKD_DATA", raising=False)
        monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
        monkeypatch.setitem(data.SOURCES, "tiny", SOURCE)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", FILES)


def load(folder):
    return data.load("tiny", size=32, folder=folder, allow_altered=True)


def state_and_sentence(folder, name):
    """The state of the file ``name``, and what is said of it, which loading says too."""
    status = next(each for each in data.status("tiny", folder) if each.name == name)
    with pytest.raises(UserError) as error:
        load(folder)
    assert status.message in str(error.value)
    return status.state, status.message.removeprefix(f"{folder / name}: ")


def test_official_files_load_in_their_order_with_ten_as_zero(folder):
    tiny = data.load("tiny", size=32, folder=folder)
    assert tiny.altered == ()
    assert tiny.classes == tuple("0123456789")
    assert tiny.train.labels.dtype == torch.int64
    assert tiny.train.labels.tolist() == [1, 9, 0, 3, 0]
    assert tiny.test.labels.tolist() == [5, 0, 1]
    assert torch.equal(tiny.train.images, torch.from_numpy(images(TRAIN)))
    assert torch.equal(tiny.test.images, torch.from_numpy(images(TEST)))


def test_torchvision_reads_the_same_from_the_same_place(folder, monkeypatch):
    torchvision()
    from torchvision.datasets import SVHN

    listed = {"test": ["", TEST, md5(FILES[TEST])]}
    monkeypatch.setattr(SVHN, "split_list", listed)
    theirs = SVHN(str(folder), split="test")
    ours = load(folder).test
    assert np.array_equal(theirs.data, ours.images.numpy())
    assert theirs.labels.tolist() == ours.labels.tolist()


def test_another_file_of_the_same_variables_is_altered(folder):
    fingerprint = load(folder).fingerprint
    write(folder, {TRAIN: official(TRAIN, compressed=False)})
    assert load(folder).altered == (TRAIN,)
    assert load(folder).fingerprint == fingerprint
    with pytest.raises(UserError, match=r"train_32x32\.mat: altered: md5 .*Pass --allow-altered"):
        data.load("tiny", size=32, folder=folder)


@pytest.mark.parametrize("kept", [0, 5, 100, 128, 131, 500, -1])
def test_truncated_file_says_how_much_is_there(folder, kept):
    content = FILES[TRAIN][:kept]
    write(folder, {TRAIN: content})
    assert state_and_sentence(folder, TRAIN) == ("truncated", f"truncated: {len(content)} of {len(FILES[TRAIN])} bytes")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<!DOCTYPE html>", "not a MATLAB 5 file: it starts with b'<!DOCTYPE ht'"),
        (b"MATLAB 7.3 MAT-file" + bytes(900), "not a MATLAB 5 file: it starts with b'MATLAB 7.3 M'"),
        (FILES[TRAIN] + b"\1\0\0\0\xff\0\0\0", "corrupted: a variable is longer than the file"),
        (FILES[TRAIN][:600] + bytes(900) + FILES[TRAIN][1500:], "corrupted: scipy cannot read it: Error -3 while "),
        (mat(X=1), "corrupted: expected the variables X and y, found X"),
        (mat(Z=1), "corrupted: expected the variables X and y, found nothing of it"),
        (
            official(TRAIN, X=images(TRAIN)),
            "corrupted: X is 5x3x32x32 of type uint8, not 32x32x3x5 of type uint8",
        ),
        (
            official(TRAIN, X=images(TRAIN).transpose(2, 3, 1, 0) / 255),
            "corrupted: X is 32x32x3x5 of type float64, not 32x32x3x5 of type uint8",
        ),
        (official(TEST), "corrupted: X is 32x32x3x3 of type uint8, not 32x32x3x5 of type uint8"),
        (
            official(TRAIN, y=np.ones((4, 1), np.uint8)),
            "corrupted: y is 4x1 of type uint8, not 5x1 whole numbers",
        ),
        (official(TRAIN, y=np.arange(5)[:, None]), "corrupted: label 0, but they go from 1 to 10"),
        (official(TRAIN, y=np.arange(7, 12)[:, None]), "corrupted: label 11, but they go from 1 to 10"),
        (official(TRAIN, y=np.full((5, 1), np.nan)), "corrupted: label nan, but they go from 1 to 10"),
    ],
)
def test_corrupted_file_says_what_is_wrong(folder, content, sentence):
    write(folder, {TRAIN: content})
    state, said = state_and_sentence(folder, TRAIN)
    assert state == "corrupted"
    assert said.startswith(sentence) if sentence.endswith(" ") else said == sentence


@pytest.mark.parametrize("kind", [UINT8_CLASS, DOUBLE_CLASS])
def test_files_as_matlab_writes_them_with_600_images_each(kind, tmp_path, monkeypatch):
    rng, count = np.random.default_rng(5), 600
    parts, contents = {}, {}
    for name in (TRAIN, TEST):
        pixels = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        parts[name] = pixels, labels
        contents[name] = mat_file(X=(UINT8_CLASS, pixels), y=(kind, labels))
    files = tuple(SourceFile(name, len(each), md5(each), images=count) for name, each in contents.items())
    monkeypatch.setitem(data.SOURCES, "tiny", replace(SOURCE, files=files))
    tiny = data.load("tiny", size=32, folder=write(tmp_path / "data", contents))
    assert tiny.altered == ()
    for name, split in ((TRAIN, tiny.train), (TEST, tiny.test)):
        pixels, labels = parts[name]
        assert split.labels.bincount().tolist() == [60] * 10
        assert split.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]  # 10 is the digit 0
        for row, column, channel, number in ((0, 0, 0, 0), (3, 29, 1, 17), (31, 2, 2, 599)):
            assert split.images[number, channel, row, column] == pixels[row, column, channel, number]


@pytest.mark.parametrize("name", ["with blanks", "données 数据", "it's $HOME"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_data_root_of_any_name_is_read_through_links_too(name, linked, tmp_path, capsys):
    root = write(tmp_path / name, FILES)
    if linked:
        store = tmp_path / "store"
        store.mkdir()
        for file in FILES:
            (root / file).rename(store / file)
            (root / file).symlink_to(store / file)
        root.rename(tmp_path / "real")
        root.symlink_to(tmp_path / "real")
    assert data.load("tiny", size=32, folder=root).train.labels.tolist() == [1, 9, 0, 3, 0]
    assert answer(["data", "path", "tiny", "--data", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}\n"


def test_missing_set_says_what_to_place(tmp_path):
    with pytest.raises(MissingData) as error:
        load(tmp_path / "nothing")
    assert str(error.value) == (
        f"tiny: missing from {tmp_path / 'nothing'}, {tmp_path / 'cache' / 'data'}: {TRAIN}, {TEST}. "
        f"Run `dfkd data fetch tiny`, or download {TRAIN} and {TEST} from http://ufldl.stanford.edu/housenumbers/, "
        "and name the folder that contains both with --data or DFKD_DATA"
    )


@pytest.mark.data("svhn")
def test_the_real_set_has_the_published_counts_labels_and_statistics():
    dataset = data.load("svhn", size=32)
    assert dataset.train.images.shape == (73_257, 3, 32, 32)
    assert dataset.test.images.shape == (26_032, 3, 32, 32)
    assert dataset.train.labels[:6].tolist() == [1, 9, 2, 3, 2, 5]
    assert dataset.train.labels.bincount(minlength=10).tolist() == [
        4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659,
    ]  # fmt: skip
    for channel, (mean, std) in enumerate(zip((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), strict=True)):
        pixels = dataset.train.images[:, channel].double() / 255
        assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((mean, std), abs=1e-4)


def test_facts_agree_with_torchvision():
    torchvision()
    from torchvision.datasets import SVHN

    for file, split in zip(data.SOURCES["svhn"].files, ("train", "test"), strict=True):
        assert [file.urls[0], file.name, file.md5] == SVHN.split_list[split]
