"""What a trial that ended well leaves: its scores, what its images are like, and its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.artifacts import MAPPED_SHEET, SHEET, contact_sheet, evenly, save_images, save_student
from bench.curve import Curve
from bench.data import Dataset, Pool
from bench.desk import Desk
from bench.judge import Judge, answers
from bench.other_images import measured_names, pool_facts
from bench.real import middle
from bench.task import TaskSpec
from bench.teachers import Teacher
from bench.trial import Trial


@dataclass(frozen=True)
class Ended:
    """A trial whose method returned or spent its budget."""

    trial: Trial
    task: TaskSpec
    dataset: Dataset
    teacher: Teacher
    desk: Desk
    judge: Judge
    curve: Curve
    work: Path
    pool: Pool | None = None

    @property
    def images(self) -> torch.Tensor:
        """uint8 (N, C, H, W): an even sample of what the student was trained on; N may be 0."""
        images = self.desk.capture.training.column("images")
        return images if images is not None else torch.zeros(0, *self.task.image.shape, dtype=torch.uint8)


def judged(ended: Ended, weights: Path | None) -> dict[str, Any]:
    """The fields of the record that only such a trial has: scores, agreement, images and their metrics.

    Args:
        ended: the trial.
        weights: a folder or file to look in first for the weights of image metrics.
    """
    chosen = ended.curve.select(ended.trial.selection)
    headline = ended.trial.selection[0]
    if headline not in chosen:
        reason = f"the headline rule {headline!r} has nothing to choose by: the method trains without s.distill"
        return {"status": "crashed", "reason": reason}
    return {
        "scores": {rule: choice.score for rule, choice in chosen.items()},
        "test_metrics": chosen[headline].details,
        "agreement": chosen[headline].agreement,
        "images": {"count": len(ended.images), "clipped": ended.desk.capture.clipped},
        "image_metrics": _image_metrics(ended, weights, ended.trial.image_metrics, ended.images),
        "pool": None if ended.pool is None else _pool_facts(ended, weights, ended.pool),
    }


def _pool_facts(ended: Ended, weights: Path | None, pool: Pool) -> dict[str, Any]:
    size = ended.task.image.size
    test = middle(ended.dataset.test.images, size)
    names = measured_names(ended.trial.image_metrics)
    return pool_facts(ended.trial.pool, pool, test, lambda images: _image_metrics(ended, weights, names, images))


def _image_metrics(ended: Ended, weights: Path | None, names: Sequence[str], images: torch.Tensor) -> dict[str, Any]:
    if not names:
        return {}
    from bench.metrics.extractors import Surroundings
    from bench.metrics.scoring import score_images  # most trials measure none, and it is much to import

    around = Surroundings(
        task=ended.task,
        teacher=ended.teacher.network,
        teacher_sha=ended.teacher.passport["sha256"],
        classes=len(ended.dataset.classes),
        device=ended.desk.device,
        weights=weights,
    )
    return score_images(names, images, ended.dataset, around, ended.trial.real_images)


def artifacts(ended: Ended) -> dict[str, Path]:
    """The files beside the record, by name; written into the trial's work folder."""
    files = {"student.safetensors": save_student(ended.work, ended.desk.student)}
    if len(ended.images):
        files["images.png"] = _sheet(ended)
        steps = ended.desk.capture.training.steps()
        files["images.safetensors"] = save_images(ended.work, ended.images, steps)
    return files


def _sheet(ended: Ended) -> Path:
    """For segmentation with the teacher's map and the student's beside each image."""
    if not ended.dataset.dense:
        return contact_sheet(ended.work, evenly(ended.images, SHEET))
    chosen = evenly(ended.images, MAPPED_SHEET)
    pixels = chosen.to(ended.desk.device)
    maps = [
        answers(ended.teacher.network, pixels, ended.task.image),
        ended.judge.answers(ended.desk.student.state_dict(), pixels),
    ]
    return contact_sheet(ended.work, chosen, [each.cpu() for each in maps])
