"""What is measured, and what each number means: unit, direction, bounds and what it needs.

The leaderboard, the figures and the regression gate read these declarations; nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.errors import UserError, nearest


@dataclass(frozen=True)
class Metric:
    """A number that the suite reports.

    ``higher_is_better`` is None where neither direction is better in itself. ``kind`` says where it comes from: the
    student's ``score``, the synthetic ``image``s, or what the trial ``cost``.
    """

    name: str
    doc: str
    kind: Literal["score", "image", "cost"]
    unit: str
    higher_is_better: bool | None
    low: float | None = 0.0
    high: float | None = None
    needs: str = ""


_ALL = (
    Metric("accuracy", "share of test images whose class the student predicts", "score", "share", True, high=1.0),
    Metric(
        "miou",
        "segmentation: intersection over union of each class over all test pixels, averaged over the classes; void "
        "pixels do not count",
        "score",
        "share",
        True,
        high=1.0,
    ),
    Metric(
        "pixel_accuracy",
        "segmentation: share of test pixels given their class, void left out",
        "score",
        "share",
        True,
        high=1.0,
    ),
    Metric("iou[CLASS]", "segmentation: the intersection over union of one class", "score", "share", True, high=1.0),
    Metric(
        "agreement",
        "share of test images (in segmentation, of pixels that have a class) on which student and teacher agree",
        "score",
        "share",
        True,
        high=1.0,
    ),
    Metric(
        "class_balance",
        "entropy of the classes that the teacher assigns to the synthetic images, divided by ln(classes)",
        "image",
        "share",
        True,
        high=1.0,
        needs="the teacher",
    ),
    Metric(
        "confidence",
        "mean of the teacher's highest class probability on the synthetic images",
        "image",
        "probability",
        None,
        high=1.0,
        needs="the teacher",
    ),
    Metric(
        "intra_class_pixel_std",
        "standard deviation of a pixel over the synthetic images of one class (as the teacher assigns them), "
        "averaged over pixels and classes",
        "image",
        "share of the pixel range",
        True,
        high=math.sqrt(0.5),  # of two images, one black and one white, with the n - 1 in the denominator
        needs="the teacher",
    ),
    Metric("seconds", "wall-clock time inside the method, evaluation excluded", "cost", "s", False),
    Metric("steps", "passes through the method's loops", "cost", "steps", False),
    Metric("optimizer_steps", "optimiser updates of any network or image", "cost", "steps", False),
    Metric("teacher_images", "images forward through the teacher", "cost", "images", False),
    Metric("teacher_backward", "images backward through the teacher", "cost", "images", False),
    Metric("student_images", "images forward through the student", "cost", "images", False),
    Metric("student_backward", "images backward through the student", "cost", "images", False),
    Metric("synthesised_images", "images made by kept networks or drawn as noise", "cost", "images", False),
    Metric("real_images", "real images that the method was given", "cost", "images", False),
    Metric("gmacs", "multiply-adds of all networks, forward and backward", "cost", "10^9", False),
    Metric("evaluation_seconds", "wall-clock time of scoring and checkpointing", "cost", "s", False),
    Metric("peak_memory_mib", "highest memory use of the process, or of the GPU", "cost", "MiB", False),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


def image_metric(name: str) -> Metric:
    """A metric of the synthetic images by name; UserError with the nearest name otherwise."""
    names = [metric.name for metric in _ALL if metric.kind == "image"]
    if name not in names:
        raise UserError(f"unknown image metric {name!r}{nearest(name, names)}")
    return METRICS[name]
