"""Somebody's own teacher and a student: a study of one trial with sensible defaults, in a folder of its own.

:func:`plan_distillation` checks everything and writes ``task.yaml`` and ``study.yaml``, with which the user can go on;
:func:`collect` puts the student and its record beside them when the trial has ended.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import own_of
from bench.data.own_images import NONE, layout
from bench.errors import ImagesRefused, UserError, nearest, nearest_file, require_file
from bench.execution.plan import Plan, plan_study
from bench.records.folder import writing
from bench.spec.budget import UNITS, Budget
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods, get_card
from bench.spec.options import WHOLE, check_values
from bench.spec.presets import preset
from bench.spec.requirements import why_no_anchors, why_no_images, why_no_pool, why_unsupported
from bench.spec.task import TaskSpec, get_task
from bench.utils.hardware import choose_device
from bench.utils.stopping import seconds_of
from bench.utils.yaml import plain, read_yaml_text

if TYPE_CHECKING:
    from torch import nn

TASK, STUDY, RESULTS = "task.yaml", "study.yaml", "results"
STUDENT, RECORD, ONNX = "student.safetensors", "record.json", "student.onnx"
EXPORTER = ("onnx", "onnxscript")  # what torch's exporter imports
SMALL = ("digits/lenet5-half", "digits/lenet5bn-half")  # whose options for a small machine are taken
ANY_SIZE = "resnet18"  # takes images of any size
MEAN = STD = 0.5  # of a channel, where nobody says


@dataclass(frozen=True)
class DistillationWish:
    """What a user asks for; the fields are the options of ``dfkd distill``."""

    teacher: Path
    network: str
    student: str
    method: str
    budget: str
    images: Path | None = None
    classes: int | None = None
    size: int = 32
    channels: int = 1
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    seed: int = 0
    threads: int = 1
    options: Sequence[str] = ()  # of the method, as NAME=VALUE
    out: Path | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Distillation:
    """A distillation that can run: where it lies, its study's file and plan, and its task."""

    folder: Path
    file: Path
    plan: Plan
    task: TaskSpec

    @property
    def trial(self) -> Path:
        """The folder of the one trial."""
        return self.plan.results / "trials" / self.plan.trials[0].id


def parse_budget(text: str) -> dict[str, float]:
    """The limits of a budget: a time such as ``30m``, or limits as a study has them.

    >>> parse_budget("1h30m"), parse_budget("teacher_images=40_000, seconds=600")
    ({'seconds': 5400.0}, {'seconds': 600.0, 'teacher_images': 40000})

    Raises:
        UserError: it is neither, or a limit is not positive.
    """
    if "=" not in text:
        return Budget.parse(
            {"seconds": seconds_of(text, "--budget", f", or UNIT=NUMBER of {', '.join(UNITS)}")}
        ).limits()
    limits: dict[str, Any] = {}
    for part in text.split(","):
        unit, _, number = (each.strip() for each in part.partition("="))
        if unit not in UNITS:
            raise UserError(f"--budget {text}: unknown budget {unit!r}{nearest(unit, UNITS)}")
        try:
            value = float(number)
        except ValueError:
            raise UserError(f"--budget {text}: {unit} must be a positive number, not {number!r}") from None
        limits[unit] = int(value) if value.is_integer() else value
    return Budget.parse(limits).limits()


def plan_distillation(wanted: DistillationWish) -> Distillation:
    """Check what is asked for, import the teacher, and write the task and the study, or find them as they were written.

    Raises:
        UserError: something does not fit, or the folder holds something else; nothing was written then.
    """
    budget = parse_budget(wanted.budget)
    if wanted.seed >= WHOLE:
        raise UserError(f"--seed must be below {WHOLE:g}, not {wanted.seed}")
    device, _ = choose_device(wanted.device)
    files, card = _method(wanted.method)
    require_file(wanted.teacher, "checkpoint", ".pth")
    task = _task(wanted)
    folder = wanted.out or Path(f"distilled-{_plain(wanted.teacher.stem)}-{_plain(wanted.student)}-{card.name}")
    small = _small(card, wanted, task) if device == "cpu" else {}
    task = task.model_copy(update={"settings": {"small": {card.name: small}} if small else {}})
    options = _options(card, wanted)
    _check_method(card, task, wanted, options)
    key = _imported(task, wanted.teacher)
    texts = {
        TASK: _task_text(task, wanted),
        STUDY: _study_text(task, card, key, budget, options, wanted, folder, files),
    }
    _write(folder, texts)
    plan = plan_study(folder / STUDY, results=folder / RESULTS, device=wanted.device)
    return Distillation(folder, folder / STUDY, plan, task)


