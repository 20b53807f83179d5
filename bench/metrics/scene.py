"""What image metrics look at: one trial's images and the real ones, each seen once through every extractor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.data import Dataset
from bench.data.batches import middle, normalise
from bench.data.images import evenly
from bench.errors import Unavailable
from bench.metrics.embedding import Extractor, embed, exactly, tap
from bench.metrics.extractors import MetricContext, get_extractor
from bench.metrics.perceptual import Perceptual, get_perceptual
from bench.metrics.reference import Reference

SMALL = 3 * 64 * 64  # values of an image of which 500 go through the teacher at once


@dataclass(frozen=True)
class Measured:
    """A metric's value and what it depends on; ``doubts`` are why it means little, ``notes`` what else to know."""

    value: float
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)  # further fields of a record's image metric


@dataclass(frozen=True)
class Answers:
    """What the networks make of the synthetic images.

    ``labels``: the teacher's class of each (int64), of each pixel in segmentation; ``confidence``: its probability.
    ``losses``: float64 (N,), the Kullback-Leibler divergence from the student's probabilities to the teacher's, in nats
    (in segmentation the mean over the pixels); the error where the student's pass failed, which harms no other metric;
    None where there is no student.
    """

    labels: Tensor
    confidence: Tensor
    losses: Tensor | Exception | None


class ImageSets:
    """``images``: uint8 (N, C, H, W), N at least 1. ``real_images``: compare with so many training images at most."""

    def __init__(self, images: Tensor, dataset: Dataset, around: MetricContext, real_images: int | None = None) -> None:
        self.images = images
        self.dataset = dataset
        self.around = around
        self.classes = around.classes
        self._real_images = real_images
        self._embedded: dict[str, tuple[Extractor, Tensor, Tensor | None]] = {}
        self._references: dict[str, Reference] = {}
        self._perceptual: dict[str, Perceptual] = {}
        self._found: dict[tuple[str, str], tuple[float, float]] = {}

    @cached_property
    def answers(self) -> Answers:
        """What the teacher makes of each image, and how far the student is from it, from one pass of each."""
        labels, confidence, losses, features, logits = [], [], [], [], []
        failed: Exception | None = None
        size = 500 if self.images[0].numel() <= SMALL else 50
        for batch in self.images.split(size):
            with exactly():
                images = normalise(batch.to(self.around.device), self.around.task.image)
                seen, answer = tap(self.around.teacher, images)
                top = answer.softmax(1).max(1)
                if self.around.student is not None and failed is None:
                    try:
                        losses.append(_divergence(answer, self.around.student(images)).cpu())
                    except Exception as error:
                        failed = error
            labels.append(top.indices.cpu())
            confidence.append(top.values.cpu())
            features.append(seen)
            logits.append(answer if answer.ndim == 2 else None)
        found = [each.float().cpu() for each in features if each is not None]
        if len(found) == len(features):
            extractor = get_extractor("teacher", self.around)
            if size == extractor.batch:  # one pass does for both; the last bits depend on the batch
                whole = [each.float().cpu() for each in logits if each is not None]
                self._embedded["teacher"] = (extractor, torch.cat(found), torch.cat(whole) if whole else None)
        found_losses = failed or (torch.cat(losses) if losses else None)
        return Answers(torch.cat(labels), torch.cat(confidence), found_losses)

    @cached_property
    def real(self) -> Tensor:
        """The training images, uint8 (N, C, size, size), evenly spread; larger ones are cut to their middle.

        Raises:
            Unavailable: the task has none.
        """
        images = self.dataset.train.images
        if not len(images):
            raise Unavailable("the task has no training images to compare with")
        if self.dataset.train.mapped and self._real_images is None:
            raise Unavailable(
                f"{self.dataset.name} has {len(images):,} training images, too many to compare with all of them; "
                "`real_images: 10000` in the study compares with so many"
            )
        return self.middle(evenly(images, self._real_images or len(images)))

    def middle(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) cut to the task's size where they are larger (segmentation)."""
        return middle(images, self.around.task.image.size)

    def embedded(self, name: str) -> tuple[Extractor, Tensor, Tensor | None]:
        """An extractor, and its features (N, D) and logits of the synthetic images; raises Unavailable."""
        if name == "teacher":
            _ = self.answers  # the same pass
        if name not in self._embedded:
            extractor = get_extractor(name, self.around)
            self._embedded[name] = (extractor, *embed(extractor, self.images))
        return self._embedded[name]

    def reference(self, name: str) -> Reference:
        """The training images seen through an extractor; raises Unavailable."""
        if name not in self._references:
            extractor = self.embedded(name)[0]
            self._references[name] = Reference(self.real, self.dataset, extractor)
        return self._references[name]

    def perceptual(self, name: str) -> Perceptual:
        """A network of perceptual distances; raises Unavailable."""
        if name not in self._perceptual:
            self._perceptual[name] = get_perceptual(name, self.around.weights, self.around.device)
        return self._perceptual[name]

    def once(self, what: tuple[str, str], compute: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        """Two values that come from one pass over all pairs, and are two metrics."""
        if what not in self._found:
            self._found[what] = compute()
        return self._found[what]


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of logits (N, K) or (N, K, H, W), in nats, float64 (N,)."""
    told, learned = (logits.double().log_softmax(1) for logits in (teacher, student))
    each = functional.kl_div(learned, told, reduction="none", log_target=True).sum(1)
    return each.flatten(1).mean(1) if each.ndim > 1 else each
