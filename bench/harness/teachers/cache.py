"""Teachers: trained once from a named recipe or imported, cached as safetensors with a passport."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from bench.data import Dataset, demand_training_images
from bench.errors import Diverged, UserError, nearest
from bench.harness.evaluation import answers, score_network
from bench.harness.teachers.passport import SCHEMA, passport_text, passports, read_passport
from bench.harness.teachers.progress import Report, TrainingProgress
from bench.harness.teachers.training import Watch, has_bfloat16, train
from bench.models import build
from bench.models.loading import check_values, fit, match_names, read_checkpoint, read_weights
from bench.models.taps import tap
from bench.records.comparable import SYNTHETIC_AGREEMENT
from bench.spec.task import TaskSpec, TeacherSpec, get_recipe
from bench.spec.teacher_key import folder_name, known_teachers, teacher_key
from bench.utils.locks import waiting_for
from bench.utils.paths import teacher_folder
from bench.utils.provenance import provenance

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Teacher:
    """A frozen network and its passport: key, network, recipe, seed, test score, sha256 of the weights file."""

    network: nn.Module
    passport: Mapping[str, Any]


def silent(progress: TrainingProgress) -> None:
    """Reports nothing about a training."""
    del progress


def get_teacher(
    task: TaskSpec, key: str, dataset: Dataset, report: Report = silent, device: torch.device = CPU
) -> Teacher:
    """The teacher of a task by key: from the cache, or trained now when the key is that of one of the task's recipes.

    Args:
        task: says network, classes and geometry.
        key: one of ``known_teachers(task)``, or the key of an imported or otherwise trained teacher.
        dataset: its training images train the teacher, its test images score it.
        report: told how training comes along.
        device: where to train.

    Raises:
        UserError: the key is unknown, or the cached file is damaged or does not fit.
    """
    classes = len(dataset.classes)
    teacher = cached_teacher(task, key, classes)
    if teacher is None:
        spec, altered = known_teachers(task)[key]
        teacher = load_teacher(train_teacher(task, spec, dataset, report, altered, device), task, classes)
    return teacher


def check_taps(task: TaskSpec, classes: int) -> None:
    """Try the places that a task names in its networks, before anything is trained.

    Raises:
        UserError: as :func:`bench.models.taps.tap`.
    """
    for name, where, places in (  # several teachers with taps have one network
        (task.teacher.network, "teacher", task.places("teacher")),
        (task.student, "student", task.places("student")),
    ):
        if any(places.values()):
            with torch.random.fork_rng(devices=[]):
                network = build(name, task.image, classes)
            tap(network, f"task {task.name!r}, taps of the {where}", task.image.shape, places)


def cached_teacher(task: TaskSpec, key: str, classes: int) -> Teacher | None:
    """The teacher of a key, loaded and verified; None when it can be trained and has not been yet.

    Raises:
        UserError: the key is unknown, or the cached file is damaged or does not fit.
    """
    folder = teacher_folder() / key
    if (folder / "passport.json").exists():
        return load_teacher(folder, task, classes)
    if key not in known_teachers(task):
        raise UserError(f"no teacher {key!r} in {teacher_folder()}{nearest(key, [p['key'] for p in passports()])}")
    return None


def train_teacher(
    task: TaskSpec,
    spec: TeacherSpec,
    dataset: Dataset,
    report: Report = silent,
    altered_data: bool = False,
    device: torch.device = CPU,
    backbone: Path | None = None,
    watch: Watch = lambda step, steps, network: None,  # noqa: ARG005
    work: Path | None = None,
) -> Path:
    """Train and cache a teacher, unless it is there; returns its folder. One process trains, others wait for it.

    An interrupted training resumes from its last checkpoint.

    Args:
        task: says data set, classes and geometry.
        spec: network, recipe and seed.
        dataset: its training images train the teacher, its test images score it.
        report: called with the progress.
        altered_data: whether files other than the official ones were allowed; part of the key.
        device: where to train.
        backbone: a checkpoint of an ImageNet network for the teacher's backbone; part of the key.
        watch: see :func:`bench.harness.teachers.training.train`.
        work: a folder for checkpoints, where they must not be those of a training that was watched otherwise.

    Raises:
        UserError: the recipe is unknown, the backbone does not fit, there are no training images, or training diverged.
    """
    dataset = dataset.home or dataset
    key = teacher_key(task, spec, altered_data)
    demand_training_images(dataset, task.source, f"training a teacher of {task.name}")
    extra: dict[str, Any] = {}
    prepare: Callable[[nn.Module], None] = lambda network: None  # noqa: E731, ARG005
    if backbone is not None:
        from bench.models.deeplab import load_backbone  # torchvision takes a second to import

        weights = read_weights(backbone)
        digest = hashlib.sha256(backbone.read_bytes()).hexdigest()
        extra = {"backbone": backbone.name, "backbone_sha256": digest}
        key += f"-backbone-{digest[:12]}"
        prepare = lambda network: load_backbone(network, weights, backbone)  # noqa: E731
    folder = teacher_folder() / key
    make_folder(teacher_folder())
    with waiting_for(teacher_folder() / f".{key}.lock"):
        if (folder / "passport.json").exists():
            return folder
        work = work or teacher_folder() / f".{key}.work"
        try:
            network, seconds = train(
                task, spec, dataset, work, key=key, device=device, report=report, prepare=prepare, watch=watch
            )
        except Diverged as error:
            raise UserError(f"recipe {spec.recipe!r} on {task.name}: {error}; lower its learning rate") from None
        passport = {
            "recipe": spec.recipe,
            "recipe_content": get_recipe(spec.recipe).identity,
            "seed": spec.seed,
            "seconds": round(seconds, 1),
            "precision": "bfloat16" if get_recipe(spec.recipe).mixed and has_bfloat16(device) else "float32",
            **extra,
        }
        made_on = provenance(
            threads=get_recipe(spec.recipe).threads, deterministic=device.type == "cpu", device=str(device)
        )
        return _store(folder, task, spec.network, network, dataset, passport, made_on)


def import_teacher(task: TaskSpec, file: Path, dataset: Dataset, network_name: str = "") -> Path:
    """Cache one's own checkpoint as a teacher of a task; returns its folder.

    Args:
        task: its teacher's network is what the weights must fit.
        file: safetensors, or a torch file holding a state_dict; see :func:`bench.models.loading.read_checkpoint`.
            Prefixes of its names and profilers' buffers are seen to; the passport says what was done.
        dataset: scores it; the score goes into the passport.
        network_name: of one of the task's teachers; by default the first.

    Raises:
        UserError: the file cannot be read, names or shapes of its tensors do not fit the network, values are not those
            of a trained network, or it answers at chance on the test images.
    """
    dataset = dataset.home or dataset
    weights, done = read_checkpoint(file)
    network_name = network_name or task.teacher.network
    network = build(network_name, task.image, len(dataset.classes)).eval()
    weights, renamed = match_names(network, weights)
    fit(network, weights, file)
    check_values(weights, file)
    _check_answers(network, dataset, task, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    passport = {
        "recipe": "imported",
        "imported_from": file.name,
        "imported_sha256": digest,
        "imported_changes": [*done, *renamed],
        "seed": None,
    }
    make_folder(teacher_folder())
    key = import_key(task, digest, network_name)
    with waiting_for(teacher_folder() / f".{key}.lock"):
        made_on = provenance(threads=1, deterministic=True)
        return _store(teacher_folder() / key, task, network_name, network, dataset, passport, made_on)


def import_key(task: TaskSpec, digest: str, network_name: str = "") -> str:
    """The key of an imported teacher, by default of the task's first; ``digest`` is the sha256 of its file.

    On a user's own images the geometry and the normalisation are a part of it: they are found out by trying.
    """
    name = folder_name(network_name or task.teacher.network)
    key = f"{name}-{folder_name(task.data)}-import-{digest[:12]}"
    if task.own is None:
        return key
    image = hashlib.sha256(task.image.model_dump_json().encode()).hexdigest()
    return f"{key}-{image[:6]}"


def _check_answers(network: nn.Module, dataset: Dataset, task: TaskSpec, file: Path) -> None:
    """Refuse a network whose answers on the test images are all the same, or no better than chance.

    On made images a trained network may well give one answer: there nothing is refused.
    """
    if task.metric == SYNTHETIC_AGREEMENT:
        return
    found = answers(network, dataset.test.images, task.image)
    classes = len(dataset.classes)
    if len(given := found.unique()) == 1:
        said = f"all of them are {dataset.classes[int(given)]!r}"
    elif found.ndim == 1 and dataset.labelled:
        share, chance = (found == dataset.test.labels).double().mean().item(), 1 / classes
        spread = (chance * (1 - chance) / len(found)) ** 0.5
        if share > min(chance + 3 * spread, (1 + chance) / 2):  # of few images, nobody is so far above chance
            return
        said = f"{100 * share:.1f} % are right, chance is {100 * chance:.1f} %"
    else:
        return
    raise UserError(
        f"{file}: of its answers on the {len(dataset.test.labels)} test images of {task.data}, {said}: other classes "
        f"or another order of them, another normalisation than the task's (mean {_numbers(task.image.mean)}, std "
        f"{_numbers(task.image.std)}), or not trained"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


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
        raise UserError(
            f"teacher {passport['key']!r} expects images of another size or normalisation than {task.name!r}"
        )
    network = build(str(passport["network"]), task.image, classes)
    fit(network, load_file(file), file)
    tap(network, f"task {task.name!r}, taps of the teacher", task.image.shape, task.places("teacher"))
    return Teacher(network.eval().requires_grad_(False), passport)


def _store(
    folder: Path,
    task: TaskSpec,
    network_name: str,
    network: nn.Module,
    dataset: Dataset,
    extra: Mapping[str, Any],
    made_on: Mapping[str, Any],
) -> Path:
    score: float = 1.0  # without labels a score is agreement with this very network
    details: dict[str, float | None] = {}
    if dataset.labelled:
        score, details = score_network(network, dataset.test, task.image, dataset.classes)
    content = serialised(network)
    passport = {
        "schema": SCHEMA,
        "key": folder.name,
        "network": network_name,
        "data": task.data,
        "image": task.image.model_dump(mode="json"),
        "classes": len(dataset.classes),
        "sha256": hashlib.sha256(content).hexdigest(),
        "metric": task.metric,
        "score": score,
        "test_metrics": details,
        "data_fingerprint": dataset.fingerprint,
        **extra,
        "provenance": dict(made_on),
    }
    make_folder(folder)
    write_file(folder / "weights.safetensors", content)
    write_file(folder / "passport.json", passport_text(passport))  # last: a folder with it is whole
    return folder


def make_folder(folder: Path) -> None:
    """Make a folder among the teachers; UserError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write teachers to {folder}: {error.strerror}; set DFKD_CACHE to another folder"
        ) from None


def serialised(network: nn.Module) -> bytes:
    """A network's parameters and buffers as a safetensors file."""
    return save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()})


def write_file(file: Path, content: bytes) -> None:
    """Write a file of a teacher, whole or not at all; UserError where that is not possible."""
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
