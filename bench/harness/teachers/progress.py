"""How far the training of a teacher is. Imports no torch: who only looks on does without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class TrainingProgress:
    """How far a teacher is: epochs done (with a fraction) of ``epochs``, the mean loss since the last report, and the
    seconds that training took so far."""

    epoch: float
    epochs: int
    loss: float = float("nan")
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        return self.epoch >= self.epochs


Report: TypeAlias = Callable[[TrainingProgress], None]
