"""The best of several attempts, by loss: what the papers store is not an inversion's last image but its best."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Best:
    """Copies of tensors from the iteration with the lowest finite loss; keep it: ``s.keep("best", Best())``.

    No step waits for the device: the choice is made there, element by element.
    """

    def __init__(self) -> None:
        self.loss = torch.tensor(math.inf)
        self.tensors: list[Tensor] = []

    def restart(self) -> None:
        """Whatever comes next is the best so far. If no finite loss follows, the former tensors stay."""
        self.loss = torch.full_like(self.loss, math.inf)

    @torch.no_grad()
    def look(self, loss: Tensor, *tensors: Tensor) -> None:
        """Take copies of these, of the same shapes at every call, if the loss is lower than all since the restart."""
        better = loss.detach() < self.loss  # never of NaN
        self.loss = torch.where(better, loss.detach(), self.loss)
        former = self.tensors or tensors
        self.tensors = [torch.where(better, new.detach(), old) for new, old in zip(tensors, former, strict=True)]

    def move_to(self, device: torch.device) -> None:
        self.loss = self.loss.to(device)

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "tensors": self.tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.loss.device
        self.loss = state["loss"].to(device)
        self.tensors = [each.to(device) for each in state["tensors"]]
