"""A user's own tasks, kept beside the records that were made on them: a report quotes their published numbers, and
images are scored later on the very same task. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError
from bench.records import read_beside
from bench.records.foreign import read_task_list
from bench.spec.published import Published
from bench.spec.task import TaskSpec, add_tasks
from bench.utils.text import shown

FILE = "tasks.json"


def save_tasks(results: Path, tasks: Iterable[Mapping[str, Any]]) -> None:
    """Add tasks, written out, to those of a results folder; one of the same name is replaced."""
    kept = {task["name"]: task for task in [*_read(results / FILE), *tasks]}
    if kept:
        part = results / f".{FILE}.part"
        part.write_text(json.dumps(list(kept.values()), indent=1) + "\n", encoding="utf-8")
        part.replace(results / FILE)


def published_of_kept(results: Path) -> dict[str, Published]:
    """The published numbers of a results folder's own tasks, by the task's name."""
    try:
        return {task["name"]: Published.model_validate(task.get("published", {})) for task in _read(results / FILE)}
    except ValueError as error:
        raise UserError(f"{results / FILE}: {first_mistake(error)}") from None


def register_saved_tasks(results: Path) -> None:
    """Make the own tasks of a results folder known in this process.

    Raises:
        UserError: the file is damaged, or a network of one no longer exists.
    """
    try:
        add_tasks(TaskSpec.model_validate(task) for task in _read(results / FILE))
    except ValueError as error:
        raise UserError(f"{results / FILE}: {first_mistake(error)}") from None


def kept_task(results: Path, name: str) -> TaskSpec | None:
    """The own task of that name of a results folder or an archive; None where it has none.

    Raises:
        UserError: the file is damaged, or a network of the task no longer exists.
    """
    try:
        return next((TaskSpec.model_validate(task) for task in _read(results / FILE) if task["name"] == name), None)
    except ValueError as error:
        raise UserError(f"{results / FILE}: {first_mistake(error)}") from None


def first_mistake(error: ValueError) -> str:
    """What is wrong, on one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return shown(f"{'.'.join(map(str, first['loc']))[:200]}: {first['msg']}")
    return shown(str(error).partition("\n")[0])


def _read(file: Path) -> list[dict[str, Any]]:
    text = read_beside(file.parent, file.name)
    if text is None:
        return []
    return read_task_list(text, str(file))
