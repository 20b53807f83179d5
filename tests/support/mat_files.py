"""MATLAB 5 files as MATLAB itself writes them: compressed, with whole numbers of any class stored in few bytes.

The layout is that of MathWorks' "MAT-File Format": a header of 128 bytes, then elements of a type, a length and data
padded to 8 bytes; a compressed element is neither padded nor aligned.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

INT8, UINT8, UINT16, INT32, UINT32, MATRIX, COMPRESSED = 1, 2, 4, 5, 6, 14, 15
DOUBLE_CLASS, UINT8_CLASS = 6, 9
STORED = {np.dtype(np.uint8): UINT8, np.dtype(np.uint16): UINT16}


def mat_file(**variables: tuple[int, np.ndarray]) -> bytes:
    """A file of variables; each is the class that MATLAB gave it and its array, in the type in which it is stored."""
    text = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Mon Dec  5 21:09:26 2011"
    header = text.ljust(116) + bytes(8) + struct.pack("<H2s", 0x0100, b"IM")
    packed = (zlib.compress(_matrix(name, *of)) for name, of in variables.items())
    return header + b"".join(struct.pack("<II", COMPRESSED, len(each)) + each for each in packed)


def _matrix(name: str, kind: int, array: np.ndarray) -> bytes:
    shape = struct.pack(f"<{array.ndim}i", *array.shape)
    parts = (
        _element(UINT32, struct.pack("<II", kind, 0)),
        _element(INT32, shape),
        _element(INT8, name.encode()),
        _element(STORED[array.dtype], array.tobytes(order="F")),
    )
    return _element(MATRIX, b"".join(parts))


def _element(kind: int, data: bytes) -> bytes:
    if 0 < len(data) <= 4:  # the small form: type and length share one word
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)
