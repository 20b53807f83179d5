"""SVHN: 73,257 + 26,032 colour images of 32x32 pixels of house numbers, in two MATLAB files (cropped digits).

The layout is torchvision's own: both files lie in the data folder itself. Checksums and addresses are those that
torchvision knows; sizes are those of the official files. The additional training images are not used.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.data.source import MalformedError, Pair, Source, SourceFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Parsed = tuple[NDArray[np.uint8], NDArray[np.int64]]

SIDE = 32  # pixels
MAGIC = b"MATLAB 5.0 MAT-file"
HEADER = 128  # bytes, then come the variables, each with its type and its length in two 32-bit words
WORDS = 8


def parse(source: Source, file: SourceFile, data: bytes) -> Parsed:
    """The images as MATLAB has them, uint8 (32, 32, 3, N), and the labels 0..9, int64 (N,). Raises MalformedError."""
    import numpy as np

    _check_length(file, data)
    found = _variables(data)
    images, labels = _variable(found, "X"), _variable(found, "y")
    wanted = (SIDE, SIDE, 3, file.images)
    if images.shape != wanted or images.dtype != np.uint8:
        raise MalformedError("corrupted", f"corrupted: X is {_kind(images)}, not {_shape(wanted)} of type uint8")
    if labels.shape != (file.images, 1) or labels.dtype.kind not in "iuf":
        raise MalformedError("corrupted", f"corrupted: y is {_kind(labels)}, not {file.images}x1 whole numbers")
    classes = len(source.classes)
    for label in (labels.min(), labels.max()):
        if not 1 <= label <= classes:
            raise MalformedError("corrupted", f"corrupted: label {label}, but they go from 1 to {classes}")
    return images, labels[:, 0].astype(np.int64) % classes  # the label of the digit 0 is 10


def read(source: Source, contents: Mapping[str, Parsed]) -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, 32, 32), labels int64 (N,), in the files' order."""
    train, test = (contents[file.name] for file in source.files)
    return _pair(*train), _pair(*test)


def _pair(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Pair:
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))), torch.from_numpy(labels)


def _check_length(file: SourceFile, data: bytes) -> None:
    """Walk over the variables' lengths: scipy does not tell a file that ends early from one that is damaged."""
    start = data[: len(MAGIC)]
    if not MAGIC.startswith(start):
        raise MalformedError("corrupted", f"not a MATLAB 5 file: it starts with {start[:12]!r}")
    big = data[HEADER - 2 : HEADER] == b"MI"
    position = HEADER
    while position < len(data):
        position += WORDS + int.from_bytes(data[position + 4 : position + WORDS], "big" if big else "little")
    if position != len(data) or len(data) == HEADER:
        if len(data) < file.size:
            raise MalformedError("truncated", f"truncated: {len(data)} of {file.size} bytes")
        raise MalformedError("corrupted", "corrupted: a variable is longer than the file")


def _variables(data: bytes) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        return loadmat(io.BytesIO(data), variable_names=("X", "y"))  # type: ignore[arg-type]  # stubs know paths only
    except Exception as error:  # scipy answers a damaged file with whatever its parts raise
        raise MalformedError("corrupted", f"corrupted: scipy cannot read it: {error}") from None


def _variable(found: Mapping[str, Any], name: str) -> NDArray[Any]:
    import numpy as np

    if not isinstance(value := found.get(name), np.ndarray):
        there = ", ".join(key for key in found if not key.startswith("__")) or "nothing of it"
        raise MalformedError("corrupted", f"corrupted: expected the variables X and y, found {there}")
    return value


def _kind(array: NDArray[Any]) -> str:
    return f"{_shape(array.shape)} of type {array.dtype}"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "x".join(map(str, shape))


def _file(name: str, size: int, md5: str, images: int) -> SourceFile:
    return SourceFile(name, size, md5, urls=(f"http://ufldl.stanford.edu/housenumbers/{name}",), images=images)


SOURCES = (
    Source(
        name="svhn",
        title="SVHN house numbers",
        classes=tuple("0123456789"),
        files=(
            _file("train_32x32.mat", 182040794, "e26dedcc434d2e4c54c9b2d4a06d8373", 73_257),
            _file("test_32x32.mat", 64275384, "eb5a983be6a315427106f1b164d9cef3", 26_032),
        ),
        licence="for non-commercial use only",
        citation="Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng: Reading digits in natural images with "
        "unsupervised feature learning, NIPS workshop, 2011",
        how_to_place="download train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers/, "
        "and name the folder that contains both with --data or DFKD_DATA",
        parse=parse,
        read=read,
    ),
)