def collect(found: Distillation) -> str:
    """Put the student and the record of the finished trial into the folder, with the student as ONNX where that can be.

    Returns:
        Why there is no ONNX file, in one sentence; empty where there is one.
    """
    with writing(found.folder):
        for name in (STUDENT, RECORD):
            write_whole(found.folder / name, (found.trial / name).read_bytes())
    if lacking := [name for name in EXPORTER if importlib.util.find_spec(name) is None]:
        return (
            f"{ONNX} was not written: torch's exporter needs {' and '.join(lacking)} (pip install 'dfkd-bench[onnx]'); "
            "the same command then writes it"
        )
    return _export(found)


def _task(wanted: DistillationWish) -> TaskSpec:
    """The task, with the number of classes found out; its networks have been built."""
    channels = wanted.channels
    image: dict[str, Any] = {
        "channels": channels,
        "size": wanted.size,
        "mean": list(wanted.mean or [MEAN] * channels),
        "std": list(wanted.std or [STD] * channels),
    }
    for option, numbers in (("--mean", wanted.mean), ("--std", wanted.std)):
        if numbers and len(numbers) != channels:
            raise UserError(f"{option} has {len(numbers)} numbers, and the images have --channels {channels}")
    data: dict[str, Any] = {"images": NONE if wanted.images is None else str(wanted.images.absolute())}
    if wanted.classes is not None:
        data["classes"] = wanted.classes
    elif wanted.images is None or not layout(wanted.images.absolute()).classes:
        data["classes"] = _classes(wanted, image)
    own = own_of(data, Path())
    values: dict[str, Any] = {
        "name": f"{_plain(wanted.teacher.stem)}/{_plain(wanted.student)}",
        "data": own.name,
        "own": own.model_dump(),
        "image": image,
        "teacher": {"network": wanted.network},
        "student": wanted.student,
    }
    try:
        return TaskSpec.model_validate(values)
    except ValueError as error:
        from bench.spec.custom_tasks import first_mistake

        raise UserError(first_mistake(error).replace("Value error, ", "").removeprefix(": ")) from None


def _classes(wanted: DistillationWish, image: Mapping[str, Any]) -> int:
    """How many classes the teacher tells apart, by the shapes of its weights."""
    from bench.data.image_spec import ImageSpec
    from bench.models import build, check_name
    from bench.models.loading import classes_of_weights, read_checkpoint

    check_name(wanted.network)
    weights, _ = read_checkpoint(wanted.teacher)
    try:
        spec = ImageSpec.model_validate(image)
    except ValueError:
        raise UserError("--std must be above 0, and all numbers of --mean and --std finite") from None
    with _explained(wanted.network):
        found = classes_of_weights(lambda count: build(wanted.network, spec, count), weights)
    if found is None:
        raise UserError(f"{wanted.teacher} does not tell how many classes {wanted.network} has; say it with --classes")
    return found


def _method(name: str) -> tuple[list[Path], MethodCard]:
    """The method of a name, or the one of a file; the files beside the built-in ones."""
    if not name.endswith(".py"):
        cards = find_methods()
        if name not in cards and (hint := nearest_file(name, ".py")):
            raise UserError(f"unknown method {name!r}{hint}")
        return [], get_card(name, cards)
    file = Path(name).resolve()
    found = [card for card in find_methods([file]).values() if card.file == file]
    if len(found) != 1:
        names = ", ".join(card.name for card in found) or "none"
        raise UserError(f"{name} must declare one method, and has {names}; a study of several runs with `dfkd run`")
    return [file], found[0]


def _small(card: MethodCard, wanted: DistillationWish, task: TaskSpec) -> Mapping[str, Any]:
    """The method's options for a small machine, of the digits' task with a teacher of the same kind."""
    like = get_task(SMALL[_has_batch_norm(wanted.network, task)])
    return like.settings["small"].get(card.name, {})


def _options(card: MethodCard, wanted: DistillationWish) -> dict[str, Any]:
    """The options of the method that the user states, checked."""
    found: dict[str, Any] = {}
    for text in wanted.options:
        name, sign, value = (each.strip() for each in text.partition("="))
        if not (name and sign and value):
            raise UserError(f"--set {text}: write NAME=VALUE, an option of {card.name}")
        if name in found:
            raise UserError(f"--set {text}: the option {name!r} is set twice")
        found[name] = plain(read_yaml_text(value, Path(f"--set {text}")))
    check_values(card.specs, found, card.name)
    return found


def _check_method(card: MethodCard, task: TaskSpec, wanted: DistillationWish, stated: Mapping[str, Any]) -> None:
    options = {**preset(card, task, "small"), **stated}
    has = _has_batch_norm(wanted.network, task)
    reason = why_no_images(card, task) or why_unsupported(card, task, options, has)
    reason = reason or why_no_pool(card, task, "") or why_no_anchors(card, task, "imported")
    if reason:
        raise UserError(reason)


