"""What a method can see inside the student: features and groups beside its logits, from one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from bench.harness.counters import Counter, tap_groups, tap_penultimate
from bench.models import head
from bench.models.layer_groups import LayerGroups


@dataclass(frozen=True)
class StudentParts:
    """What of the student is wanted beside its logits; the names are those of a question to the teacher."""

    features: bool = False
    groups: bool = False
    layers: bool = False
    penultimate: bool = False


@dataclass
class StudentAnswer:
    """The student's logits and what was wanted beside them, from one forward pass; None where it was not."""

    logits: Tensor
    features: Tensor | None = None  # the input of the head
    groups: tuple[Tensor, ...] | None = None  # (N, C, h, w) each
    layers: tuple[tuple[Tensor, ...], ...] | None = None  # (N, C, h, w) each
    penultimate: Tensor | None = None  # the input of the classifier


class StudentSide:
    """Taps on the student; a backward pass that begins at what they give is counted like any other."""

    def __init__(self, student: nn.Module, image_shape: tuple[int, int, int], counter: Counter) -> None:
        self._student = student
        self._image_shape = image_shape
        self._counter = counter

    @cached_property
    def layers(self) -> LayerGroups:
        with self._counter.silent():
            return LayerGroups(self._student, self._image_shape)

    def ask(self, images: Tensor, wanted: StudentParts) -> StudentAnswer:
        """The answer to images (N, C, H, W).

        Raises:
            Unsupported: the network has not what is wanted.
        """
        student = self._student
        features: list[Tensor] = []
        groups: list[Tensor] = []
        maps: list[Tensor] = []
        penultimate: list[Tensor] = []
        hooks = []
        try:
            if wanted.features:
                hooks.append(head(student).register_forward_pre_hook(lambda _, args: features.append(args[0])))
            if wanted.groups:
                hooks += tap_groups(student, groups)
            if wanted.layers:
                hooks += self.layers.tap(maps)
            if wanted.penultimate:
                hooks.append(tap_penultimate(student, penultimate))
            logits: Tensor = student(images)
        finally:
            for hook in hooks:
                hook.remove()
        self._counter.watch_features(*features, *groups, *maps, *penultimate)
        return StudentAnswer(
            logits,
            features[0] if wanted.features else None,
            tuple(groups) if wanted.groups else None,
            self.layers.grouped(maps) if wanted.layers else None,
            penultimate[0] if wanted.penultimate else None,
        )

    def features(self, images: Tensor, penultimate: bool) -> tuple[Tensor, Tensor]:
        """The logits, and the input of the head or of the classifier."""
        answer = self.ask(images, StudentParts(features=not penultimate, penultimate=penultimate))
        found = answer.penultimate if penultimate else answer.features
        assert found is not None
        return answer.logits, found

    def groups(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits, and the last map of each layer group."""
        answer = self.ask(images, StudentParts(layers=True))
        return answer.logits, tuple(group[-1] for group in answer.layers or ())

    def head(self, features: Tensor) -> Tensor:
        """The logits for features."""
        with self._counter.parts():
            logits: Tensor = head(self._student)(features)
        return logits

    def go_on_from(self, images: Tensor, group: int, maps: Tensor) -> Tensor:
        """The logits with ``maps`` in the place of the last ones of a layer group."""
        hook = self.layers.replace_end(group, maps)
        try:
            answer: Tensor = self._student(images)
        finally:
            hook.remove()
        return answer
