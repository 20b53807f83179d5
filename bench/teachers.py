"""Teachers: trained once from a named recipe or imported, cached as safetensors with a passport."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from bench.data import Dataset
from bench.errors import UserError, nearest
from bench.judge import accuracy
from bench.models import build
from bench.passports import SCHEMA, passports, read_passport
from bench.paths import teacher_folder
from bench.provenance import provenance
from bench.real import RealImages
from bench.streams import derive, seed_everything
from bench.task import Recipe, TaskSpec, TeacherSpec, get_recipe
from bench.teacher_key import teacher_key


@dataclass(frozen=True)
class Teacher:
    """A frozen network and its passport: key, network, recipe, seed, test score, sha256 of the weights file."""

    network: nn.Module
    passport: Mapping[str, Any]


def get_teacher(
    task: TaskSpec,
    key: str,
    dataset: Dataset,
    progress: Callable[[int, int], None] | None = None,
) -> Teacher:
    """The teacher of a task by key: from the cache, or trained now when the key is that of the task's own recipe.

    Args:
        task: says network, classes and geometry.
        key: ``teacher_key(task)``, or the key of an imported or otherwise trained teacher.
        dataset: its training images train the teacher, its test images score it.
        progress: called with (epochs done, epochs in all).

    Raises:
        UserError: the key is unknown, or the cached file is damaged or does not fit.
    """
    classes = len(dataset.classes)
    teacher = cached_teacher(task, key, classes)
    if teacher is None:
        altered = key == teacher_key(task, altered_data=True)
        teacher = load_teacher(train_teacher(task, task.teacher, dataset, progress, altered), task, classes)
    return teacher


def cached_teacher(task: TaskSpec, key: str, classes: int) -> Teacher | None:
    """The teacher of a key, loaded and verified; None when it is the task's own and has not been trained yet.

    Raises:
        UserError: the key is unknown, or the cached file is damaged or does not fit.
    """
    folder = teacher_folder() / key
    if (folder / "passport.json").exists():
        return load_teacher(folder, task, classes)
    if key not in (teacher_key(task), teacher_key(task, altered_data=True)):
        raise UserError(f"no teacher {key!r} in {teacher_folder()}{nearest(key, [p['key'] for p in passports()])}")
    return None


def train_teacher(
    task: TaskSpec,
    spec: TeacherSpec,
    dataset: Dataset,
    progress: Callable[[int, int], None] | None = None,
    altered_data: bool = False,
) -> Path:
    """Train and cache a teacher, unless it is there; returns its folder. One process trains, others wait for it."""
    key = teacher_key(task, spec, altered_data)
    folder = teacher_folder() / key
    _make(teacher_folder())
    with FileLock(str(teacher_folder() / f".{key}.lock")):
        if (folder / "passport.json").exists():
            return folder
        started = time.perf_counter()
        network = _train(task, spec, dataset, progress)
        passport = {
            "recipe": spec.recipe,
            "recipe_content": get_recipe(spec.recipe).model_dump(mode="json"),
            "seed": spec.seed,
            "seconds": round(time.perf_counter() - started, 1),
        }
        return _store(folder, task, spec.network, network, dataset, passport)


def _train(
    task: TaskSpec, spec: TeacherSpec, dataset: Dataset, progress: Callable[[int, int], None] | None
) -> nn.Module:
    recipe = get_recipe(spec.recipe)
    with _isolated(derive(spec.seed, "teacher", task.data)):
        network = build(spec.network, task.image, len(dataset.classes)).train()
        images = RealImages(dataset.train, task.image, spec.seed, torch.device("cpu"))
        optimizer = _optimizer(recipe, network)
        steps = -(-len(dataset.train.labels) // recipe.batch)
        scheduler = _scheduler(recipe, optimizer, steps)
        for epoch in range(recipe.epochs):
            for _ in range(steps):
                batch, labels = images.take(recipe.batch)
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(network(batch), labels).backward()
                optimizer.step()
                scheduler.step()
            if progress:
                progress(epoch + 1, recipe.epochs)
    return network.eval()


def _optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    if recipe.optimizer == "adam":
        return Adam(network.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    return SGD(network.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _scheduler(recipe: Recipe, optimizer: Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * steps)
    milestones = [epoch * steps for epoch in recipe.milestones] if recipe.schedule == "milestones" else []
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)


@contextlib.contextmanager
def _isolated(seed: int) -> Iterator[None]:
    """Seeded, deterministic and on one thread, so that every machine of one kind gets the same bytes."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        seed_everything(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def import_teacher(task: TaskSpec, file: Path, dataset: Dataset) -> Path:
    """Cache one's own checkpoint as a teacher of a task; returns its folder.

    Args:
        task: its teacher's network is what the weights must fit.
        file: safetensors, or a torch file holding a state_dict (alone or under "state_dict" or "model").
        dataset: scores it; the score goes into the passport.

    Raises:
        UserError: the file cannot be read, or names or shapes of its tensors do not fit the network.
    """
    weights = _read_weights(file)
    network = build(task.teacher.network, task.image, len(dataset.classes)).eval()
    _fit(network, weights, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    passport = {"recipe": "imported", "imported_from": file.name, "imported_sha256": digest, "seed": None}
    _make(teacher_folder())
    key = f"{task.teacher.network}-{task.data}-import-{digest[:12]}"
    with FileLock(str(teacher_folder() / f".{key}.lock")):
        return _store(teacher_folder() / key, task, task.teacher.network, network, dataset, passport)


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise UserError(f"no such checkpoint: {file}")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is not a whole safetensors file: {error}") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # many kinds, all meaning that this file cannot be used; torch's advice would be to trust it
        hint = "save the network's state_dict() with torch.save or as safetensors"
        raise UserError(f"{file} cannot be read as a checkpoint of plain tensors; {hint}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{file} holds no state_dict (names and tensors)")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _fit(network: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    wanted = network.state_dict()
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or extra:
        parts = [
            f"missing {', '.join(missing[:4])}" if missing else "",
            f"not known {', '.join(extra[:4])}" if extra else "",
        ]
        raise UserError(f"{file} does not fit {type(network).__name__}: {'; '.join(part for part in parts if part)}")
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, the network needs {tuple(wanted[name].shape)}"
            raise UserError(f"{file} does not fit {type(network).__name__}: {name} has shape {shapes}")
    network.load_state_dict(dict(weights))


def load_teacher(folder: Path, task: TaskSpec, classes: int) -> Teacher:
    """Load and verify a cached teacher.

    Raises:
        UserError: the weights' hash is not the passport's, or they do not fit the task.
    """
    passport = read_passport(folder)
    file = folder / "weights.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"
    if digest != passport["sha256"]:
        raise UserError(
            f"{file}: the weights' sha256 is {digest[:12]}, the passport says {str(passport['sha256'])[:12]}; "
            f"delete {folder} and train or import the teacher again"
        )
    if passport["data"] != task.data:
        raise UserError(f"teacher {passport['key']!r} was made for {passport['data']!r}, the task uses {task.data!r}")
    if passport["image"] != task.image.model_dump(mode="json"):
        raise UserError(f"teacher {passport['key']!r} takes images of another size or normalisation than {task.name!r}")
    network = build(str(passport["network"]), task.image, classes)
    _fit(network, load_file(file), file)
    return Teacher(network.eval().requires_grad_(False), passport)


def _store(
    folder: Path, task: TaskSpec, network_name: str, network: nn.Module, dataset: Dataset, extra: Mapping[str, Any]
) -> Path:
    content = save({name: value.contiguous() for name, value in network.state_dict().items()})
    passport = {
        "schema": SCHEMA,
        "key": folder.name,
        "network": network_name,
        "data": task.data,
        "image": task.image.model_dump(mode="json"),
        "classes": len(dataset.classes),
        "sha256": hashlib.sha256(content).hexdigest(),
        "score": accuracy(network, dataset.test, task.image),
        "data_fingerprint": dataset.fingerprint,
        **extra,
        "provenance": provenance(threads=1, deterministic=True),
    }
    _make(folder)
    _write(folder / "weights.safetensors", content)
    _write(folder / "passport.json", json.dumps(passport, indent=1).encode())  # last: a folder with it is whole
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write teachers to {folder}: {error.strerror}; set DFKD_CACHE to another folder"
        ) from None


def _write(file: Path, content: bytes) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {file}: {error.strerror}") from None


def weights_hash(network: nn.Module) -> str:
    """sha256 over names and bytes of a network's parameters and buffers."""
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
