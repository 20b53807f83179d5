"""Reading CIFAR's pickles without running anything that a pickle asks for.

A pickle may name any function of any installed package and have it called. Here it gets stand-ins for the few names
with which numpy's arrays are pickled, by Python 2 or 3; every other name is an error. Even numpy is not called.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from bench.data.source import MalformedError


class Dtype:
    """Stands for ``numpy.dtype``: its code, such as ``u1``."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        self.code = text(code)

    def __setstate__(self, state: object) -> None:
        """The byte order and the like, which unsigned bytes do not have."""


class Array:
    """Stands for a pickled ``numpy.ndarray``: its shape, type code, bytes, and whether they are in Fortran's order."""

    shape: tuple[int, ...] = ()
    code: str = ""
    fortran: bool = False
    data: bytes | bytearray = b""

    def __setstate__(self, state: tuple[int, tuple[int, ...], Dtype, bool, bytes | bytearray]) -> None:
        _, self.shape, dtype, self.fortran, self.data = state
        self.code = dtype.code


def plain(data: bytes, official_size: int) -> object:
    """The dicts, lists, strings (as bytes where Python 2 wrote them), numbers and :class:`Array` in a pickle.

    Raises MalformedError for what is no pickle, ends early or asks for anything else.
    """
    if data and data[:1] != pickle.PROTO:
        raise MalformedError("corrupted", f"not the CIFAR format: no pickle, it starts with {data[:12]!r}")
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except MalformedError:
        raise
    except Exception as error:  # pickle's documentation: any exception may come of a damaged one
        ended = isinstance(error, EOFError) or "truncated" in str(error)
        if ended and len(data) < official_size:
            sentence = f"truncated: its pickle ends after {len(data)} bytes, the official file has {official_size}"
            raise MalformedError("truncated", sentence) from None
        raise MalformedError("corrupted", f"corrupted: not a complete pickle: {error}") from None


def text(value: object) -> str:
    """A pickled string, whether Python 2 wrote it (as bytes) or Python 3."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _reconstruct(*_: object) -> Array:
    return Array()


def _from_buffer(data: bytes | bytearray, dtype: Dtype, shape: tuple[int, ...], order: object) -> Array:
    array = Array()
    array.__setstate__((1, shape, dtype, text(order) == "F", data))
    return array


def _encode(string: str, encoding: bytes | str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if text(encoding) != "latin1":
        raise ValueError(f"text in {text(encoding)}")
    return string.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise MalformedError("corrupted", f"not the CIFAR format: it asks for {module}.{name}")
        return _KNOWN[module, name]
