"""Real images, a task's own or a pool's: on the device as uint8 once, normalised and augmented there in batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.image_spec import Augmentation, ImageSpec
from bench.data.source import VOID, Split
from bench.errors import MethodError
from bench.utils.rng import derive

IGNORED = -100  # the label of a void pixel in a batch: what torch's cross-entropy leaves out by default


def normalise(pixels: Tensor, image: ImageSpec) -> Tensor:
    """uint8 pixels (N, C, H, W) as (pixel / 255 - mean) / std, in torch's default type: float32, in tests float64."""
    mean = torch.tensor(image.mean, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(image.std, device=pixels.device).view(1, -1, 1, 1)
    result = pixels.to(torch.get_default_dtype(), copy=True)
    return result.div_(255).sub_(mean).div_(std)  # in place: the maps are large


def middle(images: Tensor, size: int) -> Tensor:
    """The middle ``size`` x ``size`` pixels of images (N, C, H, W)."""
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


class RealImages:
    """Batches without end: every image once an epoch, in an order that depends on the seed and the epoch alone.

    Images larger than the task's are cropped to its size at random places; ``augment`` pads them before and mirrors
    every second one. Crops and mirrors depend on the seed and the number of the batch alone. Images that are mapped
    from a file stay there, and batches of them go to the device. Raises MethodError if there are none.
    """

    def __init__(
        self,
        split: Split,
        image: ImageSpec,
        seed: int,
        device: torch.device,
        augment: Augmentation | None = None,
    ) -> None:
        if not len(split.images):
            raise MethodError("there are no real images to make batches of")
        self._digest = split.digest
        self._device = device
        self._images = split.images if split.mapped else split.images.to(device)
        self._labels = split.labels.to(self._images.device)
        self._image = image
        self._augment = augment or Augmentation()
        self._seed = seed
        self._epoch, self._position, self._taken, self._surveyed = 0, 0, 0, 0
        self._chosen: Tensor | None = None
        self._parts: dict[tuple[int, int], RealImages] = {}
        self._in_turn: Tensor | None = None
        self._order = self._shuffled()

    def __len__(self) -> int:
        return len(self._images)

    def _shuffled(self) -> Tensor:
        stream = torch.Generator().manual_seed(derive(self._seed, "epoch", self._epoch))
        if self._chosen is None:
            return torch.randperm(len(self._images), generator=stream).to(self._images.device)
        order = torch.randperm(len(self._chosen), generator=stream).to(self._images.device)
        return self._chosen[order]

    def choose(self, places: Tensor) -> None:
        """From now on :meth:`take` gives only the images at ``places`` (int64); a new epoch begins."""
        self._chosen = places.to(self._images.device)
        self._epoch, self._position = self._epoch + 1, 0
        self._order = self._shuffled()

    def part(self, index: int, of: int) -> RealImages:
        """One of ``of`` equal parts of all images, from 0; drawn by the seed alone, in its own order.

        Raises:
            MethodError: there is no such part, or an image too few for it.
        """
        if not 0 <= index < of <= len(self):
            raise MethodError(f"there is no part ({index}, {of}): of n parts, {len(self)} at most, the first is (0, n)")
        if (index, of) not in self._parts:
            stream = torch.Generator().manual_seed(derive(self._seed, "parts", of))
            places = torch.randperm(len(self), generator=stream).tensor_split(of)[index]
            seed = derive(self._seed, "part", index, of)
            split = Split(self._images, self._labels, self._digest)
            part = RealImages(split, self._image, seed, self._device, self._augment)
            part.choose(places)
            self._parts[index, of] = part
        return self._parts[index, of]

    def survey(self, batch: int) -> tuple[Tensor, Tensor]:
        """The next images of all, as they are, and their places; in one random order, again and again.

        Of images larger than the task's it is the middle. The last batch of a round is smaller.
        """
        if self._in_turn is None:
            stream = torch.Generator().manual_seed(derive(self._seed, "survey"))
            self._in_turn = torch.randperm(len(self._images), generator=stream).to(self._images.device)
        start = self._surveyed % len(self._in_turn)
        places = self._in_turn[start : start + batch]
        self._surveyed += len(places)
        pixels = self._images[places].to(self._device)
        return normalise(middle(pixels, self._image.size), self._image), places.to(self._device)

    def take(self, batch: int) -> tuple[Tensor, Tensor]:
        """The next ``batch`` images, normalised, and their labels (int64); a batch may span two epochs.

        Labels are (N,), or (N, size, size) for segmentation, where void pixels are -100: cross-entropy leaves them out.
        """
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
        pixels, labels = self._images[index].to(self._device), self._labels[index].to(self._device)
        if labels.ndim == 3:
            labels = labels.long().masked_fill(labels == VOID, IGNORED)
        pixels, labels = self._augmented(pixels, labels)
        self._taken += 1
        return normalise(pixels, self._image), labels

    def _augmented(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        pad, size = self._augment.pad, self._image.size
        if not pad and not self._augment.flip and pixels.shape[-2:] == (size, size):
            return pixels, labels
        stream = torch.Generator().manual_seed(derive(self._seed, "augment", self._taken))
        dense = labels.ndim == 3
        if pad:
            pixels = F.pad(pixels, (pad, pad, pad, pad))
            labels = F.pad(labels, (pad, pad, pad, pad), value=IGNORED) if dense else labels
        height, width = pixels.shape[-2:]
        if (height, width) != (size, size):
            rows = _places(len(pixels), height, size, stream, pixels.device)
            columns = _places(len(pixels), width, size, stream, pixels.device)
            pixels = pixels.gather(2, rows[:, None, :, None].expand(-1, pixels.shape[1], -1, width))
            pixels = pixels.gather(3, columns[:, None, None, :].expand(-1, pixels.shape[1], size, -1))
            if dense:
                labels = labels.gather(1, rows[:, :, None].expand(-1, -1, width))
                labels = labels.gather(2, columns[:, None, :].expand(-1, size, -1))
        if self._augment.flip:
            mirrored = (torch.rand(len(pixels), generator=stream) < 0.5).to(pixels.device)
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
            labels = torch.where(mirrored[:, None, None], labels.flip(2), labels) if dense else labels
        return pixels, labels

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "position": self._position,
            "taken": self._taken,
            "surveyed": self._surveyed,
            "chosen": self._chosen,
            "parts": [[index, of, part.state()] for (index, of), part in self._parts.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._taken, self._surveyed = int(state["taken"]), int(state["surveyed"])
        self._chosen = None if state["chosen"] is None else state["chosen"].to(self._images.device)
        self._order = self._shuffled()
        for index, of, part in state.get("parts", ()):  # none in a checkpoint of before there were parts
            self.part(index, of).restore(part)


def _places(count: int, length: int, size: int, stream: torch.Generator, device: torch.device) -> Tensor:
    """The positions along an axis of a random crop of each image: int64 (count, size)."""
    first = torch.randint(length - size + 1, (count, 1), generator=stream)
    return (first + torch.arange(size)).to(device)