def _has_batch_norm(network: str, task: TaskSpec) -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return any(isinstance(module, _BatchNorm) for module in _built(network, task).modules())


def _built(network: str, task: TaskSpec) -> nn.Module:
    import torch

    from bench.models import build

    with torch.random.fork_rng(devices=[]), _explained(network):
        return build(network, task.image, task.classes)


@contextlib.contextmanager
def _explained(network: str) -> Iterator[None]:
    """Say what to do about images that a network does not take."""
    from bench.models import NETWORKS

    try:
        yield
    except ImagesRefused as error:
        other = f", and {ANY_SIZE} takes images of any size" if network in NETWORKS and network != ANY_SIZE else ""
        raise UserError(f"{error}; --channels and --size say what images there are{other}") from error


def _imported(task: TaskSpec, file: Path) -> str:
    """The key of the teacher, which is imported unless it has been; the student is built to see that it fits."""
    from bench.data import load_source
    from bench.harness.teachers.cache import cached_teacher, import_key, import_teacher
    from bench.records.foreign import sha256_of
    from bench.utils.paths import teacher_folder

    _built(task.student, task)
    key = import_key(task, sha256_of(file))
    if (teacher_folder() / key / "passport.json").exists():
        cached_teacher(task, key, task.classes)
        return key
    return import_teacher(task, file, load_source(task.source, size=task.stored_size)).name


def _task_text(task: TaskSpec, wanted: DistillationWish) -> str:
    assert task.own is not None
    data: dict[str, Any] = {"images": task.own.images}
    if not (task.own.labelled or task.own.train):
        data["classes"] = task.classes
    rows = {
        "name": task.name,
        "data": data,
        "image": task.image.model_dump(mode="json"),
        "teacher": {"network": wanted.network},
        "student": wanted.student,
    }
    lines = [f"{'- ' if name == 'name' else '  '}{name}: {json.dumps(value)}" for name, value in rows.items()]
    if task.settings:
        lines.append(f"  settings: {json.dumps(task.settings)}  # a small machine's, of the digits' tasks")
    return "\n".join(['# Written by `dfkd distill`. Every key: docs/studies.md, "Your own task".', *lines, ""])


def _study_text(
    task: TaskSpec,
    card: MethodCard,
    key: str,
    budget: Mapping[str, float],
    options: Mapping[str, Any],
    wanted: DistillationWish,
    folder: Path,
    files: Sequence[Path],
) -> str:
    method = os.path.relpath(files[0], folder.resolve()) if files else card.name
    rows = {
        "name": _plain(task.name),
        "tasks": [TASK],
        "methods": [{method: dict(options)} if options else method],
        "seeds": [wanted.seed],
        "budget": dict(budget),
        "teachers": {task.name: key},
        "settings": "small" if task.settings else "paper",
        "threads": wanted.threads,
    }
    head = "# Written by `dfkd distill`: a study of one trial. Every key: docs/studies.md. `dfkd run` goes on with it."
    return "\n".join([head, *(f"{name}: {json.dumps(value)}" for name, value in rows.items()), ""])


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files into a new folder; where they are there already, they must say the same.

    Raises:
        UserError: they do not, or the folder holds something else.
    """
    there = [name for name in texts if (folder / name).is_file()]
    if not there and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no folder of `dfkd distill`; choose another --out")
    for name in there:
        if (said := (folder / name).read_text(encoding="utf-8")) != texts[name]:
            pairs = zip(texts[name].splitlines(), said.splitlines(), strict=False)
            differing = next((other for own, other in pairs if own != other), "")
            raise UserError(
                f"{folder / name} says something else than this command ({differing.strip()[:100]!r}): go on with it "
                "by `dfkd run`, or choose another --out"
            )
    with writing(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
        for name in texts.keys() - set(there):
            write_whole(folder / name, texts[name].encode())


def write_whole(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _export(found: Distillation) -> str:
    """The student as ONNX: ``images``, float32 (N, C, H, W), normalised, to ``logits`` (N, classes)."""
    import torch
    from safetensors.torch import load_file

    task = found.task
    network = _built(task.student, task).eval()
    network.load_state_dict(load_file(found.folder / STUDENT))
    part = found.folder / f".{ONNX}.part"
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (torch.zeros(2, *task.image.shape),),
                part,
                input_names=["images"],
                output_names=["logits"],
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
            )
        part.replace(found.folder / ONNX)
    except Exception as error:  # many kinds; the student is there all the same
        return f"{ONNX} was not written: torch's exporter fails with {type(error).__name__}: {error}".splitlines()[0]
    finally:
        part.unlink(missing_ok=True)
    return ""


def _plain(name: str) -> str:
    """A part of a name of a task, study or folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "own"
