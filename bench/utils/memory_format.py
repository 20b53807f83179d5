"""The order in which images, maps and weights lie in memory: the same sums, added up otherwise. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

    Network = TypeVar("Network", bound=nn.Module)

CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels_last"


def lay_out(network: Network, memory_format: str) -> Network:
    """The same network with its 4-D parameters and buffers in a memory format; they stay the same objects.

    ``contiguous`` leaves everything as it is.
    """
    if memory_format == CHANNELS_LAST:
        for value in (*network.parameters(), *network.buffers()):
            value.data = laid_out(value.data, memory_format)
    return network


def laid_out(value: Tensor, memory_format: str) -> Tensor:
    """A tensor (N, C, H, W) in a memory format; others, and all with ``contiguous``, are given back as they are.

    A tensor of one channel, or of maps of one pixel, is in both formats at once, and torch chooses the kernel by its
    strides. So these are always set.
    """
    if memory_format != CHANNELS_LAST or value.ndim != 4 or is_channels_last(value):
        return value
    return value.new_empty_strided(value.shape, _strides(value)).copy_(value)


def is_channels_last(value: Tensor) -> bool:
    """Whether a tensor has exactly the strides of the format."""
    return value.ndim == 4 and value.stride() == _strides(value)


def _strides(value: Tensor) -> tuple[int, int, int, int]:
    _, channels, height, width = value.shape
    return height * width * channels, 1, width * channels, channels
