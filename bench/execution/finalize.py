"""What a trial that ended well leaves: its scores, what its images are like, and its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.data import Pool
from bench.data.batches import middle
from bench.data.images import evenly
from bench.execution.artifacts import MAPPED_SHEET, SHEET, contact_sheet, save_images, save_student
from bench.execution.prepare import PreparedTrial
from bench.harness.evaluation import Judge, answers
from bench.harness.isolation.judge_side import JudgeSide
from bench.harness.learning_curve import Curve
from bench.harness.pool import measured_names, pool_facts
from bench.harness.trial_context import TrialContext
from bench.spec.metric_names import needs_student


@dataclass(frozen=True)
class FinishedTrial:
    """A trial whose method returned or spent its budget."""

    prepared: PreparedTrial
    context: TrialContext | JudgeSide
    judge: Judge
    curve: Curve

    @property
    def images(self) -> torch.Tensor:
        """uint8 (N, C, H, W): an even sample of what the student was trained on; N may be 0."""
        images = self.context.capture.training.column("images")
        return images if images is not None else torch.zeros(0, *self.prepared.task.image.shape, dtype=torch.uint8)


def judged(ended: FinishedTrial, weights: Path | None) -> dict[str, Any]:
    """The fields of the record that only such a trial has: scores, agreement, images and their metrics.

    Args:
        ended: the trial.
        weights: a folder or file to look in first for the weights of image metrics.
    """
    chosen = ended.curve.select(ended.prepared.trial.selection)
    headline = ended.prepared.trial.selection[0]
    if headline not in chosen:
        trains = "train with s.distill or s.student_step"
        reason = f"the headline rule {headline!r} has nothing to choose by: the method does not {trains}"
        return {"status": "crashed", "reason": reason}
    return {
        "scores": {rule: choice.score for rule, choice in chosen.items()},
        "test_metrics": chosen[headline].details,
        "agreement": chosen[headline].agreement,
        "images": {
            "count": len(ended.images),
            "clipped": ended.context.capture.clipped,
            "different": len({image.numpy().tobytes() for image in ended.images}),
        },
        "image_metrics": _image_metrics(ended, weights, ended.prepared.trial.image_metrics, ended.images),
        "pool": None if ended.prepared.pool is None else _pool_facts(ended, weights, ended.prepared.pool),
    }


def _pool_facts(ended: FinishedTrial, weights: Path | None, pool: Pool) -> dict[str, Any]:
    size = ended.prepared.task.image.size
    test = middle(ended.prepared.dataset.test.images, size)
    names = measured_names(ended.prepared.trial.image_metrics)
    return pool_facts(
        ended.prepared.trial.pool, pool, test, lambda images: _image_metrics(ended, weights, names, images)
    )


def _image_metrics(
    ended: FinishedTrial, weights: Path | None, names: Sequence[str], images: torch.Tensor
) -> dict[str, Any]:
    if not names:
        return {}
    from bench.metrics.extractors import MetricContext
    from bench.metrics.scoring import score_images  # most trials measure none, and it is much to import

    around = MetricContext(
        task=ended.prepared.task,
        teacher=ended.prepared.teacher.network,
        teacher_sha=ended.prepared.teacher.passport["sha256"],
        classes=len(ended.prepared.dataset.classes),
        device=ended.context.device,
        weights=weights,
        student=ended.judge.network(ended.curve.weights) if any(map(needs_student, names)) else None,
    )
    return score_images(names, images, ended.prepared.dataset, around, ended.prepared.trial.real_images)


def artifacts(ended: FinishedTrial) -> dict[str, Path]:
    """The files beside the record, by name; written into the trial's work folder."""
    files = {"student.safetensors": save_student(ended.prepared.work, ended.curve.weights)}
    if len(ended.images):
        files["images.png"] = _sheet(ended)
        steps = ended.context.capture.training.steps()
        files["images.safetensors"] = save_images(ended.prepared.work, ended.images, steps)
    return files


def _sheet(ended: FinishedTrial) -> Path:
    """For segmentation with the teacher's map and the student's beside each image."""
    if not ended.prepared.dataset.dense:
        return contact_sheet(ended.prepared.work, evenly(ended.images, SHEET))
    chosen = evenly(ended.images, MAPPED_SHEET)
    pixels = chosen.to(ended.context.device)
    maps = [
        answers(ended.prepared.teacher.network, pixels, ended.prepared.task.image),
        ended.judge.answers(ended.curve.weights, pixels),
    ]
    return contact_sheet(ended.prepared.work, chosen, [each.cpu() for each in maps])
