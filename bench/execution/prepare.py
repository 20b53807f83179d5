"""What a trial needs before its method begins: data, teacher, anchors, student, pool."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.data import Dataset, Pool, Source, Split, demand_training_images, load_source
from bench.execution.progress import Progress
from bench.harness.pool import pool_of
from bench.harness.teachers.anchors import get_anchors
from bench.harness.teachers.cache import Teacher, get_teacher
from bench.harness.teachers.progress import TrainingProgress
from bench.models import build
from bench.models.taps import tap
from bench.spec.budget import Budget
from bench.spec.method import Access, Data, Method
from bench.spec.method_card import MethodCard
from bench.spec.method_loader import load_method
from bench.spec.task import TaskSpec, get_task
from bench.spec.trial import Trial
from bench.utils.determinism import only_deterministic
from bench.utils.memory_format import lay_out
from bench.utils.rng import derive, seed_everything


@dataclass(frozen=True)
class PreparedTrial:
    """A trial with everything in memory that it works on; nothing of it has run."""

    trial: Trial
    task: TaskSpec
    method: Method | MethodCard  # a card where the method runs in another process: what it declares is all one needs
    dataset: Dataset
    teachers: tuple[Teacher, ...]  # one, or the several of its task
    anchors: tuple[Mapping[str, Tensor], ...]  # the first teacher's earlier weights, where the method declares them
    student: nn.Module
    pool: Pool | None
    device: torch.device
    work: Path

    @property
    def budget(self) -> Budget:
        """As the method meets it: one that never asks the teacher is limited in student images instead."""
        limits = self.trial.limits
        return limits.for_blind_method() if self.method.access is Access.NONE else limits

    @property
    def teacher(self) -> Teacher:
        """The first one."""
        return self.teachers[0]

    @property
    def others(self) -> tuple[nn.Module, ...]:
        """The networks of the further teachers."""
        return tuple(teacher.network for teacher in self.teachers[1:])

    @property
    def classes(self) -> int:
        return len(self.dataset.classes)

    @property
    def real(self) -> Split | None:
        """The real images that the method declared: with labels, or in a pool with each image's place."""
        if self.method.data is Data.NONE:
            return None
        if self.pool is None:
            return self.dataset.train
        return Split(self.pool.images, torch.arange(len(self.pool.images)))

    def fresh_teacher(self, index: int = 0) -> nn.Module:
        """The architecture of one of the teachers with fresh weights."""
        return build(self.teachers[index].passport["network"], self.task.image, self.classes)


def prepare(
    trial: Trial,
    card: MethodCard,
    work: Path,
    data_folder: Path | None,
    report: Callable[[Progress], None],
    guard: Callable[[], None] = lambda: None,
    *,
    isolated: bool = False,
) -> PreparedTrial:
    """Load what the trial needs, train a teacher that is not cached, and seed the global random states.

    ``guard`` is called when all is there, just before the method's file is run. With ``isolated`` it is not run here.

    Raises:
        UserError: data, teacher, pool or method file is missing, damaged or does not fit. MissingData: there are no
            real training images, and the method needs them.
    """
    task = get_task(trial.task)
    report(Progress("loading"))
    dataset = _dataset(task.source, task.stored_size, data_folder, trial.altered_data)
    if card.data is Data.TRAIN:
        demand_training_images(dataset, task.source, card.name)
    _settle_torch(trial)
    device = torch.device(trial.device)

    def training(done: TrainingProgress) -> None:
        report(Progress(f"teacher {done.epoch:.1f}/{done.epochs}"))

    anchors = get_anchors(task, trial.teacher, dataset, card.anchors, training, device)
    teachers = tuple(get_teacher(task, key, dataset, training, device) for key in trial.teacher_keys)
    pool = None
    if card.data not in (Data.NONE, Data.TRAIN):
        pool = pool_of(trial.pool, trial.pool_path, task, data_folder, trial.altered_data)
    seed_everything(derive(trial.seed, "student"))
    student = build(task.student, task.image, len(dataset.classes))
    tap(student, f"task {task.name!r}, taps of the student", task.image.shape, task.places("student"))
    student = lay_out(student, trial.memory_format)
    for teacher in teachers:
        lay_out(teacher.network, trial.memory_format)
    method: Method | MethodCard = card
    if not isolated:
        guard()
        method = load_method(card)
    seed_everything(derive(trial.seed, "method"))
    return PreparedTrial(
        trial=trial,
        task=task,
        method=method,
        dataset=dataset,
        teachers=teachers,
        anchors=tuple(anchors),
        student=student,
        pool=pool,
        device=device,
        work=work,
    )


@lru_cache(maxsize=1)
def _dataset(source: Source, size: int, folder: Path | None, allow_altered: bool) -> Dataset:
    """The last data set stays in memory for the next trial of this process."""
    return load_source(source, size=size, folder=folder, allow_altered=allow_altered)


def _settle_torch(trial: Trial) -> None:
    torch.set_num_threads(trial.threads)
    only_deterministic(trial.deterministic)
    if trial.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = not trial.deterministic
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products need
