"""CIFAR-10 and CIFAR-100: the official pickles and nothing else, and the real sets where they are there."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from functools import partial

import cifar_files
import numpy as np
import pytest
import torch
from cifar_files import BATCH_1, BATCH_2, LABELS, META, NAMES, TEST, entries, pixels, python2
from idx_files import write

from bench import data
from bench.errors import UserError
from bench.utils.torchvision_compat import torchvision

FILES = cifar_files.tiny_files()


@pytest.fixture(autouse=True)
def _tiny_set(monkeypatch, tmp_path, request):
    if request.node.get_closest_marker("data") is None:  # the real sets are where the user says
        monkeypatch.delenv("DFKD_DATA", raising=False)
        monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
        monkeypatch.setitem(data.SOURCES, "tiny", cifar_files.source_of(FILES))


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


def test_official_files_load_in_their_order(folder):
    tiny = data.load("tiny", size=32, folder=folder)
    assert tiny.altered == ()
    assert tiny.classes == tuple(NAMES)
    assert (tiny.train.images.shape, tiny.test.images.shape) == ((7, 3, 32, 32), (2, 3, 32, 32))
    assert (tiny.train.images.dtype, tiny.train.labels.dtype) == (torch.uint8, torch.int64)
    assert tiny.train.labels.tolist() == LABELS[BATCH_1] + LABELS[BATCH_2]
    assert tiny.test.labels.tolist() == LABELS[TEST]
    expected = np.concatenate([pixels(BATCH_1), pixels(BATCH_2)])
    assert tiny.train.images.numpy().tobytes() == expected.tobytes()  # red plane, green plane, blue plane


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("key", [str, str.encode], ids=["text", "bytes"])
def test_files_that_python_3_wrote_load_as_altered(folder, protocol, key):
    official = load(folder)
    for name in LABELS:
        content = {key(each): value for each, value in entries(name).items()}
        write(folder, {name: pickle.dumps(content, protocol)})
    write(folder, {META: pickle.dumps({key("label_names"): [key(name) for name in NAMES]}, protocol)})
    loaded = load(folder)
    assert loaded.fingerprint == official.fingerprint
    assert loaded.altered == tuple(FILES)
    with pytest.raises(UserError, match=r"data_batch_1: altered: md5 .*Pass --allow-altered"):
        data.load("tiny", size=32, folder=folder)


@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_in_the_order_of_fortran_are_understood(folder, protocol):
    official = load(folder)
    write(folder, {BATCH_1: pickle.dumps({**entries(BATCH_1), "data": np.asfortranarray(pixels(BATCH_1))}, protocol)})
    assert load(folder).fingerprint == official.fingerprint


def test_cifar100_has_its_fine_labels(folder, monkeypatch):
    parse = data.SOURCES["cifar100"].parse
    source = replace(data.SOURCES["tiny"], parse=parse)
    monkeypatch.setitem(data.SOURCES, "tiny", source)
    for name, labels in LABELS.items():
        content = entries(name)
        del content["labels"]
        write(folder, {name: python2({**content, "fine_labels": labels, "coarse_labels": [0] * len(labels)})})
    names = {"fine_label_names": NAMES, "coarse_label_names": ["animal"]}
    write(folder, {META: python2(names)})
    assert load(folder).train.labels.tolist() == LABELS[BATCH_1] + LABELS[BATCH_2]


@pytest.mark.parametrize("kept", [0, 1, 40, 5000, -1])
@pytest.mark.parametrize("name", [BATCH_1, META])
def test_truncated_file_says_how_much_is_there(folder, name, kept):
    content = FILES[name][: min(kept, len(FILES[name]) - 2)]
    write(folder, {name: content})
    sentence = f"truncated: its pickle ends after {len(content)} bytes, the official file has {len(FILES[name])}"
    assert state_and_sentence(folder, name) == ("truncated", sentence)


def changed(**changes):
    return python2({**entries(BATCH_1), **changes})


DATA_WANTED = "not 4x3072 unsigned bytes"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (BATCH_1, b"<!DOCTYPE html>", "not the CIFAR format: no pickle, it starts with b'<!DOCTYPE ht'"),
        (BATCH_1, python2([1, 2]), "not the CIFAR format: it holds a list, not a dict"),
        (BATCH_1, b"\x80\x02\xff" + FILES[BATCH_1][3:], "corrupted: not a complete pickle: "),
        (BATCH_1, b"\x80\x02U" + b"\xff" * len(FILES[BATCH_1]), "corrupted: not a complete pickle: "),
        (BATCH_1, python2({"labels": [1]}), "corrupted: it has no 'data', but labels"),
        (BATCH_1, python2({}), "corrupted: it has no 'data', but nothing"),
        (BATCH_1, python2({"data": [], "fine_labels": []}), "corrupted: it has no 'labels', but data, fine_labels"),
        (BATCH_1, changed(data=[1, 2]), f"corrupted: its data are a list, {DATA_WANTED}"),
        (BATCH_1, changed(data=pixels(BATCH_2)), f"corrupted: its data are 3x3072 of type u1, {DATA_WANTED}"),
        (BATCH_1, changed(data=pixels(BATCH_1)[:, 1:]), f"corrupted: its data are 4x3071 of type u1, {DATA_WANTED}"),
        (
            BATCH_1,
            changed(data=pixels(BATCH_1).astype(np.float32)),
            f"corrupted: its data are 4x3072 of type f4, {DATA_WANTED}",
        ),
        (BATCH_1, changed(labels=[1, 2, 3]), "corrupted: 4 images, but 3 labels"),
        (BATCH_1, changed(labels=[1, 2, 3, 10]), "corrupted: label 10, but there are 10 classes"),
        (BATCH_1, changed(labels=[1, -2, 3, 4]), "corrupted: label -2, but there are 10 classes"),
        (BATCH_1, changed(labels=["1", 2, 3, 4]), "corrupted: its labels are not a list of whole numbers"),
        (BATCH_1, changed(labels="1234"), "corrupted: its labels are not a list of whole numbers"),
        (META, python2({"label_names": NAMES[:9]}), "corrupted: it names 9 classes, official are 10"),
        (
            META,
            python2({"label_names": [*NAMES[:3], "dog", "deer", "cat", *NAMES[6:]]}),
            "mislabelled: it calls class 3 'dog', official is 'cat'",
        ),
        (META, FILES[BATCH_1], "corrupted: it has no 'label_names', but batch_label, data, filenames, labels"),
    ],
)
def test_corrupted_file_says_what_is_wrong(folder, name, content, sentence):
    write(folder, {name: content})
    state, said = state_and_sentence(folder, name)
    assert state == "corrupted"
    assert said.startswith(sentence) if sentence.endswith(": ") else said == sentence


def test_array_with_fewer_bytes_than_its_shape_promises_is_refused(folder):
    raw = pixels(BATCH_1).tobytes()
    content = FILES[BATCH_1].replace(len(raw).to_bytes(4, "little") + raw, (4).to_bytes(4, "little") + raw[:4])
    write(folder, {BATCH_1: content})
    sentence = "corrupted: its data are not the expected 12288 bytes"
    assert state_and_sentence(folder, BATCH_1) == ("corrupted", sentence)


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function", [os.mkdir, partial(os.mkdir), eval, np.load], ids=["os", "partial", "eval", "numpy"]
)
def test_nothing_that_a_pickle_asks_for_is_run(folder, tmp_path, function, protocol):
    argument = f"__import__('os').mkdir({str(tmp_path / 'made')!r})" if function is eval else str(tmp_path / "made")
    content = pickle.dumps({"data": Calls(function, argument)}, protocol)
    write(folder, {BATCH_1: content})
    state, sentence = state_and_sentence(folder, BATCH_1)
    assert state == "corrupted"
    assert sentence.startswith("not the CIFAR format: " + ("it asks for " if protocol else "no pickle"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "asked",
    ["os.system", "builtins.eval", "numpy.load", "numpy.core.multiarray.scalar", "bench.data.unpickle._KNOWN"],
)
def test_the_error_names_what_a_pickle_asks_for(folder, asked):
    module, _, name = asked.rpartition(".")
    write(folder, {BATCH_1: f"\x80\x02c{module}\n{name}\n(U\x04truetR.".encode("latin1")})
    assert state_and_sentence(folder, BATCH_1) == ("corrupted", f"not the CIFAR format: it asks for {asked}")


def test_a_pickle_cannot_change_what_stands_for_numpy(folder):
    poison = b"\x80\x02cnumpy\nndarray\nN}U\x0c__setstate__NsU\x04datab\x86b."
    write(folder, {BATCH_1: poison})
    assert state_and_sentence(folder, BATCH_1)[0] == "corrupted"
    write(folder, {BATCH_1: FILES[BATCH_1]})
    assert load(folder).altered == ()


def test_missing_files_are_named_without_an_archive_form(folder):
    (folder / META).unlink()
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value) == (
        f"tiny: missing from {folder}: {META}. "
        f"Run `dfkd data fetch tiny --data {folder}`, or place the official files there by hand"
    )
    assert data.status("tiny", folder)[-1].message == f"{META} is missing from {folder}"


# ---- the real sets -------------------------------------------------------------------------------------------------

# ``altered=True``: also files that are not the official bytes, such as those rebuilt from other sources. What is
# checked below holds for them as well, as long as the images and labels are in the official order.
FAMILY = [pytest.param(name, marks=pytest.mark.data(name, altered=True)) for name in ("cifar10", "cifar100")]
FIRST_LABELS = {"cifar10": [6, 9, 9, 4, 1, 1, 2, 7, 8, 3], "cifar100": [19, 29, 0, 11, 1, 86, 90, 28, 23, 31]}
FIRST_TEST_LABELS = {"cifar10": [3, 8, 8, 0, 6, 6, 1, 6, 3, 1], "cifar100": [49, 33, 72, 51, 71, 92, 15, 14, 23, 0]}
MEAN = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5070751592371323, 0.48654887331495095, 0.4409178433670343)}
STD = {"cifar10": (0.2470, 0.2435, 0.2616), "cifar100": (0.2673, 0.2564, 0.2762)}


@pytest.mark.parametrize("name", FAMILY)
def test_the_real_set_has_the_published_counts_labels_and_statistics(name):
    dataset = data.load(name, size=32, allow_altered=True)
    classes = {"cifar10": 10, "cifar100": 100}[name]
    assert dataset.train.images.shape == (50_000, 3, 32, 32)
    assert dataset.test.images.shape == (10_000, 3, 32, 32)
    assert len(dataset.classes) == classes
    assert dataset.train.labels.bincount().tolist() == [50_000 // classes] * classes
    assert dataset.test.labels.bincount().tolist() == [10_000 // classes] * classes
    assert dataset.train.labels[:10].tolist() == FIRST_LABELS[name]
    assert dataset.test.labels[:10].tolist() == FIRST_TEST_LABELS[name]
    for channel in range(3):
        histogram = dataset.train.images[:, channel].flatten().bincount(minlength=256).double()
        grey = torch.arange(256, dtype=torch.float64) / 255
        mean = (histogram @ grey / histogram.sum()).item()
        variance = (histogram @ grey.square() / histogram.sum()).item() - mean**2
        exact = name == "cifar100"  # the published mean has all digits
        assert mean == pytest.approx(MEAN[name][channel], abs=1e-12 if exact else 1e-4)
        assert variance**0.5 == pytest.approx(STD[name][channel], abs=1e-4)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_facts_agree_with_torchvision(name):
    torchvision()
    from torchvision.datasets import CIFAR10, CIFAR100

    known = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    source = data.SOURCES[name]
    listed = [*known.train_list, *known.test_list, [known.meta["filename"], known.meta["md5"]]]
    assert [(file.name, file.md5) for file in source.files] == [
        (f"{known.base_folder}/{file}", md5) for file, md5 in listed
    ]
    archive = source.archive
    assert (archive.name, archive.md5, archive.urls) == (known.filename, known.tgz_md5, (known.url,))
