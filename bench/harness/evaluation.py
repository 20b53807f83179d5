"""Scoring students: on the real test images, which no method ever sees, and on held-out synthetic ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from bench.data.batches import normalise
from bench.data.image_spec import ImageSpec
from bench.data.source import UNKNOWN, VOID, Split
from bench.harness.classes import classes_of
from bench.models.cost import bare_copy

BATCH = 1000
PIXELS = 1000 * 32 * 32  # of a batch of whole images in segmentation


@dataclass(frozen=True)
class Verdict:
    """The scores of a network's predictions on the test images; all in [0, 1].

    ``score`` is in the task's metric: accuracy, mean IoU for segmentation, or the agreement where no test image has a
    label. ``agreement`` is the share of test images (of pixels that have a class) on which student and teacher agree.
    ``details`` are further test metrics by name, with None for the IoU of a class that neither the labels nor the
    answers have.
    """

    score: float
    agreement: float
    details: Mapping[str, float | None] = field(default_factory=dict)


class Judge:
    """Scores weights on a separate network, so that neither the student's modes nor its counters are touched."""

    def __init__(
        self,
        student: nn.Module,
        teachers: Tensor,
        test: Split,
        image: ImageSpec,
        device: torch.device,
        classes: Sequence[str] = (),
    ) -> None:
        """``teachers``: the teacher's :func:`answers` to these images; ``classes``: their names, for segmentation."""
        self._network = bare_copy(student).to(device).eval().requires_grad_(False)
        self._images = test.images if test.mapped else test.images.to(device)
        self._classes = classes
        self._image = image
        labels = test.labels.to(device)
        if bool((labels == UNKNOWN).all()):
            labels = teachers
        self._score: Callable[[Tensor], Verdict]
        if labels.ndim == 1:
            self._score = partial(_verdict, labels=labels, teachers=teachers)
        else:
            self._score = partial(_dense_verdict, pairs=_pairs(labels, teachers, len(classes)), classes=classes)

    def network(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """The separate network with a student's state_dict, in evaluation mode; the next call changes its weights."""
        self._network.load_state_dict(weights)
        return self._network

    def test(self, weights: Mapping[str, Tensor]) -> Verdict:
        """Score a student's state_dict on the test set."""
        return self._score(answers(self.network(weights), self._images, self._image))

    def answers(self, weights: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        """The classes that a student assigns to uint8 images, as :func:`answers`."""
        return answers(self.network(weights), pixels, self._image)

    def agreement_on(self, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> float:
        """The share of normalised ``images`` (of their pixels) to which a student gives the teacher's ``labels``."""
        network = self.network(weights)
        classes = torch.cat([predict(network, batch.float()) for batch in images.split(BATCH)])
        return (classes == labels).double().mean().item()


def predict(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The classes, (N,) or (N, H, W), that a network in evaluation mode assigns, in full precision."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        classes: Tensor = classes_of(network(images))
        return classes


def answers(network: nn.Module, pixels: Tensor, image: ImageSpec) -> Tensor:
    """The classes that a network assigns to uint8 images (N, C, H, W): int64 (N,), or uint8 (N, H, W).

    Images that are elsewhere than the network, as mapped ones may be, go there in batches.
    """
    return answers_of_all([network], pixels, image)[0]


def answers_of_all(networks: Sequence[nn.Module], pixels: Tensor, image: ImageSpec) -> list[Tensor]:
    """As :func:`answers`, of each of several networks and then of all together, from one pass of each.

    Together they assign the class with the largest mean of their softmax. Of one network alone there is nothing more.
    """
    device = next((each.device for each in networks[0].parameters()), pixels.device)
    whole = pixels.shape[-2] * pixels.shape[-1]
    batches = pixels.split(BATCH if whole <= PIXELS // BATCH else max(1, PIXELS // whole))
    found = [_classes_of_all(networks, normalise(batch.to(device), image)) for batch in batches]
    return [torch.cat(each) for each in zip(*found, strict=True)]


def _classes_of_all(networks: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        logits = [network(images) for network in networks]
        found = [classes_of(each) for each in logits]
        if networks[1:]:
            found.append(classes_of(torch.stack([each.softmax(1) for each in logits]).mean(0)))
    return [each.to(torch.uint8) if each.ndim == 3 else each for each in found]


def score_answers(found: Tensor, labels: Tensor, classes: Sequence[str]) -> tuple[float, dict[str, float | None]]:
    """(score in the task's metric, further test metrics) of predicted classes, both in [0, 1]."""
    if labels.ndim == 1:
        return (found == labels).double().mean().item(), {}
    return _of_matrix(confusion(found, labels, len(classes)), classes)


def _of_matrix(matrix: Tensor, classes: Sequence[str]) -> tuple[float, dict[str, float | None]]:
    values = intersection_over_union(matrix)
    per_class = {f"iou[{name}]": value for name, value in zip(classes, values, strict=True)}
    return mean_iou(matrix), {"pixel_accuracy": pixel_accuracy(matrix), **per_class}


def score_network(
    network: nn.Module, split: Split, image: ImageSpec, classes: Sequence[str]
) -> tuple[float, dict[str, float | None]]:
    """As :func:`score_answers`, of a network in evaluation mode on a split."""
    return score_answers(answers(network, split.images, image), split.labels, classes)


def _verdict(found: Tensor, labels: Tensor, teachers: Tensor) -> Verdict:
    return Verdict((found == labels).double().mean().item(), (found == teachers).double().mean().item())


def _pairs(labels: Tensor, teachers: Tensor, classes: int) -> Tensor:
    """(pixels,): a number for each pair of a true class and the teacher's, K apart, so that a third fits in between.

    Void pixels are of one class more. The smallest type that holds all triples makes counting fast.
    """
    triples = (classes + 1) * classes * classes
    kind = torch.int16 if triples < 2**15 else torch.int32 if triples < 2**31 else torch.int64
    true = torch.where(labels == VOID, classes, labels).to(kind)
    return ((true * classes + teachers) * classes).flatten()


def _dense_verdict(found: Tensor, pairs: Tensor, classes: Sequence[str]) -> Verdict:
    """Score and agreement of the classes of all pixels, from one count of triples: true, teacher's and found class."""
    many = len(classes)
    counts = torch.bincount(pairs + found.flatten(), minlength=(many + 1) * many * many)
    counted = counts.view(many + 1, many, many)[:many]
    same, pixels = int(counted.diagonal(dim1=1, dim2=2).sum()), int(counted.sum())
    score, details = _of_matrix(counted.sum(1), classes)
    return Verdict(score, same / pixels if pixels else math.nan, details)


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 (classes, classes): how many pixels of class [row] were given class [column]; void pixels do not count.

    Args:
        predicted: classes, uint8 or int64, of any shape.
        labels: the true classes, of the same shape, with VOID for pixels of no class.
        classes: their number, K.
    """
    counted = labels != VOID
    pairs = labels[counted].long() * classes + predicted[counted].long()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def intersection_over_union(matrix: Tensor) -> list[float | None]:
    """The IoU of each class in [0, 1]; None for one that neither the labels nor the answers have."""
    intersection = matrix.diagonal().tolist()
    union = (matrix.sum(0) + matrix.sum(1) - matrix.diagonal()).tolist()
    return [hit / of if of else None for hit, of in zip(intersection, union, strict=True)]


def mean_iou(matrix: Tensor) -> float:
    """The mean IoU of the classes that have one, in [0, 1]; 0 when no pixel counts."""
    values = [value for value in intersection_over_union(matrix) if value is not None]
    return sum(values) / len(values) if values else 0.0


def pixel_accuracy(matrix: Tensor) -> float:
    """The share of the pixels that have a class and are given it, in [0, 1]; 0 when no pixel counts."""
    return matrix.diagonal().sum().item() / max(int(matrix.sum()), 1)
