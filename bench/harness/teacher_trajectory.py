"""The teacher's training as a method can ask about it: its anchors, counted as the teacher is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from bench.harness.counters import CountedTeacher
from bench.models.cost import bare_copy
from bench.spec.budget import Meter, TeacherUse


class TeacherTrajectory:
    """A teacher's earlier anchors: one network on the device, which takes on the weights of the anchor in question."""

    def __init__(
        self,
        teacher: nn.Module,
        states: Sequence[Mapping[str, Tensor]],
        image_shape: tuple[int, int, int],
        meter: Meter,
        use: TeacherUse | None = None,
    ) -> None:
        """``use`` as of :class:`CountedTeacher`."""
        self._states = states
        self._counted = CountedTeacher(bare_copy(teacher), image_shape, meter, use)
        self._taken: int | None = None

    def learning(self, told: Callable[[], None]) -> None:
        """Have ``told`` called at each backward pass through any of them."""
        self._counted.learning = told

    def __len__(self) -> int:
        return len(self._states)

    def at(self, anchor: int) -> CountedTeacher:
        """The teacher as it was at an anchor, 0 the earliest; valid until another one is asked for."""
        if anchor != self._taken:
            self._counted.network.load_state_dict(self._states[anchor])
            self._taken = anchor
        return self._counted
