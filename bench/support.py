"""Which methods can be run on which tasks; the others are left out by plan, with a reason. Imports no torch."""

from __future__ import annotations

from bench.cards import MethodCard
from bench.task import TaskSpec


def why_unsupported(card: MethodCard, task: TaskSpec) -> str:
    """Why a method cannot be run on a task, in one sentence; empty when it can."""
    if task.dense and not card.segmentation:
        return f"{card.name} is for classification, and {task.name} is segmentation"
    return ""
