"""Which methods can be run on which tasks; the others are left out by plan, with a reason. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.cards import MethodCard
from bench.models import has_batch_norm
from bench.task import TaskSpec


def why_unsupported(card: MethodCard, task: TaskSpec, options: Mapping[str, Any] | None = None) -> str:
    """Why a method cannot be run on a task with these options, in one sentence; empty when it can.

    Whether torchvision's networks and a user's own have batch norm is known when they are built, not here: there the
    method's first question about it ends the trial with the same status.
    """
    if task.dense and not card.segmentation:
        return f"{card.name} is for classification, and {task.name} is segmentation"
    if card.needs_batch_norm(options or {}) and has_batch_norm(task.teacher.network) is False:
        where = f" with {card.batch_norm} above 0" if isinstance(card.batch_norm, str) else ""
        return f"{card.name} needs batch-norm statistics{where}, and the teacher of {task.name} has no batch norm"
    return ""
