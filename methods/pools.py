"""A growing store of synthetic images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Images (N, C, H, W), as they are given, on the device where they were made; at most ``capacity`` of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._parts: list[Tensor] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def full(self) -> bool:
        return len(self) >= self.capacity

    def add(self, images: Tensor) -> None:
        """Append as many of the images as there is room for."""
        self._parts.append(images.detach().clone()[: self.capacity - len(self)])

    def sample(self, count: int, stream: torch.Generator) -> Tensor:
        """``count`` images, drawn with replacement."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        images = self._parts[0]
        return images[torch.randint(len(images), (count,), generator=stream, device=images.device)]

    def state_dict(self) -> dict[str, Any]:
        return {"parts": list(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._parts = list(state["parts"])
