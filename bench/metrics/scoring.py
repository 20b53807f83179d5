"""From synthetic images to the image metrics of a record: a value, or a status that says why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.data import Dataset
from bench.errors import Unavailable
from bench.metrics import diversity, featured, plain, rdskd
from bench.metrics.extractors import MetricContext
from bench.metrics.scene import ImageSets, Measured
from bench.spec.metric_names import extractor_of

PLAIN: Mapping[str, Callable[[ImageSets], Measured]] = {
    "class_balance": plain.class_balance,
    "confidence": plain.confidence,
    "distillation_loss": plain.distillation_loss,
    "distillation_loss_variance": plain.distillation_loss_variance,
    "intra_class_pixel_std": plain.intra_class_pixel_std,
    "nearest_training_distance": plain.nearest_training_distance,
}
THROUGH: Mapping[str, Callable[[ImageSets, str], Measured]] = {
    "is": featured.whole_inception_score,
    "is_splits": featured.split_inception_score,
    "fid": featured.frechet,
    "fd": featured.frechet,
    "fid_infinity": featured.frechet_at_infinity,
    "fd_infinity": featured.frechet_at_infinity,
    "kid": featured.kernel,
    "kid_subsets": featured.kernel_of_subsets,
    "precision": featured.precision,
    "recall": featured.recall,
    "density": featured.density,
    "coverage": featured.coverage,
    "lpips": diversity.within_classes,
    "lpips_all": diversity.over_all,
    "rdskd_is": rdskd.few_inception_score,
    "rdskd_fid": rdskd.few_frechet,
    "rdskd_fd": rdskd.few_frechet,
    "rdskd_lpips": rdskd.few_perceptual,
}


def score_images(
    names: Sequence[str],
    images: Tensor,
    dataset: Dataset,
    around: MetricContext,
    real_images: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Image metrics as a record holds them, by name; whatever goes wrong with one is said there, and is not raised.

    Args:
        names: as ``bench.metrics.image_metrics`` gives them.
        images: uint8 (N, C, H, W), the pixels that the student was trained on.
        dataset: its training images are what they are compared with.
        around: task, teacher and where to look for weights.
        real_images: compare with so many training images at most, evenly spread; None: with all.
    """
    if not names:
        return {}
    count = len(images) if isinstance(images, Tensor) and images.ndim else 0
    if reason := _unusable(images, around):
        return {name: _entry("unavailable", count, reason) for name in names}
    scene = ImageSets(images, dataset, around, real_images)
    same = (f"all {count} images are the same",) if bool((images == images[:1]).all()) else ()
    return {name: _measure(name, scene, same) for name in names}


def _measure(name: str, scene: ImageSets, same: tuple[str, ...]) -> dict[str, Any]:
    family, chosen = name.partition("[")[0], extractor_of(name)
    count = len(scene.images)
    try:
        found = THROUGH[family](scene, chosen) if chosen else PLAIN[family](scene)
    except (Unavailable, ValueError) as error:  # the numerics say with a ValueError what they cannot work on
        return _entry("unavailable", count, str(error))
    except Exception as error:  # an image metric must never cost the trial its record
        return _entry("failed", count, f"{type(error).__name__}: {error}".splitlines()[0])
    if not math.isfinite(found.value):
        return _entry("unavailable", count, "the value is not finite")
    doubts = found.doubts + same
    entry = _entry("unreliable" if doubts else "ok", count, "; ".join(doubts + found.notes))
    return entry | {"value": found.value} | found.facts


def _unusable(images: Tensor, around: MetricContext) -> str:
    """Why nothing can be measured on these images; empty where something can."""
    image = around.task.image
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        kind = getattr(images, "dtype", type(images).__name__)
        return f"the images are {str(kind).removeprefix('torch.')}; they must be bytes (uint8) in 0..255"
    if images.ndim != 4 or images.shape[1:] != image.shape:
        wanted = " x ".join(map(str, image.shape))
        return f"the images have shape {tuple(images.shape)}; the task's are (N, {wanted.replace(' x ', ', ')})"
    return "fewer than two images" if len(images) < 2 else ""


def _entry(status: str, images: int, note: str) -> dict[str, Any]:
    return {"value": None, "status": status, "images": images, "note": note.replace(str(Path.home()), "~")}
