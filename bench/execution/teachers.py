"""The teachers that trials wait for: which of them are missing, and how one is trained. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import data
from bench.spec.method_registry import card_of
from bench.spec.task import NetworkTaps, TaskSpec, get_recipe, get_task
from bench.spec.teacher_key import known_teachers
from bench.spec.trial import Trial
from bench.utils.paths import anchor_folder, teacher_folder

if TYPE_CHECKING:
    from bench.harness.teachers.progress import Report


@dataclass(frozen=True)
class WantedTeacher:
    """A teacher that trials need: ``trial`` is one of them, ``anchors`` the numbers of anchors that methods want."""

    trial: Trial
    key: str
    anchors: tuple[int, ...] = ()

    @property
    def task(self) -> TaskSpec:
        return get_task(self.trial.task)

    @property
    def title(self) -> str:
        """For whoever watches: its task, and of several teachers which one."""
        keys, task = self.trial.teacher_keys, self.task
        if len(keys) == 1:
            return task.name
        place = keys.index(self.key)
        return f"{task.name}, number {place + 1} of {len(keys)} ({task.teachers[place].network})"

    @property
    def threads(self) -> int:
        """How many threads its training uses."""
        spec, _ = known_teachers(self.task)[self.key]
        return get_recipe(spec.recipe).threads


def wanted_teachers(trials: Iterable[Trial]) -> list[WantedTeacher]:
    """The teachers of each task once, however many trials need them; in the order of the trials.

    Anchors are wanted of a trial's first teacher alone.
    """
    first: dict[tuple[str, str], Trial] = {}
    anchors: dict[tuple[str, str], set[int]] = {}
    for trial in trials:
        for key in trial.teacher_keys:
            first.setdefault((trial.task, key), trial)
            anchors.setdefault((trial.task, key), set()).add(card_of(trial).anchors if key == trial.teacher else 0)
    return [WantedTeacher(trial, name[1], tuple(sorted(anchors[name] - {0}))) for name, trial in first.items()]


def missing_teachers(trials: Iterable[Trial]) -> list[WantedTeacher]:
    """Those that are not in the cache, or without some of their anchors; once, also where tasks share one."""
    missing: dict[str, WantedTeacher] = {}
    for wanted in wanted_teachers(trials):
        folders = [teacher_folder() / wanted.key, *(anchor_folder(wanted.key, count) for count in wanted.anchors)]
        if not all((folder / "passport.json").exists() for folder in folders):
            before = missing.get(wanted.key, wanted)
            anchors = tuple(sorted({*before.anchors, *wanted.anchors}))
            missing[wanted.key] = WantedTeacher(before.trial, before.key, anchors)
    return list(missing.values())


def check_teacher(wanted: WantedTeacher) -> None:
    """Verify a teacher in the cache, and the places that its task names in its networks.

    Raises:
        UserError: it is damaged, does not fit, or cannot be had, or there is no such place.
    """
    if wanted.task.taps != NetworkTaps():
        from bench.harness.teachers.cache import check_taps

        check_taps(wanted.task, wanted.task.classes)
    if not (teacher_folder() / wanted.key / "passport.json").exists() and wanted.key in known_teachers(wanted.task):
        return  # it will be trained, and torch is not needed to know this
    from bench.harness.teachers.anchors import check_anchors
    from bench.harness.teachers.cache import cached_teacher

    cached_teacher(wanted.task, wanted.key, wanted.task.classes)
    for count in wanted.anchors:
        check_anchors(wanted.key, count)


def train_teacher(wanted: WantedTeacher, data_folder: Path | None, device: str, report: Report) -> None:
    """Train a teacher, with its anchors, unless another process has done so meanwhile.

    Args:
        wanted: the teacher.
        data_folder: where to look for data sets first.
        device: where to train.
        report: told how training comes along.

    Raises:
        UserError: training diverged, cannot be repeated for the anchors, or data or files are in the way.
        Stopped: somebody asked; the training is saved, and the same call continues.
    """
    import torch

    from bench.harness.teachers.anchors import get_anchors
    from bench.harness.teachers.cache import get_teacher

    task = wanted.task
    altered = wanted.trial.altered_data
    dataset = data.load_source(task.source, size=task.stored_size, folder=data_folder, allow_altered=altered)
    for count in wanted.anchors:  # a missing teacher is trained here
        get_anchors(task, wanted.key, dataset, count, report, torch.device(device))
    get_teacher(task, wanted.key, dataset, report, torch.device(device))
