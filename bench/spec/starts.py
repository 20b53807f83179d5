"""Working starts of a user's own files, ``dfkd new``: a method, a task, a study. Their texts are in ``templates/``."""

from __future__ import annotations

import json
import keyword
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import bench
from bench.errors import UserError, nearest_file
from bench.spec.method_registry import find_methods
from bench.spec.study import YAML, study_files
from bench.spec.task import add_tasks, read_tasks, tasks
from bench.utils.paths import PACKAGE
from bench.utils.text import shown

TEMPLATES = PACKAGE / "templates"
METHOD = re.compile("[a-z][a-z0-9_]{0,99}")
OTHER = re.compile("[A-Za-z][A-Za-z0-9_.-]{0,99}")
NOT_TEXT = {"true", "false", "null"}  # in YAML
# A file of such a name would hide what it and its neighbours import.
MODULES = frozenset(sys.stdlib_module_names) | {
    "bench",
    "methods",
    "numpy",
    "sklearn",
    "studies",
    "torch",
    "torchvision",
}
DEFAULT_TASK = "digits/lenet5-half"
REFERENCES = ("noise", "kd")  # the floor and the ceiling of every study
EXAMPLE = "dafl"


def new_method(name: str, folder: Path) -> Path:
    """Write a method file that passes the contract; returns it.

    Raises:
        UserError: the name is none for a method or taken, or there is such a file.
    """
    allowed = "a method's name consists of lower-case letters, digits and underscores, and begins with a letter"
    _check_name(name, METHOD, allowed, ".py", re.sub("[^a-z0-9_]+", "_", name.lower()))
    if keyword.iskeyword(name) or name in MODULES or name in bench.__all__:
        raise UserError(f"a method cannot be named {name!r}: that means something else in Python; try 'my_{name}'")
    if name in (cards := find_methods()):
        raise UserError(f"the name {name!r} is taken by {cards[name].file}; give the method another name")
    title = name.replace("_", " ").strip().capitalize()
    return _write(folder / f"{name}.py", "method", name=name, title=title)


def new_task(name: str, folder: Path) -> Path:
    """Write a YAML file with one task; returns it.

    Raises:
        UserError: the name is none for a task or taken, or there is such a file.
    """
    _check_yaml_name(name, "task")
    if name in tasks():
        raise UserError(f"a task {name!r} already exists; give yours another name")
    return _write(folder / f"{name}.yaml", "task", name=name)


def new_study(name: str, folder: Path, method_files: Sequence[Path] = (), task_files: Sequence[Path] = ()) -> Path:
    """Write a study; returns it.

    Args:
        name: of the study and of its results folder.
        folder: where to.
        method_files: method files that it runs, beside the floor and the ceiling; otherwise one of the suite's.
        task_files: YAML files whose tasks it runs them on; otherwise the digits.

    Raises:
        UserError: the name is none for a study or taken, there is such a file, or one of the others cannot be used.
    """
    _check_yaml_name(name, "study")
    if name in study_files():
        raise UserError(f"the suite has a study {name!r}, and results in runs/{name}; give yours another name")
    for file in method_files:
        if file.suffix != ".py":
            raise UserError(f"{file} is no method file: it does not end in .py{nearest_file(str(file), '.py')}")
    find_methods(method_files)
    known = [tasks()[DEFAULT_TASK]]
    if task_files:
        known = []
        for file in task_files:
            if file.suffix not in YAML:
                hint = nearest_file(str(file), YAML[0])
                raise UserError(f"{file} is no file of tasks: it does not end in {' or '.join(YAML)}{hint}")
            known += read_tasks(file)
        add_tasks(known)
    methods = [*REFERENCES, *(_from(folder, method_files) or [EXAMPLE])]
    return _write(
        folder / f"{name}.yaml",
        "study",
        name=name,
        tasks=", ".join(_from(folder, task_files) or [DEFAULT_TASK]),
        methods="\n".join(f"  - {each}" for each in methods),
        settings="small" if any("small" in task.settings for task in known) else "paper",
    )


def _check_yaml_name(name: str, kind: str) -> None:
    allowed = f"a {kind}'s name consists of letters, digits, '_', '.' and '-', and begins with a letter"
    _check_name(name, OTHER, allowed, YAML[0], re.sub(r"[^A-Za-z0-9_.-]+", "-", name))
    if name.lower() in NOT_TEXT:
        raise UserError(f"a {kind} cannot be named {name!r}: that is no text in YAML")


def _check_name(name: str, pattern: re.Pattern[str], allowed: str, ending: str, near: str) -> None:
    """Raise UserError unless a name fits; ``near`` is what it becomes where other characters are replaced."""
    if pattern.fullmatch(name) and not name.endswith(ending):
        return
    if name.endswith(ending) and pattern.fullmatch(name.removesuffix(ending)):
        raise UserError(f"leave out the ending: {name.removesuffix(ending)!r}")
    if len(name) > 100:
        raise UserError(f"{shown(name[:40])!r}... is too long: a name has at most 100 characters")
    near = re.sub("^[^A-Za-z]+", "", near).strip("_-.")
    hint = f"; did you mean {near!r}?" if pattern.fullmatch(near) else ""
    raise UserError(f"{allowed}, not {name!r}{hint}")


def _from(folder: Path, files: Iterable[Path]) -> list[str]:
    """Paths as a study in this folder has to write them."""
    paths = [Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix() for file in files]
    return [path if re.fullmatch(r"[\w./-]+", path) else json.dumps(path, ensure_ascii=False) for path in paths]


def _write(file: Path, template: str, **values: str) -> Path:
    text = Template((TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")).substitute(values)
    try:
        out = file.open("x", encoding="utf-8")
    except FileExistsError:
        raise UserError(f"{file} already exists, and nothing is overwritten; choose another name") from None
    try:
        with out:
            out.write(text)
    except BaseException:
        file.unlink()
        raise
    return file
