"""What goes between the judge and a method's process: messages of a fixed binary form, tensors in shared memory.

The judge believes nothing that it reads: every number of a header is checked before it is used, sizes have limits, and
a tensor is copied out of the shared memory before anything is computed from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import select
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from bench.utils.memory_format import is_channels_last

HALF = 2**32  # bytes of shared memory in each direction; only what is touched takes up memory
MAGIC = 0x44464B44
PAYLOAD = 2**20  # bytes of a message beside its tensors
TENSORS = 8192
AXES = 8
LONGEST = 2**40  # of one axis
ALIGNED = 64
COUNTS = 7

_HEAD = struct.Struct("<IBBHIq7qd")
_TENSOR = struct.Struct("<BBBB8sq8q")
_TYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.uint8, torch.bool),
)
_CODES = {kind: code for code, kind in enumerate(_TYPES)}
_SIZES = tuple(torch.empty(0, dtype=kind).element_size() for kind in _TYPES)
_SEALS = 0x1 | 0x2 | 0x4  # no more seals, no shrinking, no growing: a smaller file would be a SIGBUS for the judge
_ADD_SEALS = 1033


class Kind(IntEnum):
    """What a message is: questions of the method's process, and the judge's answers."""

    READY = 1
    START = 2
    ASK = 3
    BACKWARD = 4
    FREE = 5
    FACTS = 6
    WEIGHTS = 7
    REAL = 8
    PHASE = 9
    STEP = 10
    STUDENT = 11
    STATE = 12
    DONE = 13
    FAILED = 14
    CONFINED = 15
    GO = 16
    USES = 17
    GOOD = 100
    ERROR = 101
    SPENT = 102


class BrokenMessage(Exception):
    """Bytes that no honest process sends."""


class Gone(Exception):
    """The other side has ended."""


@dataclass
class Message:
    """One message. ``counts`` are whole numbers and ``seconds`` a time, as the two sides agree on for each kind."""

    kind: Kind
    flags: int = 0
    token: int = 0
    counts: Sequence[int] = (0,) * COUNTS
    seconds: float = 0.0
    payload: bytes = b""
    tensors: Sequence[Tensor] = ()
    marks: Sequence[int] = field(default_factory=tuple)  # a small number with each tensor


def shared_memory() -> int:
    """A file descriptor of the memory that both sides map; its size can never change."""
    memory = os.memfd_create("dfkd-method", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, 2 * HALF)
    fcntl.fcntl(memory, _ADD_SEALS, _SEALS)
    return memory


class Channel:
    """One side's end. The judge writes into the second half of the memory, the method's process into the first."""

    def __init__(self, memory: int, reads: int, writes: int, *, judge: bool) -> None:
        self._map = mmap.mmap(memory, 2 * HALF)
        self._own, self._other = (HALF, 0) if judge else (0, HALF)
        self._reads, self._writes = reads, writes
        self._pending = b""
        self._poll = select.poll()
        self._poll.register(reads, select.POLLIN)
        self._closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._reads)
            os.close(self._writes)
            with contextlib.suppress(BufferError):  # a tensor still looks into it; its memory goes with that tensor
                self._map.close()

    # ---- sending ---------------------------------------------------------------------------------------------------

    def send(self, message: Message, before: bytes = b"") -> None:
        """Write a message, after bytes that :meth:`encoded` made of others without tensors.

        Raises:
            Gone: the other side has ended.
            MemoryError: the tensors are larger than the shared memory.
        """
        data = before + self.encoded(message)
        try:
            while data:
                data = data[os.write(self._writes, data) :]
        except (BrokenPipeError, OSError):
            raise Gone from None

    def encoded(self, message: Message) -> bytes:
        """Its bytes; its tensors are put into the shared memory."""
        parts = [b""]
        place = self._own
        marks = message.marks or (0,) * len(message.tensors)
        for tensor, mark in zip(message.tensors, marks, strict=True):
            described, place = self._put(tensor, mark, place)
            parts.append(described)
        parts[0] = _HEAD.pack(
            MAGIC,
            message.kind,
            message.flags,
            len(message.tensors),
            len(message.payload),
            message.token,
            *message.counts,
            message.seconds,
        )
        return b"".join((*parts, message.payload))

    def _put(self, tensor: Tensor, mark: int, place: int) -> tuple[bytes, int]:
        """Copy a tensor to a place of the memory: only what is distinct in it, in the order in which it lies.

        The other side makes it again with the same strides: the same values in another order of memory may go through
        another kernel, whose sums differ in their last bits.
        """
        tensor = tensor.detach()
        shape, strides = tensor.shape, tensor.stride()
        order = tuple(range(len(shape)))
        expanded = 0
        if is_channels_last(tensor):  # with one channel it is contiguous as well, and has other strides
            order = (0, 2, 3, 1)
            tensor = tensor.permute(order)
        elif not tensor.is_contiguous():
            for axis, (length, stride) in enumerate(zip(shape, strides, strict=True)):
                if stride == 0 and length > 1:
                    expanded |= 1 << axis
                    tensor = tensor.narrow(axis, 0, 1)
            now = tensor.stride()
            order = tuple(sorted(order, key=lambda axis: -int(now[axis])))
            tensor = tensor.permute(order)
            if not tensor.is_contiguous():
                tensor = tensor.contiguous()
        size = tensor.numel() * tensor.element_size()
        if place + size > self._own + HALF:
            raise MemoryError(f"one message would carry more than {HALF >> 30} GiB of tensors")
        if size:
            self._view(place, tensor.dtype, tensor.numel()).view(tensor.shape).copy_(tensor)
        axes = (*shape, *(0,) * (AXES - len(shape)))
        described = _TENSOR.pack(
            _CODES[tensor.dtype], len(shape), expanded, mark, bytes(order).ljust(AXES, b"\0"), place - self._own, *axes
        )
        return described, place + (size + ALIGNED - 1) // ALIGNED * ALIGNED

    def _view(self, place: int, kind: torch.dtype, count: int) -> Tensor:
        return torch.frombuffer(self._map, dtype=kind, count=count, offset=place)

    # ---- receiving -------------------------------------------------------------------------------------------------

    def receive(self, idle: Callable[[], None] | None = None) -> Message:
        """The next message, its tensors copied; ``idle`` is called now and then while there is none.

        Raises:
            Gone: the other side has ended.
            BrokenMessage: it says what cannot be.
        """
        head = self._bytes(_HEAD.size, idle)
        magic, kind, flags, tensors, size, token, *counts, seconds = _HEAD.unpack(head)
        if magic != MAGIC or kind not in Kind._value2member_map_:
            raise BrokenMessage("not a message")
        if tensors > TENSORS or size > PAYLOAD:
            raise BrokenMessage("a message is too large")
        described = self._bytes(tensors * _TENSOR.size, idle)
        payload = self._bytes(size, idle)
        found = [self._take(*_TENSOR.unpack_from(described, index * _TENSOR.size)) for index in range(tensors)]
        return Message(
            Kind(kind),
            flags,
            token,
            counts,
            seconds,
            payload,
            [tensor for tensor, _ in found],
            [mark for _, mark in found],
        )

    def _bytes(self, size: int, idle: Callable[[], None] | None) -> bytes:
        while len(self._pending) < size:
            if idle is not None:
                while not self._poll.poll(100):
                    idle()
            try:
                more = os.read(self._reads, 1 << 16)
            except OSError:
                more = b""
            if not more:
                raise Gone
            self._pending += more
        taken, self._pending = self._pending[:size], self._pending[size:]
        return taken

    def _take(
        self, code: int, axes: int, expanded: int, mark: int, order: bytes, place: int, *lengths: int
    ) -> tuple[Tensor, int]:
        if code >= len(_TYPES) or axes > AXES or any(not 0 <= length <= LONGEST for length in lengths):
            raise BrokenMessage("a tensor of no shape")
        if sorted(order[:axes]) != list(range(axes)):
            raise BrokenMessage("a tensor of no order")
        shape = lengths[:axes]
        kept = [1 if expanded >> axis & 1 else shape[axis] for axis in range(axes)]
        count = math.prod(kept)
        if place < 0 or place % ALIGNED or place + count * _SIZES[code] > HALF or math.prod(shape) > 2**44:
            raise BrokenMessage("a tensor outside the shared memory")
        kind = _TYPES[code]
        if not count:
            return torch.empty(shape, dtype=kind), mark
        # A tensor that owns its memory, and no view: autograd adds gradients up in place only where nobody else sees
        # them, and elsewhere the sum may lie in another order, and go through another kernel.
        permuted = tuple(order[:axes])
        strides = [0] * axes
        stride = 1
        for axis in reversed(permuted):
            strides[axis] = stride
            stride *= kept[axis]
        tensor = torch.empty_strided(kept, strides, dtype=kind)
        seen = self._view(self._other + place, kind, count)
        tensor.permute(permuted).copy_(seen.view([kept[axis] for axis in permuted]))
        return (tensor.expand(shape) if expanded else tensor), mark
