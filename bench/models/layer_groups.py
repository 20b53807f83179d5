"""A network's layers in groups of one shape, as feature distillation knows them: tapped, and replaced at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bench.errors import MethodError, Unsupported
from bench.models import layers
from bench.models.cost import bare_copy
from bench.models.taps import HOW

Shape = tuple[int, int, int]  # channels, height, width


class LayerGroups:
    """The layers that a network names, a group for each run of maps of one shape.

    ``shapes`` has for each group the shapes of its maps, all the same.

    Raises:
        Unsupported: the network names no layers, or what it names makes no maps, one each in a forward pass.
    """

    def __init__(self, network: nn.Module, image_shape: Shape) -> None:
        self._layers = layers(network)
        name = type(network).__name__
        if not self._layers:
            raise Unsupported(f"{name} names no layers, and the method needs their maps; {HOW}")
        found = _shapes(network, image_shape)
        if len(found) != len(self._layers) or any(len(shape) != 3 for shape in found):
            raise Unsupported(f"not all layers that {name} names make a map (N, C, h, w) and are passed just once")
        self.shapes: tuple[tuple[Shape, ...], ...] = tuple(tuple(run) for _, run in groupby(found))  # type: ignore[arg-type]

    def tap(self, into: list[Tensor]) -> list[RemovableHandle]:
        """Hooks that put the maps of all layers into a list, until they are removed."""
        return [_tap(layer, into) for layer in self._layers]

    def replace_end(self, group: int, value: Tensor) -> RemovableHandle:
        """A hook that puts ``value`` (N, C, h, w) in the place of a group's last map: everything after it works on it.

        Raises:
            MethodError: there is no such group, or its maps are of another shape.
        """
        if not 0 <= group < len(self.shapes):
            raise MethodError(f"there is no layer group {group}: the network has {len(self.shapes)}, from 0")
        if tuple(value.shape[1:]) != self.shapes[group][-1]:
            raise MethodError(f"maps of group {group} are {self.shapes[group][-1]}, not {tuple(value.shape[1:])}")
        return self._end(group).register_forward_hook(lambda *_: value.clone())  # what follows may work in place

    def grouped(self, maps: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ...]:
        """What :meth:`tap` found, a group each."""
        order = iter(maps)
        return tuple(tuple(next(order) for _ in group) for group in self.shapes)

    def _end(self, group: int) -> nn.Module:
        return self._layers[sum(map(len, self.shapes[: group + 1])) - 1]


def _tap(layer: nn.Module, into: list[Tensor]) -> RemovableHandle:
    return layer.register_forward_hook(lambda *call: into.append(call[2]))


def _shapes(network: nn.Module, image_shape: Shape) -> list[tuple[int, ...]]:
    """Of each layer's map, without the batch; on a copy without storage, so that nothing is touched or counted."""
    ghost = bare_copy(network).to("meta").eval()
    maps: list[Tensor] = []
    for layer in layers(ghost):
        _tap(layer, maps)
    with torch.no_grad():
        ghost(torch.empty(1, *image_shape, device="meta"))
    return [tuple(each.shape[1:]) for each in maps]
