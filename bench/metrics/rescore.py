"""Image metrics of finished trials, computed later from the images that each trial kept; nothing is trained again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import MissingData, UserError
from bench.records import Record, trial_folders
from bench.records.archive import STUDENT
from bench.records.folder import check_beside, load_finished, replace_record
from bench.records.foreign import is_there, sha256_of
from bench.spec.custom_tasks import register_saved_tasks
from bench.spec.metric_names import needs_student
from bench.spec.task import TaskSpec, get_task
from bench.utils.text import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.data import Dataset
    from bench.harness.teachers.cache import Teacher

KEPT = "images.safetensors"
DONE = ("ok", "unreliable")


@dataclass(frozen=True)
class Wish:
    """What to measure, and how.

    ``images`` and ``real_images``: use so many synthetic and training images at most, evenly spread; None: all.
    ``again``: measure also what has a value already.
    """

    metrics: Sequence[str]
    weights: Path | None = None
    data_folder: Path | None = None
    images: int | None = None
    real_images: int | None = None
    device: str = "cpu"
    again: bool = False


@dataclass(frozen=True)
class Scored:
    """One trial: the metrics that were measured now, and ``reason`` why none could be; empty where all is well."""

    record: Record
    measured: tuple[str, ...]
    reason: str = ""


def score_trials(
    results: Path,
    wish: Wish,
    ids: Sequence[str] = (),
    told: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> Iterator[Scored]:
    """Measure image metrics of the trials of a results folder and write them into their records, one after the other.

    Args:
        results: a results folder that no run is using.
        wish: what to measure.
        ids: the trials; none: all successful ones.
        told: what is being done now, before it takes its time.

    Raises:
        UserError: a record is damaged or cannot be written. What stands in the way of one trial is in its ``Scored``.
    """
    register_saved_tasks(results)
    folders = [folder for folder in trial_folders(results) if not ids or folder.name in ids]
    records = [load_finished(folder) for folder in folders]
    shop = _Shop(wish)
    for record in sorted(
        records, key=lambda each: (each.trial.task, each.trial.teacher, each.trial.method, each.trial.seed)
    ):
        folder = results / "trials" / record.id  # which the record and the folder's name agree on
        names = [name for name in wish.metrics if wish.again or not _has(record, name)]
        if record.status != "ok":
            if ids:
                yield Scored(record, (), f"the trial has no images: it ended as {record.status}")
        elif not names:
            yield Scored(record, ())
        else:
            told(f"{record.id}: {record.trial.method} on {record.trial.task}, seed {record.trial.seed}")
            try:
                found = shop.measure(record, folder, names)
            except UserError as error:
                yield Scored(record, (), str(error))
                continue
            values = record.model_dump(mode="json", by_alias=True)
            values["image_metrics"] |= found
            record = Record.model_validate(values)
            replace_record(folder, record)
            yield Scored(record, tuple(names))


def _has(record: Record, name: str) -> bool:
    return name in record.image_metrics and record.image_metrics[name].status in DONE


class _Shop:
    """Keeps the last data set and teacher for the next trial."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._dataset: tuple[Any, Dataset] | None = None
        self._teacher: tuple[Any, Teacher] | None = None

    def measure(self, record: Record, folder: Path, names: Sequence[str]) -> dict[str, Any]:
        import torch

        from bench.data.images import evenly
        from bench.metrics.extractors import MetricContext
        from bench.metrics.scoring import score_images

        images = _kept_images(folder)
        task = get_task(record.trial.task)
        if task.sha != record.trial.task_sha:
            raise UserError(f"the task {task.name!r} is not the task of the trial: its definition has changed")
        dataset, device = self._data(task, record), torch.device(self._wish.device)
        teacher = self._teacher_of(task, record, dataset)
        around = MetricContext(
            task=task,
            teacher=teacher.network.to(device),
            teacher_sha=teacher.passport["sha256"],
            classes=len(dataset.classes),
            device=device,
            weights=self._wish.weights,
            student=_kept_student(record, folder, task, dataset, device) if any(map(needs_student, names)) else None,
        )
        chosen = evenly(images, self._wish.images or len(images))
        return score_images(names, chosen, dataset, around, self._wish.real_images)

    def _data(self, task: TaskSpec, record: Record) -> Dataset:
        from bench.data import load_source

        key = (task.source, task.stored_size, record.trial.altered_data)
        if self._dataset is None or self._dataset[0] != key:
            dataset = load_source(
                task.source,
                size=task.stored_size,
                folder=self._wish.data_folder,
                allow_altered=record.trial.altered_data,
            )
            self._dataset = (key, dataset)
        dataset = self._dataset[1]
        if dataset.fingerprint != record.provenance.get("data", {}).get("fingerprint", dataset.fingerprint):
            raise MissingData(f"the images of {task.data!r} here are not those of the trial")
        return dataset

    def _teacher_of(self, task: TaskSpec, record: Record, dataset: Dataset) -> Teacher:
        from bench.harness.teachers.cache import cached_teacher

        key = (task.name, record.trial.teacher)
        if self._teacher is None or self._teacher[0] != key:
            teacher = cached_teacher(task, record.trial.teacher, len(dataset.classes))
            if teacher is None:
                train = f"`dfkd teacher train {task.name}` trains it again"
                raise UserError(f"the trial's teacher {record.trial.teacher} is not in the cache; {train}")
            self._teacher = (key, teacher)
        teacher = self._teacher[1]
        if record.teacher is not None and teacher.passport["sha256"] != record.teacher.sha256:
            found, wanted = str(teacher.passport["sha256"])[:12], record.teacher.sha256[:12]
            raise UserError(f"the teacher {record.trial.teacher} here has sha256 {found}, the trial's had {wanted}")
        return teacher


def _kept_images(folder: Path) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / KEPT
    if not is_there(file):
        raise UserError(f"{file} is missing: the trial stored no images, or they were not published with its record")
    check_beside(folder, KEPT, sha256_of(file))
    try:
        images = load_file(file)["images"]
        if images.ndim != 4:
            raise KeyError(f"images of shape {tuple(images.shape)}")
    except (SafetensorError, KeyError, OSError) as error:
        raise UserError(f"{file} cannot be read as a trial's images: {shown(str(error))}") from None
    return images


def _kept_student(
    record: Record, folder: Path, task: TaskSpec, dataset: Dataset, device: torch.device
) -> nn.Module | None:
    """The student as the trial left it, laid out in memory as there, in evaluation mode; None where it kept none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from bench.models import build
    from bench.utils.memory_format import lay_out

    file = folder / STUDENT
    if not is_there(file):
        return None
    check_beside(folder, STUDENT, sha256_of(file))
    network = lay_out(build(task.student, task.image, len(dataset.classes)), record.trial.memory_format)
    try:
        network.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise UserError(f"{file} cannot be read as the trial's student: {shown(str(error))}") from None
    return network.to(device).eval().requires_grad_(False)
