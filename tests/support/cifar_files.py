"""CIFAR sets of a few random images in the official form, for tests that need no real data."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
from idx_files import md5

from bench.data import cifar
from bench.data.source import Archive, Source, SourceFile

FOLDER = "cifar-10-batches-py"
BATCH_1, BATCH_2, TEST, META = (
    f"{FOLDER}/{name}" for name in ("data_batch_1", "data_batch_2", "test_batch", "batches.meta")
)
LABELS = {BATCH_1: [6, 9, 9, 4], BATCH_2: [0, 1, 2], TEST: [3, 8]}
NAMES = list(cifar.SOURCES[0].classes)
ARCHIVE = "cifar-10-python.tar.gz"


def pixels(name: str) -> np.ndarray:
    """The images of a batch, uint8 (N, 3072)."""
    random = np.random.default_rng(list(LABELS).index(name))
    return random.integers(0, 256, (len(LABELS[name]), cifar.ROW), dtype=np.uint8)


def entries(name: str) -> dict[str, object]:
    """What a batch holds, in the order of the official files."""
    files = [f"{index}.png" for index in range(len(LABELS[name]))]
    return {"batch_label": "a batch", "labels": LABELS[name], "data": pixels(name), "filenames": files}


def tiny_files() -> dict[str, bytes]:
    """Two training batches, a test batch and the classes' names, by file name."""
    return {name: python2(entries(name)) for name in LABELS} | {META: python2({"label_names": NAMES})}


def source_of(files: Mapping[str, bytes], urls: Callable[[str], tuple[str, ...]] = lambda _: ()) -> Source:
    """A source for which exactly ``files`` are official; ``urls(name)`` are where their archive is published."""
    facts = tuple(
        SourceFile(name, len(data), md5(data), images=len(LABELS[name]) if name in LABELS else None)
        for name, data in files.items()
    )
    packed = tar(files.items())
    archive = Archive(ARCHIVE, len(packed), md5(packed), urls(ARCHIVE))
    return replace(cifar.SOURCES[0], name="tiny", files=facts, archive=archive, how_to_place="put them there yourself")


def tar(members: Iterable[tuple[str, bytes]], *links: tarfile.TarInfo) -> bytes:
    """A .tar.gz of ``links`` and then of ``members``; the same bytes at any time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for link in links:
            archive.addfile(link)
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=0)


def python2(value: object) -> bytes:
    """A pickle as Python 2's cPickle wrote it at protocol 2: strings are bytes."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: object) -> bytes:
    match value:
        case dict():
            return b"}(" + b"".join(_python2(key) + _python2(each) for key, each in value.items()) + b"u"
        case list():
            return b"](" + b"".join(map(_python2, value)) + b"e"
        case int():
            return b"J" + struct.pack("<i", value)
        case str():
            return b"U" + bytes([len(value)]) + value.encode("latin1")
        case np.ndarray():
            raw = np.ascontiguousarray(value).tobytes()
            rows, columns = (b"M" + struct.pack("<H", side) for side in value.shape)
            code = _python2(value.dtype.str[1:])
            return b"".join(
                [
                    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(" + rows + columns,
                    b"tcnumpy\ndtype\n("
                    + code
                    + b"K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
                    b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb",
                ]
            )
    raise TypeError(type(value))
