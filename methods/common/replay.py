"""SSD-KD's replay buffer: a few thousand images, how easy and how frequent they are, and which the student needs most.

The authors published no code, so this follows what is known of the paper, much of it from memory (see
:mod:`methods.ssd_kd`).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from methods.common.losses import kl_rows, rows
from methods.common.pixels import PixelSpace
from methods.common.pools import ImagePool


def judged(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The class c_T(x) and the confidence p_T(x) of each image, (N,) both, of the teacher's logits.

    For segmentation the most frequent class of the image's pixels, and the mean of their highest probabilities.
    """
    confidence, classes = logits.softmax(1).max(1)
    if logits.ndim == 2:
        return classes, confidence
    numbers = torch.arange(logits.shape[1], device=logits.device)
    counts = (classes.flatten(1)[:, :, None] == numbers).sum(1)
    return counts.argmax(1), confidence.flatten(1).mean(1)


def modulation(logits: Tensor, shares: Tensor, gamma: float = 2.0, diversity: bool = True) -> Tensor:
    """phi(x) = (1 - share of the buffer that has x's class) * (1 - p_T(x))^gamma, (N,) in [0, 1].

    Args:
        logits: the teacher's, (N, K) or (N, K, H, W).
        shares: of the classes in the buffer, (K,): :meth:`ReplayBuffer.shares`.
        gamma: exponent of the difficulty; 0 leaves it out.
        diversity: with the first factor.
    """
    classes, confidence = judged(logits)
    phi = (1 - confidence).clamp_min(1e-12) ** gamma  # a power's gradient at 0 is not finite for gamma < 1
    return phi * (1 - shares[classes]) if diversity else phi


class ReplayBuffer:
    """Images in 8 bits; each with c_T, p_T, the last priority |delta| and the last importance weight; keep it.

    Args:
        capacity: in images.
        classes: number of classes K.
        space: the task's normalisation.
        eviction: what makes room when it is full: ``balanced``, of the most frequent class the easiest, one by one;
            ``fifo``, the oldest.
    """

    def __init__(
        self, capacity: int, classes: int, space: PixelSpace, eviction: Literal["balanced", "fifo"] = "balanced"
    ) -> None:
        self.capacity = capacity
        self.eviction = eviction
        self.images = ImagePool(capacity, space, eight_bit=True)
        self._numbers = torch.arange(classes)
        self._rows = {
            "classes": torch.zeros(capacity, dtype=torch.int64),
            "confidence": torch.zeros(capacity),
            "delta": torch.zeros(capacity),
            "weight": torch.ones(capacity),
            "age": torch.zeros(capacity, dtype=torch.int64),
        }
        self.made = 0  # images added so far, those that were evicted again included

    def __len__(self) -> int:
        return len(self.images)

    @property
    def full(self) -> bool:
        return self.images.full

    def row(self, name: str) -> Tensor:
        """What is known of the images that are there: ``classes``, ``confidence``, ``delta``, ``weight``, ``age``."""
        return self._rows[name][: len(self)]

    def shares(self) -> Tensor:
        """The share of each class, (K,); all 0 of an empty buffer."""
        return (self.row("classes")[:, None] == self._numbers).sum(0) / max(len(self), 1)

    def balance(self) -> Tensor:
        """Entropy of the classes' shares, divided by ln K: 1 when all are equally frequent."""
        shares = self.shares()
        return -torch.xlogy(shares, shares).sum() / torch.tensor(float(len(self._numbers))).log()

    @torch.no_grad()
    def add(self, images: Tensor, classes: Tensor, confidence: Tensor) -> None:
        """A partial update: the images fill free places, then those of as many that are evicted.

        New images have the highest priority that is there, 1 if there is none, and the importance weight 1.
        """
        images, classes, confidence = (each[: self.capacity] for each in (images, classes, confidence))
        held, free = len(self), self.capacity - len(self)
        highest = self.row("delta").max() if held else 1.0
        taken = self.evicted(len(images) - free) if len(images) > free else classes[:0]
        if free:
            self.images.add(images[:free])
        if len(taken):
            self.images.replace(taken, images[free:])
        places = torch.cat([torch.arange(held, len(self), device=classes.device), taken])
        ages = torch.arange(self.made, self.made + len(places), device=classes.device)
        new = {"classes": classes, "confidence": confidence, "delta": highest, "weight": 1.0, "age": ages}
        for name, values in new.items():
            self._rows[name][places] = values
        self.made += len(places)

    def evicted(self, count: int) -> Tensor:
        """The places (count,) that make room.

        To take away the easiest of the most frequent class, over and over, is to take the highest of towers: in its
        class's tower every image stands on all harder ones.
        """
        if self.eviction == "fifo":
            return self.row("age").argsort()[:count]
        classes, confidence = self.row("classes"), self.row("confidence").double()
        order = (classes + confidence / 2).argsort()
        of_class = (classes[:, None] == self._numbers).sum(0)
        below = torch.cat([of_class.new_zeros(1), of_class.cumsum(0)[:-1]])
        height = torch.empty_like(order)
        height[order] = torch.arange(len(order), device=order.device) - below[classes[order]]
        return (height + confidence / 2).topk(count).indices

    def probabilities(self, alpha: float = 1.0, eps: float = 1e-6) -> Tensor:
        """P_i = (|delta_i| + eps)^alpha / sum_j (|delta_j| + eps)^alpha, float64."""
        priority = (self.row("delta").double().abs() + eps) ** alpha
        return priority / priority.sum()

    def draw(self, count: int, probabilities: Tensor, stream: torch.Generator) -> Tensor:
        """Places (count,) with replacement. In whole numbers, whose sums are the same on every device."""
        steps = (probabilities * 2**40).long().clamp_min(1).cumsum(0)
        height = torch.rand(count, generator=stream, device=stream.device, dtype=torch.float64) * steps[-1]
        return torch.searchsorted(steps, height.long(), right=True)

    @torch.no_grad()
    def note(self, places: Tensor, delta: Tensor, weight: Tensor) -> None:
        """New priorities |delta| and importance weights; of a place that comes twice, the higher ones."""
        for name, values in (("delta", delta.abs()), ("weight", weight)):
            row = self._rows[name]
            found = torch.full_like(row, -1).scatter_reduce(0, places, values.to(row), "amax")
            row.copy_(torch.where(found < 0, row, found))

    def move_to(self, device: torch.device) -> None:
        self.images.move_to(device)
        self._numbers = self._numbers.to(device)
        self._rows = {name: row.to(device) for name, row in self._rows.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images.state_dict(), "rows": self._rows, "added": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images.load_state_dict(state["images"])
        for name, row in self._rows.items():
            row.copy_(state["rows"][name])
        self.made = int(state["added"])


def importance(probabilities: Tensor, beta: float) -> Tensor:
    """w_i = (N P_i)^(-beta) / max_j w_j: what corrects the bias of drawing by priority, fully at beta = 1."""
    return (probabilities / probabilities.min()) ** -beta


def discrepancies(teacher_logits: Tensor, student_logits: Tensor, masked: bool = True) -> Tensor:
    """d of each image, (N,), for segmentation a mean over pixels; ``masked``: 0 where the predictions differ."""
    teacher, student = rows(teacher_logits), rows(student_logits)
    divergence = kl_rows(teacher, student)
    if masked:
        divergence = divergence * (teacher.argmax(1) == student.argmax(1))
    return divergence.view(len(teacher_logits), -1).mean(1)
