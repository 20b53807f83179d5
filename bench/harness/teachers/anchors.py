"""Anchors: a teacher's weights at evenly spaced points of its training, for methods that follow it on its way.

They lie beside the teacher, one file each, with their own passport. The last anchor is the teacher itself. A
teacher that is not cached is trained once, its anchors written on the way. One that is cached without them is trained
once more: on a CPU that gives the same bytes, which is checked. Where it does not (another processor, other versions,
a GPU), the teacher has no known way, and none is made up for it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from bench.data import Dataset
from bench.errors import Unsupported, UserError
from bench.harness.teachers.cache import CPU, make_folder, serialised, silent, train_teacher, write_file
from bench.harness.teachers.passport import check_passport, passport_text, read_passport
from bench.harness.teachers.progress import Report
from bench.harness.teachers.training import train
from bench.spec.task import TaskSpec, get_recipe
from bench.spec.teacher_key import known_teachers, why_no_way
from bench.utils.locks import waiting_for
from bench.utils.paths import anchor_folder, teacher_folder
from bench.utils.provenance import provenance

SCHEMA = 1


def get_anchors(
    task: TaskSpec, key: str, dataset: Dataset, count: int, report: Report = silent, device: torch.device = CPU
) -> list[dict[str, Tensor]]:
    """The weights of a teacher's first ``count`` - 1 anchors, the earliest first, on the CPU; made now if need be.

    Args:
        task: its teacher's recipes are known.
        key: the teacher's; trained as well, if it is not cached.
        dataset: trains and scores the teacher.
        count: how many anchors there are, the teacher among them; for 0 nothing is done.
        report: told how training comes along.
        device: where to train a teacher that is not cached.

    Raises:
        Unsupported: the teacher was imported; its training is unknown.
        UserError: the training cannot be repeated, is shorter than ``count`` steps, or a file is damaged.
    """
    if not count:
        return []
    folder = anchor_folder(key, count)
    if not (folder / "passport.json").exists():
        _make_anchors(task, key, dataset, count, report, device)
    return _load(folder)


def check_anchors(key: str, count: int) -> None:
    """Raise UserError, before anything runs, for a cached teacher without anchors whose training was not on a CPU."""
    folder = teacher_folder() / key
    if (anchor_folder(key, count) / "passport.json").exists() or not (folder / "passport.json").exists():
        return
    if not read_passport(folder)["provenance"]["deterministic"]:
        raise UserError(f"teacher {key!r} was not trained on a CPU, so its training cannot be repeated; {_fix(folder)}")


def _make_anchors(task: TaskSpec, key: str, dataset: Dataset, count: int, report: Report, device: torch.device) -> None:
    if reason := why_no_way(task, key):
        raise Unsupported(reason)
    dataset = dataset.home or dataset
    spec, altered = known_teachers(task)[key]
    steps = get_recipe(spec.recipe).epochs * -(-len(dataset.train.labels) // get_recipe(spec.recipe).batch)
    if steps < count:
        raise UserError(f"recipe {spec.recipe!r} makes {steps} steps on {task.data}, too few for {count} anchors")
    work = teacher_folder() / f".{key}.anchors-{count}.work"
    make_folder(work)
    with waiting_for(teacher_folder() / f".{key}.anchors-{count}.lock"):
        if (anchor_folder(key, count) / "passport.json").exists():
            return
        check_anchors(key, count)
        keeper = _Keeper(work, count)
        folder = train_teacher(task, spec, dataset, report, altered, device, watch=keeper, work=work / "training")
        passport = read_passport(folder)
        if not keeper.finished:  # the teacher was there
            device = CPU
            network, _ = train(task, spec, dataset, work / "training", key=key, device=CPU, report=report, watch=keeper)
            if hashlib.sha256(serialised(network)).hexdigest() != passport["sha256"]:
                shutil.rmtree(work, ignore_errors=True)
                raise UserError(
                    f"teacher {key!r} gets other weights when it is trained again here (another processor, or other "
                    f"versions than in its passport), so its training cannot be repeated; {_fix(folder)}"
                )
        files = [_file(work, number) for number in range(1, count)]
        content = {
            "schema": SCHEMA,
            "teacher": key,
            "teacher_sha256": passport["sha256"],
            "steps": steps,
            "anchors": [
                {"file": file.name, "step": step_of(number, count, steps), "sha256": _digest(file.read_bytes())}
                for number, file in enumerate(files, 1)
            ],
            "provenance": provenance(
                threads=get_recipe(spec.recipe).threads, deterministic=device.type == "cpu", device=str(device)
            ),
        }
        write_file(work / "passport.json", passport_text(content))
        shutil.rmtree(anchor_folder(key, count), ignore_errors=True)  # one without a passport
        work.replace(anchor_folder(key, count))  # whole or not at all


def step_of(number: int, count: int, steps: int) -> int:
    """After how many of a training's ``steps`` the anchor with this number (1 to ``count``) is taken.

    >>> [step_of(number, 4, 10) for number in (1, 2, 3, 4)]
    [3, 5, 8, 10]
    """
    return -(-steps * number // count)


class _Keeper:
    """Watches a training and writes the anchors but for the last; a resumed training finds the earlier ones there."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.finished = False

    def __call__(self, step: int, steps: int, network: nn.Module) -> None:
        self.finished = step == steps
        for number in range(1, self.count):
            if step == step_of(number, self.count, steps):
                write_file(_file(self.folder, number), serialised(network))


def _load(folder: Path) -> list[dict[str, Tensor]]:
    """The anchors' weights, verified against their passport, and it against the teacher's."""
    found = _read(folder)
    if found["teacher_sha256"] != read_passport(folder.parent)["sha256"]:
        raise UserError(f"{folder} holds the anchors of other weights than {folder.parent} does; delete {folder}")
    states = []
    for entry in found["anchors"]:
        file = folder / entry["file"]
        content = file.read_bytes() if file.is_file() else b""
        if _digest(content) != entry["sha256"]:
            raise UserError(f"{file} is {'altered' if content else 'missing'}; delete {folder} to create it again")
        states.append(load(content))
    return states


def _read(folder: Path) -> Mapping[str, Any]:
    file = folder / "passport.json"
    try:
        found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if found["schema"] > SCHEMA:
            raise UserError(f"{file} has version {found['schema']}; this version of the suite reads up to {SCHEMA}")
        [(entry["file"], entry["sha256"]) for entry in found["anchors"]], found["teacher_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file} is not a passport of anchors; delete {folder} to create it again") from None
    check_passport(found, file)
    return found


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:02d}.safetensors"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fix(folder: Path) -> str:
    return f"delete {folder} to retrain it with its anchors, or leave out such methods"
