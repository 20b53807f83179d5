"""Stores of synthetic images, and of CMI's features of them. They are kept: ``s.keep("pool", ImagePool(...))``.

A checkpoint gets their tensors without a copy: what was given away, or taken over, is copied before it is changed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from methods.common.pixels import PixelSpace


class ImagePool:
    """At most ``capacity`` images (N, C, H, W), as they are given, on the device where they were made.

    Args:
        capacity: in images.
        space: the task's normalisation, for images that are stored in 8 bits; they must be normalised then.
        ring: when full, new images take the places of the oldest; else they are left out.
        eight_bit: store pixels as uint8, as the papers' PNG files do: cut down to 1/255 and clipped to [0, 1].
        limit_mib: a pool that would be larger when full, in MiB of what is stored, lies on the host in 8 bits.
        clipped: else such a pool is in half precision there, where pixels may leave [0, 1]; no pixel of a real image is
            more than 1/2000 off.

    Raises:
        ValueError: 8 bits or a limit without ``space``.
    """

    state_is_snapshot = True

    def __init__(
        self,
        capacity: int,
        space: PixelSpace | None = None,
        *,
        ring: bool = False,
        eight_bit: bool = False,
        limit_mib: float = math.inf,
        clipped: bool = True,
    ) -> None:
        if space is None and (eight_bit or (clipped and limit_mib < math.inf)):
            raise ValueError(
                "images in 8 bits need the task's normalisation: ImagePool(capacity, PixelSpace.of(s), ...)"
            )
        self.capacity = capacity
        self.space = space
        self.eight_bit = eight_bit
        self.limit_mib = limit_mib
        self.clipped = clipped
        self._rows = _Rows(capacity, ring)
        self._device: torch.device | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        return len(self) >= self.capacity

    def add(self, images: Tensor) -> None:
        """Append as many of the images as there is room for; in a ring, all of them."""
        self._rows.add(self._packed(images))

    def replace(self, places: Tensor, images: Tensor) -> None:
        """Put images into places (int64, all different) that are in use."""
        self._rows.replace(places, self._packed(images))

    def take(self, places: Tensor) -> Tensor:
        """The images in these places, normalised as they came, on the device."""
        found = self._rows.take(places, self._device)
        if found.dtype == torch.float16:
            return found.float()
        return self.space.restore(found) if found.dtype == torch.uint8 and self.space is not None else found

    def sample(self, count: int, stream: torch.Generator) -> Tensor:
        """``count`` images, drawn with replacement. For a pool on the host, let the stream be ``host=True`` as well."""
        return self.take(torch.randint(len(self), (count,), generator=stream, device=stream.device))

    def _packed(self, images: Tensor) -> Tensor:
        images = images.detach()
        stored = images[0].numel() * (1 if self.eight_bit else images.element_size())
        large = self.capacity * stored > self.limit_mib * 2**20
        if self.space is not None and (self.eight_bit or (large and self.clipped)):
            images = self.space.quantise(images)
        elif large:
            images = images.half()
        return images.cpu() if large else images

    def move_to(self, device: torch.device) -> None:
        """Called by ``s.keep``: where sampled images belong."""
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        return self._rows.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows.load(state)
        parts = self._rows.parts
        if not parts or self._device is None:
            return
        large = self.capacity * parts[0][0].nbytes > self.limit_mib * 2**20
        packed = parts[0].dtype == (torch.uint8 if self.clipped else torch.float16)  # because it was too large
        if not large and (self.eight_bit or not packed):  # else it belongs on the host
            self._rows.parts = [part.to(self._device) for part in parts]


class FeatureBank:
    """CMI's memory: pairs of raw features (local view, global view), the oldest overwritten when it is full.

    Args:
        capacity: in pairs; 40,960 in the paper. It need not be a multiple of the batch.
        limit_mib: a bank that would be larger when full lies on the host.
    """

    state_is_snapshot = True

    def __init__(self, capacity: int = 40_960, limit_mib: float = math.inf) -> None:
        self.capacity = capacity
        self.limit_mib = limit_mib
        self._rows = _Rows(capacity, ring=True)
        self._device: torch.device | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, local: Tensor, global_: Tensor) -> None:
        """Append pairs (N, D)."""
        pairs = torch.stack([local.detach(), global_.detach()], 1)
        self._rows.add(pairs.cpu() if self._on_host(pairs) else pairs)

    def sample(self, count: int, stream: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """``count`` different pairs, (M, D) each, on the device: all there are when they are fewer; None of an empty
        bank."""
        if not len(self):
            return None
        chosen = torch.randperm(len(self), generator=stream, device=stream.device)[:count]
        pairs = self._rows.take(chosen, self._device)
        return pairs[:, 0], pairs[:, 1]

    def _on_host(self, pairs: Tensor) -> bool:
        return self.capacity * pairs[0].nbytes > self.limit_mib * 2**20

    def move_to(self, device: torch.device) -> None:
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        return self._rows.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows.load(state)
        if self._device is not None and self._rows.parts and not self._on_host(self._rows.parts[0]):
            self._rows.parts = [part.to(self._device) for part in self._rows.parts]


class _Rows:
    """Rows of one kind of tensor: growing up to ``capacity``, then left as they are or overwritten in turn."""

    def __init__(self, capacity: int, ring: bool) -> None:
        self.capacity = capacity
        self.ring = ring
        self.parts: list[Tensor] = []
        self.next = 0  # the place that a full ring overwrites next
        self._given_away = False  # a checkpoint holds the tensors too

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def add(self, rows: Tensor) -> None:
        if self.ring:
            rows = rows[-self.capacity :]
        room = self.capacity - len(self)
        if room:
            self.parts.append(rows[:room].clone())
        late = rows[room:]
        if self.ring and len(late):
            places = (torch.arange(len(late)) + self.next) % self.capacity
            self.replace(places, late)
            self.next = (self.next + len(late)) % self.capacity

    def whole(self) -> Tensor:
        if not self.parts:
            raise ValueError("the store is empty: add to it before you sample")
        if len(self.parts) > 1:
            self.parts = [torch.cat(self.parts)]
            self._given_away = False
        return self.parts[0]

    def replace(self, places: Tensor, rows: Tensor) -> None:
        whole = self.whole()
        if self._given_away:
            whole = whole.clone()
            self.parts, self._given_away = [whole], False
        whole[places.to(whole.device)] = rows.to(whole.device)

    def take(self, places: Tensor, device: torch.device | None) -> Tensor:
        whole = self.whole()
        found = whole[places.to(whole.device, non_blocking=True)]
        return found if device is None else found.to(device, non_blocking=True)

    def state(self) -> dict[str, Any]:
        self._given_away = True
        return {"parts": list(self.parts), "next": self.next}

    def load(self, state: dict[str, Any]) -> None:
        self.parts, self.next = list(state["parts"]), int(state["next"])
        self._given_away = True
