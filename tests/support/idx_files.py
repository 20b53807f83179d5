"""A data set of a few random images in true IDX form, for tests that need no real data."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.data import mnist
from bench.data.source import Source, SourceFile

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (
    f"Tiny/raw/{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


def images_file(count: int, side: int = 28, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side), dtype=np.uint8)
    return struct.pack(">4I", 0x0803, count, side, side) + pixels.tobytes()


def labels_file(*labels: int) -> bytes:
    return struct.pack(">2I", 0x0801, len(labels)) + bytes(labels)


def tiny_files() -> dict[str, bytes]:
    """Six train and four test images of 28x28 pixels with their labels, by file name."""
    return {
        TRAIN_IMAGES: images_file(6, seed=1),
        TRAIN_LABELS: labels_file(3, 1, 4, 1, 5, 9),
        TEST_IMAGES: images_file(4, seed=2),
        TEST_LABELS: labels_file(2, 7, 1, 8),
    }


def source_of(files: Mapping[str, bytes], urls: Callable[[str], tuple[str, ...]] = lambda _: ()) -> Source:
    """A source for which exactly ``files`` are official; ``urls(name)`` are where a file's archive is published."""
    facts = tuple(
        SourceFile(name, len(data), md5(data), len(packed := pack(data)), md5(packed), urls(name))
        for name, data in files.items()
    )
    return replace(mnist.SOURCES[0], name="tiny", title="Tiny", files=facts, how_to_place="put them there yourself")


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def packed_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": pack(data) for name, data in files.items()}


def pack(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
