"""Scoring students: on the real test images, which no method ever sees, and on held-out synthetic ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.data import Split
from bench.models.cost import bare_copy
from bench.real import normalise
from bench.task import ImageSpec

BATCH = 1000


@dataclass(frozen=True)
class Verdict:
    """Test accuracy, and the share of test images on which student and teacher agree; both in [0, 1]."""

    score: float
    agreement: float


class Judge:
    """Scores weights on a network of its own, so that neither the student's modes nor its counters are touched."""

    def __init__(self, student: nn.Module, teacher: nn.Module, test: Split, image: ImageSpec, device: torch.device):
        self._network = bare_copy(student).to(device).eval().requires_grad_(False)
        self._images = test.images.to(device)
        self._labels = test.labels.to(device)
        self._image = image
        self._teacher_classes = self._classes_of(teacher)

    def test(self, weights: Mapping[str, Tensor]) -> Verdict:
        """Score a student's state_dict on the test set."""
        self._network.load_state_dict(weights)
        classes = self._classes_of(self._network)
        return Verdict(
            score=(classes == self._labels).double().mean().item(),
            agreement=(classes == self._teacher_classes).double().mean().item(),
        )

    def agreement_on(self, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> float:
        """The share of normalised ``images`` to which a student gives the teacher's ``labels``."""
        self._network.load_state_dict(weights)
        classes = torch.cat([predict(self._network, batch) for batch in images.split(BATCH)])
        return (classes == labels).double().mean().item()

    def _classes_of(self, network: nn.Module) -> Tensor:
        batches = self._images.split(BATCH)
        return torch.cat([predict(network, normalise(batch, self._image)) for batch in batches])


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """The classes (N,) that a network in evaluation mode assigns, in full precision."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        classes: Tensor = network(images).argmax(1)
        return classes


def accuracy(network: nn.Module, split: Split, image: ImageSpec) -> float:
    """Share of a split's images that a network in evaluation mode classifies correctly."""
    right: int = sum(
        int((predict(network, normalise(images, image)) == labels).sum())
        for images, labels in zip(split.images.split(BATCH), split.labels.split(BATCH), strict=True)
    )
    return right / len(split.labels)
