"""The name under which a teacher is cached: a hash of everything that its training depends on. Imports no torch."""

from __future__ import annotations

import hashlib
import json

from bench.task import TaskSpec, TeacherSpec, get_recipe


def teacher_key(task: TaskSpec, teacher: TeacherSpec | None = None, altered_data: bool = False) -> str:
    """``<network>-<16 hex digits>``: a hash of network, recipe, seed, data set and the images' geometry.

    The recipe's content counts, not its name: a changed recipe is another teacher. A teacher for whose data files
    other than the official ones were allowed ends in ``-altered``.
    """
    teacher = teacher or task.teacher
    identity = {
        "network": teacher.network,
        "recipe": get_recipe(teacher.recipe).model_dump(mode="json"),
        "seed": teacher.seed,
        "data": task.data,
        "image": task.image.model_dump(mode="json"),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return f"{teacher.network}-{digest}" + ("-altered" if altered_data else "")
