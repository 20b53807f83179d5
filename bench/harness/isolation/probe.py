"""A look into a running trial for the contract battery: what becomes of the student, and which parameters learn.

It is beside the method, in its process, and what it tells is the word of that process.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bench.harness.trial_context import TrialContext


class Probe:
    """Looks into a running trial without touching it."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._start = digest(context.student)
        self._seen: dict[int, tuple[Optimizer, set[int]]] = {}
        context.updates.on_gradients = self._on_gradients

    def digest(self) -> str:
        """Hash of the student's weights now, bit for bit."""
        return digest(self._context.student)

    def told(self) -> dict[str, Any]:
        """What was seen from the start until now, as plain data."""
        context = self._context
        weights = context.student.state_dict().values()
        return {
            "student": self.digest(),
            "start": self._start,
            "used": int(context.used),
            "finite": all(bool(torch.isfinite(value).all()) for value in weights if value.is_floating_point()),
            "parameters": self._unreached(),
        }

    def _on_gradients(self, optimizer: Optimizer) -> None:
        _, reached = self._seen.setdefault(id(optimizer), (optimizer, set()))
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in reached and parameter.grad is not None and bool(parameter.grad.any()):
                    reached.add(id(parameter))

    def _unreached(self) -> dict[str, list[str]]:
        context = self._context
        names: dict[int, str] = {}
        for kept_name, thing in [("student", context.student), *context.kept.items()]:
            if isinstance(thing, nn.Module):
                names |= {id(parameter): f"{kept_name}.{name}" for name, parameter in thing.named_parameters()}
            elif isinstance(thing, torch.Tensor):
                names[id(thing)] = kept_name
        found = {}
        for kept_name, thing in context.kept.items():
            if isinstance(thing, Optimizer):
                _, reached = self._seen.get(id(thing), (thing, set()))
                parameters = [parameter for group in thing.param_groups for parameter in group["params"]]
                found[kept_name] = [
                    names.get(id(p), "a tensor that is not kept") for p in parameters if id(p) not in reached
                ]
        return found


def digest(student: nn.Module) -> str:
    """Hash of a student's weights, bit for bit."""
    total = hashlib.sha256()
    for value in student.state_dict().values():
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
