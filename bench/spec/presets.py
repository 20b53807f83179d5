"""The options of a method on a task where a study does not state them. Imports no torch."""

from __future__ import annotations

from typing import Any

from bench.errors import UserError
from bench.spec.method_card import MethodCard
from bench.spec.options import check_values
from bench.spec.task import TaskSpec


def preset(card: MethodCard, task: TaskSpec, settings: str) -> dict[str, Any]:
    """What differs from a method's defaults on a task: by paper for its data set, for itself, then the task's own."""
    papers = {**card.presets.get(task.data, {}), **card.presets.get(task.name, {})}
    values = {**papers, **task.settings.get(settings, {}).get(card.name, {})}
    owner = f"{card.name} (task {task.name!r}, settings {settings!r})"
    try:
        return dict(check_values(card.specs, values, owner))
    except UserError as error:
        said = str(error)
        raise UserError(said if said.startswith(owner) else f"{owner}: {said}") from None
