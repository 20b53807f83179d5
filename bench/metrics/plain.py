"""Image metrics that need no extractor: what teacher and student answer, and the pixels themselves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.data.images import evenly
from bench.errors import Unavailable
from bench.metrics.pixels import nearest_distance
from bench.metrics.scene import ImageSets, Measured

SAMPLE = 500  # test images whose distance to the nearest training image says what is usual


def class_balance(scene: ImageSets) -> Measured:
    labels = scene.answers.labels
    shares = torch.bincount(labels.flatten(), minlength=scene.classes).double() / labels.numel()
    entropy = -(shares[shares > 0] * shares[shares > 0].log()).sum().item()
    return Measured(max(entropy, 0.0) / math.log(scene.classes), too_few(scene))


def confidence(scene: ImageSets) -> Measured:
    return Measured(scene.answers.confidence.double().mean().item())


def distillation_loss(scene: ImageSets) -> Measured:
    return Measured(_student_losses(scene).mean().item())


def distillation_loss_variance(scene: ImageSets) -> Measured:
    return Measured(_student_losses(scene).var().item())


def _student_losses(scene: ImageSets) -> Tensor:
    losses = scene.answers.losses
    if losses is None:
        raise Unavailable("there is no student to measure it with: the trial kept none")
    if isinstance(losses, Exception):
        raise losses
    return losses


def intra_class_pixel_std(scene: ImageSets) -> Measured:
    labels = class_labels(scene)
    pixels = scene.images.double() / 255
    values = [pixels[labels == k].std(0).mean().item() for k in range(scene.classes) if int((labels == k).sum()) > 1]
    if not values:
        raise Unavailable("no class has two images")
    return Measured(sum(values) / len(values), too_few(scene), over_classes(len(values), scene))


def nearest_training_distance(scene: ImageSets) -> Measured:
    """Says beside it how near test images, which are no copies, come to a training image."""
    unseen = evenly(scene.middle(scene.dataset.test.images), SAMPLE)
    note = f"{len(unseen)} test images lie {_mean_nearest(unseen, scene.real):.3f} from theirs"
    return Measured(_mean_nearest(scene.images, scene.real), notes=(note,), facts={"real_images": len(scene.real)})


def _mean_nearest(images: Tensor, real: Tensor) -> float:
    return nearest_distance(images, real).mean().item() / (255 * math.sqrt(images[0].numel()))


def class_labels(scene: ImageSets) -> Tensor:
    """The teacher's class of each image, int64 (N,); Unavailable in segmentation, where an image has no single one."""
    labels = scene.answers.labels
    if labels.ndim > 1:
        raise Unavailable("in segmentation an image has no single class")
    return labels


def too_few(scene: ImageSets) -> tuple[str, ...]:
    """A doubt where there are fewer images than classes."""
    count = len(scene.images)
    return (f"{count} images are fewer than the {scene.classes} classes",) if count < scene.classes else ()


def over_classes(found: int, scene: ImageSets) -> tuple[str, ...]:
    """A note where some of the classes have no images (or too few) and do not count."""
    return (f"over {found} of {scene.classes} classes",) if found < scene.classes else ()
