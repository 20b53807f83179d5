"""A finished trial run again: the study of that one trial, and the commands that run it. Imports no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Container, Mapping
from typing import Any

from bench.errors import UserError
from bench.records import Record
from bench.spec.method import POOLS
from bench.spec.task import TaskSpec, get_task, tasks
from bench.spec.teacher_key import known_teachers, teacher_keys
from bench.utils.memory_format import CONTIGUOUS

FILE = "trial.yaml"


def study_of(record: Record, task: TaskSpec | None = None) -> dict[str, Any]:
    """The study of one trial, with every option written out.

    Args:
        record: of the trial.
        task: a user's own, which is written into the study; by default the one that is known under the record's name.

    Raises:
        UserError: its task is not known here.
    """
    trial = record.trial
    own, task = task, task or get_task(trial.task)
    study: dict[str, Any] = {
        "name": f"trial-{record.id}",
        "tasks": [own.model_dump(mode="json", exclude_defaults=True) if own else trial.task],
        "methods": [{trial.method: trial.options}],
        "seeds": [trial.seed],
        "budget": dict(trial.budget),
        **{key: getattr(trial, key) for key in ("points", "selection", "threads", "precision", "deterministic")},
        "image_metrics": list(record.image_metrics),
    }
    stated = record.provenance.get("stated")
    if trial.memory_format != CONTIGUOUS or (isinstance(stated, Mapping) and "memory_format" in stated):
        study["memory_format"] = trial.memory_format  # a commit from before there were formats does not know the key
    if trial.pool and not _own_pool(trial.pool):  # whichever role it has for the method
        study["pools"] = {trial.task: dict.fromkeys(POOLS, trial.pool)}
    keys, altered = trial.teacher_keys, trial.altered_data
    if not task.trains_teachers or keys != teacher_keys(task, altered_data=altered):
        has_quick = task.has_training_images and all(each.quick for each in task.all_teachers)
        quick = has_quick and keys == teacher_keys(task, quick=True, altered_data=altered)
        named = list(keys) if task.teachers else trial.teacher
        study |= {"teacher": "quick"} if quick else {"teachers": {trial.task: named}}
    return study


def commands(record: Record, task: TaskSpec | None = None) -> str:
    """Lines for a POSIX shell, in a checkout of the suite, that run a trial again; raises as ``study_of``."""
    study = study_of(record, task)
    commit = record.provenance.get("commit")
    run = ["dfkd", "run", FILE, "--device", record.trial.device]
    run += ["--allow-altered"] if record.trial.altered_data else []
    return "\n".join(
        [
            *([f"git checkout {shlex.quote(str(commit))}"] if commit else []),
            f"cat > {FILE} <<'END'",  # no line of the study is END: each has a key, and JSON keeps a text on one line
            *(f"{key}: {json.dumps(value)}" for key, value in study.items()),
            "END",
            shlex.join(run),
        ]
    )


def how_to_repeat(
    record: Record, installed: Container[str], own: Callable[[str], TaskSpec | None]
) -> tuple[str, list[str]]:
    """The commands, empty where there are none, and what must be known beside them.

    Args:
        record: of the trial.
        installed: the names of the methods that are.
        own: finds a task by name among those that the trial's results folder or archive keeps; may raise UserError.
    """
    try:
        task = own(record.trial.task)
        return commands(record, task), caveats(record, installed, task)
    except UserError as error:  # the task, or one of its networks, no longer exists
        return "", [f"No command can repeat it here: {error}."]


def caveats(record: Record, installed: Container[str], task: TaskSpec | None = None) -> list[str]:
    """What the commands do not bring back by themselves, in sentences.

    Args:
        record: of the trial.
        installed: the names of the methods that are.
        task: a user's own.
    """
    trial, provenance = record.trial, record.provenance
    found = []
    if not provenance.get("commit"):
        found.append(
            f"The commit was not recorded; the suite was dfkd {provenance.get('suite', 'of an unknown version')}."
        )
    if provenance.get("dirty"):
        found.append("The checkout had uncommitted changes, which were not recorded.")
    if trial.method not in installed:
        found.append(f"{trial.method} is not installed here: its file must be named with --method FILE.")
    if _own_pool(trial.pool):
        found.append(f"The pool {trial.pool} was a file or folder: its path must be added as `pools`.")
    known = task or tasks().get(trial.task)
    imported = imported_teachers(record)
    found += [f"The teacher {key} was imported: import the same weights first." for key in imported]
    if known is None:
        return found
    for key in trial.teacher_keys:
        if key not in imported and key not in known_teachers(known):
            found.append(f"No recipe of the task produces the teacher {key} here: was it imported?")
    networks = [*(teacher.network for teacher in known.all_teachers), known.student]
    if own := ", ".join(dict.fromkeys(name for name in networks if ":" in name)):
        found.append(f"{own}: code of the task's author; it must be there.")
    return found


def imported_teachers(record: Record) -> list[str]:
    """The keys of a trial's teachers that were imported; none where it never loaded them."""
    teachers = record.ensemble.teachers if record.ensemble else [record.teacher]
    pairs = zip(record.trial.teacher_keys, teachers, strict=False)
    return [key for key, facts in pairs if facts and facts.recipe == "imported"]


def _own_pool(pool: str) -> bool:
    """Whether a pool is a file or folder of the user's: only those have a hash of their content behind an @."""
    return "@" in pool
