"""A study narrowed to the trials of one cell, to be run at other commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError, nearest
from bench.spec.expand import expand
from bench.spec.study import LoadedStudy, load_study
from bench.utils.yaml import plain, read_yaml

BY_TASK = ("budgets", "teachers", "pools")  # keys of a study that name tasks


def of_study(file: Path, task: str | None, method: str | None) -> dict[str, Any]:
    """What a study says of one task and one method, as it is written: an option that it leaves out has each commit's
    own default.

    Raises:
        UserError: the study has no such task or method, or it has several trials of one seed that fit.
    """
    loaded = load_study(file)
    trials = expand(loaded)
    tasks = list(dict.fromkeys(trial.task for trial in trials))
    methods = list(dict.fromkeys(trial.method for trial in trials))
    for what, name, known in (("task", task, tasks), ("method", method, methods)):
        if name is not None and name not in known:
            raise UserError(f"{file} has no {what} {name!r}{nearest(name, known)}")
        if name is None and len(known) > 1:
            raise UserError(f"{file} has {len(known)} {what}s; name one with --{what}: {', '.join(known)}")
    chosen_task, chosen_method = task or tasks[0], method or methods[0]
    cells = {trial.label for trial in trials if (trial.task, trial.method) == (chosen_task, chosen_method)}
    if len(cells) > 1:
        raise UserError(f"{file} has {len(cells)} cells of {chosen_method}: {', '.join(sorted(cells))}; name a trial")
    return _narrowed(file, loaded, chosen_task, [chosen_method])


def of_cells(file: Path, task: str, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """What a study says of some methods on one task, as it is written, with other seeds.

    Args:
        file: the study.
        task, methods: names of the study's.
        seeds: in place of the study's.

    Raises:
        UserError: the task is not written in the study itself.
    """
    return _narrowed(file, load_study(file), task, methods) | {"seeds": list(seeds)}


def _narrowed(file: Path, loaded: LoadedStudy, task: str, methods: Sequence[str]) -> dict[str, Any]:
    data = plain(read_yaml(file))
    data["tasks"] = [item for item, name in zip(data["tasks"], loaded.tasks, strict=False) if name == task]
    if not data["tasks"]:
        raise UserError(f"{file}: tasks from a file cannot be narrowed to {task!r}; define it in the study")
    for key in BY_TASK:
        data[key] = {name: value for name, value in data.get(key, {}).items() if name == task}
    own = data.get("method_budgets", {})
    data["method_budgets"] = {name: value for name, value in own.items() if name in methods}
    files = [loaded.cards[name].file for name in methods]
    data["methods"] = [
        item
        for item in data["methods"]
        if _method_of(item) in methods or (file.parent / _method_of(item)).resolve() in files
    ]
    return {key: value for key, value in data.items() if value != {}}


def _method_of(item: str | Mapping[str, Any]) -> str:
    return item if isinstance(item, str) else next(iter(item))
