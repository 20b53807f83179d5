"""The name under which a teacher is cached: a hash of everything that its training depends on. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence

from bench.errors import UserError
from bench.models.source import source_hashes
from bench.spec.task import TaskSpec, TaskTeacher, TeacherSpec, get_recipe


def teacher_key(task: TaskSpec, teacher: TeacherSpec | None = None, altered_data: bool = False) -> str:
    """``<network>-<16 hex digits>``: a hash of network, recipe, seed, data set and the real images' treatment.

    The recipe's content counts, not its name: a changed recipe is another teacher. A teacher for whose data files
    other than the official ones were allowed ends in ``-altered``.

    Raises:
        UserError: there is no recipe, or there are no images to train on: the teacher must be imported.
    """
    teacher = teacher or task.teacher
    if reason := why_imported(task, teacher):
        where = "" if task.built_in else " --tasks TASKS.yaml"
        raise UserError(
            f"{reason}: import it (`dfkd teacher import FILE --task {shlex.quote(task.name)}{where}`) and "
            f"name its key in the study, `teachers: {{{task.name}: {'[KEY, ...]' if task.teachers else 'KEY'}}}`"
        )
    identity = {
        "network": teacher.network,
        "recipe": get_recipe(teacher.recipe).identity,
        "seed": teacher.seed,
        "data": task.data,
        "image": task.image.model_dump(mode="json"),
        **task.geometry,
    }
    if own := source_hashes(teacher.network):
        identity["networks"] = own
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return f"{folder_name(teacher.network)}-{digest}" + ("-altered" if altered_data else "")


def why_imported(task: TaskSpec, teacher: TeacherSpec | None = None) -> str:
    """Why a task's teacher cannot be trained, in one sentence without its full stop; empty where it can."""
    if not task.has_training_images:
        return f"task {task.name!r} has no training images, so its teacher cannot be trained"
    if not (teacher or task.teacher).recipe:
        return f"task {task.name!r} names no recipe for its teacher, so it cannot be trained"
    return ""


def folder_name(network: str) -> str:
    """A network's name as a part of a folder's: ``torchvision/resnet18`` has a slash.

    >>> folder_name("torchvision/resnet18")
    'torchvision-resnet18'
    """
    return re.sub("[^A-Za-z0-9_.-]+", "-", network)


def quick_teachers(task: TaskSpec) -> tuple[TeacherSpec, ...]:
    """The task's teachers for small machines, in its order; UserError where one has none."""
    return tuple(_quick(task, teacher) for teacher in task.all_teachers)


def _quick(task: TaskSpec, teacher: TaskTeacher) -> TeacherSpec:
    if not teacher.quick:
        which = f" for {teacher.network}" if task.teachers else ""
        raise UserError(
            f"task {task.name!r} has no quick teacher{which}: no useful quick recipe is known for its network on a CPU"
        )
    return TeacherSpec(network=teacher.network, recipe=teacher.quick, seed=teacher.seed)


def teacher_keys(task: TaskSpec, *, quick: bool = False, altered_data: bool = False) -> tuple[str, ...]:
    """The keys of a task's own teachers, in its order; with ``quick``, of those for small machines.

    Raises:
        UserError: one must be imported, or has no quick recipe.
    """
    specs = quick_teachers(task) if quick else task.all_teachers
    return tuple(teacher_key(task, spec, altered_data) for spec in specs)


def check_several(task: TaskSpec, keys: Sequence[str]) -> None:
    """Raise UserError unless these are as many different teachers as the task has."""
    if len(keys) != (count := len(task.all_teachers)):
        wanted = f"the keys of its {count} teachers, [KEY, ...]" if count > 1 else "one key"
        raise UserError(f"task {task.name!r} takes {wanted}, not {len(keys)}")
    if twice := next((key for place, key in enumerate(keys) if key in keys[:place]), ""):
        raise UserError(f"task {task.name!r} would have the teacher {twice} twice")


def known_teachers(task: TaskSpec) -> dict[str, tuple[TeacherSpec, bool]]:
    """The teachers that can be trained when they are asked for, by key: what they are, and whether on altered data."""
    specs = [TeacherSpec(**each.model_dump(exclude={"quick"})) for each in task.all_teachers]
    specs += [_quick(task, each) for each in task.all_teachers if each.quick]
    specs = [spec for spec in specs if not why_imported(task, spec)]
    return {teacher_key(task, spec, altered): (spec, altered) for spec in specs for altered in (False, True)}


def why_no_way(task: TaskSpec, key: str) -> str:
    """Why the training of a teacher cannot be followed, in one sentence; empty when it can: a recipe of the task's."""
    if key in known_teachers(task):
        return ""
    return f"the training of teacher {key!r} is unknown: none of {task.name}'s recipes produces it (was it imported?)"
