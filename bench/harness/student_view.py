"""What a method can see inside the student: features and groups beside its logits, from one forward pass."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from bench.errors import MethodError
from bench.harness.counters import Counter, tap_groups, tap_penultimate
from bench.models import head
from bench.models.layer_groups import LayerGroups

# what the groups of a network are: its stages' outputs, or the ends of its layer groups
GroupBy = Literal["stages", "layers"]


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

    def ask(
        self, images: Tensor, *, groups: GroupBy | None, penultimate: bool
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The logits, the groups and, as a tuple of one, the penultimate features."""
        found: list[Tensor] = []
        last: list[Tensor] = []
        hooks = []
        if groups not in (None, "stages", "layers"):
            raise MethodError(f"group_by must be 'stages' or 'layers', not {groups!r}")
        if groups is not None:
            hooks += self.layers.tap_ends(found) if groups == "layers" else tap_groups(self._student, found)
        try:
            if penultimate:
                hooks.append(tap_penultimate(self._student, last))
            answer = self._student(images)
        finally:
            for hook in hooks:
                hook.remove()
        for features in last:
            self._counter.watch_features(features)
        return answer, tuple(found), tuple(last)

    def features(self, images: Tensor, penultimate: bool) -> tuple[Tensor, Tensor]:
        """The logits, and the input of the head or of the classifier."""
        seen: list[Tensor] = []
        if penultimate:
            hook = tap_penultimate(self._student, seen)
        else:
            hook = head(self._student).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            answer = self._student(images)
        finally:
            hook.remove()
        self._counter.watch_features(seen[0])
        return answer, seen[0]

    def groups(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits, and the last map of each layer group."""
        answer, ends, _ = self.ask(images, groups="layers", penultimate=False)
        self._counter.watch_features(ends[0])  # what goes back from any group comes by here, and once
        return answer, ends

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
