"""The very images that a student was trained on: an even sample over the whole trial, in constant memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.data.image_spec import ImageSpec
from bench.harness.classes import classes_of

PER_STEP = 32  # images taken from one captured step
MEMORY = 2**26  # bytes at most for either sample: fewer images where they are larger than 64x64


def to_pixels(images: Tensor, image: ImageSpec) -> Tensor:
    """Normalised images (N, C, H, W) as pixels in [0, 1] with the normalisation undone; not clipped."""
    mean = torch.tensor(image.mean, device=images.device).view(1, -1, 1, 1)
    std = torch.tensor(image.std, device=images.device).view(1, -1, 1, 1)
    return images.detach().float() * std + mean


class EvenSample:
    """Rows of tensors, taken from every ``stride``-th step that has some; when full, every second one goes, and the
    stride doubles.

    So at any time the sample is spread evenly over these steps so far, whatever their number turns out to be, and no
    random number is drawn for it.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.stride = 1
        self.rows: list[tuple[int, int, dict[str, Tensor]]] = []  # turn, step, tensors
        self.last = -1
        self._turn, self._at = -1, -1

    def wants(self, step: int) -> bool:
        """Whether this step's images are to be taken (at most once a step).

        Steps that have images are counted, not all steps: in a loop where generator and student take turns, every
        second step of all might never be the student's.
        """
        if step != self._at:
            self._turn, self._at = self._turn + 1, step
        return self._turn % self.stride == 0 and step != self.last

    def add(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Keep these rows (same length in every tensor)."""
        self.last = step
        self.rows.append((self._turn, step, tensors))
        while sum(len(next(iter(kept.values()))) for *_, kept in self.rows) > self.capacity and len(self.rows) > 1:
            self.stride *= 2
            self.rows = [row for row in self.rows if row[0] % self.stride == 0]

    def column(self, name: str) -> Tensor | None:
        """All rows of one tensor in order of their steps, or None when nothing was taken."""
        parts = [kept[name] for *_, kept in self.rows]
        # after a resumption the earlier ones lie where the checkpoint was read, on the CPU
        return torch.cat([part.to(parts[-1].device) for part in parts]) if parts else None

    def steps(self) -> Tensor:
        """The step (int64) of each row."""
        return torch.cat([torch.full((len(next(iter(kept.values()))),), at) for _, at, kept in self.rows])

    def state(self) -> dict[str, Any]:
        return {"stride": self.stride, "rows": self.rows, "last": self.last, "turn": self._turn, "at": self._at}

    def restore(self, state: dict[str, Any]) -> None:
        self.stride, self.last = state["stride"], state["last"]
        self._turn, self._at = state["turn"], state["at"]
        self.rows = [(int(turn), int(at), kept) for turn, at, kept in state["rows"]]


class Capture:
    """Samples what goes into the student: training images for the record, and images held out from training."""

    def __init__(self, image: ImageSpec, capacity: int = 2048, held_out: int = 512, hold: int = 8) -> None:
        self.image = image
        bytes_each = image.channels * image.size**2
        self.training = EvenSample(min(capacity, MEMORY // bytes_each))
        self.held_out = EvenSample(min(held_out, MEMORY // (4 * bytes_each)))
        self.hold = hold
        self._outside = torch.zeros((), dtype=torch.float64)
        self._seen = 0

    def take(self, step: int, images: Tensor) -> None:
        """Called with every batch that the student is trained on, normalised (N, C, H, W)."""
        if self.training.wants(step):
            # Mostly the steps of this sample are those of the held-out one. There the images that stand in for others
            # come twice: a quarter of the sample would be copies, of a training whose other steps have none.
            first = self.hold if self.held_out.last == step else 0
            pixels = to_pixels(images[first : first + PER_STEP], self.image)
            self._outside = self._outside + ((pixels < 0) | (pixels > 1)).double().mean().cpu() * len(pixels)
            self._seen += len(pixels)
            stored = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
            self.training.add(step, {"images": stored})

    def withhold(self, step: int, images: Tensor, logits: Tensor) -> Tensor | None:
        """The row order under which a batch trains, when this step gives images to the held-out set.

        The first few images are held out and others of the same batch stand in for them, so that the batch keeps its
        size. Their labels are the teacher's. Returns None at the steps (nearly all) that hold nothing out.
        """
        if len(images) < 4 * self.hold or not self.held_out.wants(step):
            return None
        held = {"images": images[: self.hold].detach().clone(), "labels": classes_of(logits[: self.hold])}
        self.held_out.add(step, held)
        order = torch.arange(len(images), device=images.device)
        order[: self.hold] += self.hold
        return order

    @property
    def clipped(self) -> float:
        """Share of the captured pixels that lay outside [0, 1]."""
        return float(self._outside) / self._seen if self._seen else 0.0

    def state(self) -> dict[str, Any]:
        return {
            "training": self.training.state(),
            "held_out": self.held_out.state(),
            "outside": self._outside,
            "seen": self._seen,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.training.restore(state["training"])
        self.held_out.restore(state["held_out"])
        self._outside, self._seen = state["outside"], int(state["seen"])
