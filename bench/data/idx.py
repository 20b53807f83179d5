"""The IDX format of the MNIST family: a magic number, one big-endian size per dimension, then unsigned bytes.

Own code rather than torchvision's reader: that one takes no ``.gz``, does not compare the size with the header, and
answers a wrong file with an AssertionError that names nothing.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING

from bench.data.source import MalformedError

if TYPE_CHECKING:
    from torch import Tensor

UNSIGNED_BYTE = 0x08


def shape(data: bytes, dimensions: int, size: int) -> tuple[int, ...]:
    """The shape in the header of an IDX file of unsigned bytes.

    ``dimensions`` is how many the file must have, ``size`` how many bytes. Raises MalformedError if one does not fit.
    """
    magic = UNSIGNED_BYTE << 8 | dimensions
    start = 4 + 4 * dimensions
    if len(data) >= 4 and (found := int.from_bytes(data[:4])) != magic:
        raise MalformedError("corrupted", f"not an IDX file of this kind: magic number {found} instead of {magic}")
    if len(data) < max(size, start):
        raise MalformedError("truncated", f"truncated: {len(data)} of {size} bytes")
    if len(data) > size:
        raise MalformedError("corrupted", f"corrupted: {len(data)} bytes where the official file has {size}")
    found_shape = struct.unpack(f">{dimensions}I", data[4:start])
    if prod(found_shape) != size - start or size == start:
        promised = "x".join(map(str, found_shape))
        raise MalformedError(
            "corrupted", f"corrupted: its header promises {promised} values, and {size - start} follow"
        )
    return found_shape


def tensor(data: bytes, dimensions: int) -> Tensor:
    """The values of a file that :func:`shape` accepted: uint8, of the header's shape. A copy."""
    import torch

    start = 4 + 4 * dimensions
    found_shape = struct.unpack(f">{dimensions}I", data[4:start])
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).view(found_shape)
