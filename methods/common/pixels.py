"""Pixels in [0, 1] and the normalised space that networks take: x = (pixel - mean) / std, per channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench import Session

ROUNDING = 1e-3  # grey levels; normalising there and back in single precision is 1e-4 off


class PixelSpace:
    """A task's normalisation, there and back; images (N, C, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | None = None) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).view(1, -1, 1, 1)

    @classmethod
    def of(cls, s: Session) -> PixelSpace:
        """That of a session's task, on its device."""
        return cls(s.task.image.mean, s.task.image.std, s.device)

    def normalise(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std

    def pixels(self, images: Tensor) -> Tensor:
        """Not clipped: a generator without a sigmoid may leave the range."""
        return images * self.std + self.mean

    def clip(self, images: Tensor) -> Tensor:
        """Normalised images, cut to the range of real pixels."""
        return torch.maximum(torch.minimum(images, self.normalise(torch.ones_like(self.mean))), -self.mean / self.std)

    def quantise(self, images: Tensor) -> Tensor:
        """Normalised images as uint8: 255 * pixel without its fraction, clipped, as the codes write their PNG files.

        So images are half a grey level darker on average. What :meth:`restore` gives keeps its values.
        """
        return (self.pixels(images.detach().float()).clamp(0, 1) * 255 + ROUNDING).to(torch.uint8)

    def restore(self, stored: Tensor) -> Tensor:
        """Normalised images from uint8; less than 1 / 255 darker in pixels than what was stored."""
        return self.normalise(stored.float() / 255)
