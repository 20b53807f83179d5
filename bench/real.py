"""The real training images, for the methods that declare them: on the device as uint8, normalised batch by batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.data import Split
from bench.streams import derive
from bench.task import ImageSpec


def normalise(pixels: Tensor, image: ImageSpec) -> Tensor:
    """uint8 pixels (N, C, H, W) as (pixel / 255 - mean) / std, float32."""
    mean = torch.tensor(image.mean, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(image.std, device=pixels.device).view(1, -1, 1, 1)
    return (pixels.float() / 255 - mean) / std


class RealImages:
    """Batches without end: every image once an epoch, in an order that depends on the seed and the epoch alone."""

    def __init__(self, split: Split, image: ImageSpec, seed: int, device: torch.device) -> None:
        self._images = split.images.to(device)
        self._labels = split.labels.to(device)
        self._image = image
        self._seed = seed
        self._epoch, self._position = 0, 0
        self._order = self._shuffled()

    def _shuffled(self) -> Tensor:
        stream = torch.Generator().manual_seed(derive(self._seed, "epoch", self._epoch))
        return torch.randperm(len(self._images), generator=stream).to(self._images.device)

    def take(self, batch: int) -> tuple[Tensor, Tensor]:
        """The next ``batch`` images, normalised, and their labels; a batch may span two epochs."""
        parts, missing = [], batch
        while missing:
            part = self._order[self._position : self._position + missing]
            parts.append(part)
            self._position += len(part)
            missing -= len(part)
            if self._position == len(self._order):
                self._epoch, self._position = self._epoch + 1, 0
                self._order = self._shuffled()
        index = torch.cat(parts)
        return normalise(self._images[index], self._image), self._labels[index]

    def state(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position}

    def restore(self, state: dict[str, Any]) -> None:
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._order = self._shuffled()
