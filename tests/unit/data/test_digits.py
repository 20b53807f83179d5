"""The digits that scikit-learn brings."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from bench import data
from bench.errors import MissingData


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", size=32)


def test_all_digits_are_there_in_a_fixed_split(digits):
    assert digits.train.images.shape == (1442, 1, 32, 32)
    assert digits.test.images.shape == (355, 1, 32, 32)
    assert len(digits.train.labels) + len(digits.test.labels) == 1797
    assert digits.classes == tuple("0123456789")


def test_the_split_is_stratified(digits):
    train, test = digits.train.labels.bincount(), digits.test.labels.bincount()
    assert torch.equal(test, (train + test) // 5)


def test_no_image_is_in_both_splits_and_none_is_lost():
    native = data.load("digits", size=8)
    official = sorted((image * 255 / 16 + 0.5).astype("uint8").tobytes() for image in load_digits().images)
    ours = sorted(image.numpy().tobytes() for split in (native.train, native.test) for image in split.images)
    assert ours == official


def test_scikit_learn_is_not_imported(tmp_path):
    program = (
        "import sys; from bench.data import load; load('digits', size=8); "
        "sys.exit(any(name.partition('.')[0] in ('sklearn', 'scipy', 'pandas') for name in sys.modules))"
    )
    root = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})


def test_values_are_bytes_from_0_to_255(digits):
    for split in (digits.train, digits.test):
        assert split.images.dtype == torch.uint8
        assert (split.images.min(), split.images.max()) == (0, 255)
        assert split.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("size", "fingerprint"),
    [
        (8, "86bab1a90fa28859c5071ba7e9d92fe5e31903171e6f780250fd8a9168c7e225"),
        (32, "0659140083970b0256ff67aad34ebd0657acf42d4a50e1e14a94b8914a526287"),
    ],
)
def test_fingerprint_never_changes(size, fingerprint):
    assert data.load("digits", size=size).fingerprint == fingerprint


def test_status_is_ok_with_scikit_learn_and_says_what_to_install_without(monkeypatch):
    (status,) = data.status("digits")
    assert status.state == "ok"
    assert status.path.is_file()
    monkeypatch.setitem(data.SOURCES, "digits", replace(data.SOURCES["digits"], bundled=lambda: None))
    (status,) = data.status("digits")
    assert (status.state, status.path) == ("missing", None)
    for use in (lambda: data.load("digits", size=8), lambda: data.fetch("digits")):
        with pytest.raises(
            MissingData, match=r"^digits: .* is not installed\. Install scikit-learn, which includes it$"
        ):
            use()
