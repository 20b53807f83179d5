"""scikit-learn's digits: 1,797 real handwritten digits of 8x8 pixels. Nothing to download: the package brings them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.data.folders import sklearn_data
from bench.data.source import Pair, Source
from bench.errors import MissingData

SIZE = 8
BRIGHTEST = 16  # scikit-learn's pixels are 0..16
TEST_EVERY = 5


def read(source: Source, contents: Mapping[str, bytes]) -> tuple[Pair, Pair]:  # noqa: ARG001 - the package has the files
    """The train and test pairs: images float64 (N, 1, 8, 8) in 0..255, labels int64 (N,), each split in file order.

    The split is fixed and stratified: of each class, every fifth image in file order is a test image (the 5th, the
    10th, ...), which makes 355 test and 1,442 train images. A rule of our own, so that no release of scikit-learn can
    change it.
    """
    import numpy as np
    import torch

    file = bundled()
    if file is None:
        raise MissingData("digits: scikit-learn is not installed. Install scikit-learn, which includes it")
    # What sklearn.datasets.load_digits does; importing that takes two seconds of every process that runs a trial.
    rows = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8)).double()  # as floats: seven times slower
    images = rows[:, :-1].reshape(-1, 1, SIZE, SIZE) * (255 / BRIGHTEST)
    labels = rows[:, -1].long()
    nth_of_class = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels[:, None]).squeeze(1)
    test = nth_of_class % TEST_EVERY == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


def bundled() -> Path | None:
    """Where scikit-learn keeps the digits, or None where it is not installed."""
    folder = sklearn_data()
    return folder / "digits.csv.gz" if folder else None


SOURCES = (
    Source(
        name="digits",
        title="scikit-learn's handwritten digits",
        classes=tuple("0123456789"),
        files=(),
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        citation="E. Alpaydin, C. Kaynak: Optical recognition of handwritten digits, UCI Machine Learning Repository, "
        "1998 (its test part, as distributed with scikit-learn)",
        how_to_place="Install scikit-learn, which includes it",
        read=read,
        bundled=bundled,
        test_images=355,
    ),
)
