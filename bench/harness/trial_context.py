"""The harness's side of one trial: networks, counters, random streams, the clock, and what the method asked to keep.

A :class:`~bench.harness.session.Session` reaches it through :func:`current`, never by holding it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.optim.swa_utils import AveragedModel

from bench.data import Split
from bench.data.batches import RealImages
from bench.data.image_spec import Augmentation, ImageSpec
from bench.errors import Diverged, MethodError
from bench.harness import checkpoint
from bench.harness.clock import Clock, IdleCheck
from bench.harness.counters import CountedTeacher, Counter, Pooled, Question, TeacherAnswer
from bench.harness.image_sample import Capture
from bench.harness.optimizer_steps import Updates, parameters_of
from bench.harness.student_view import StudentSide
from bench.harness.teacher_trajectory import TeacherTrajectory
from bench.models import classifier_bias, classifier_weight
from bench.models.cost import bare_copy
from bench.models.layer_groups import LayerGroups
from bench.spec.budget import Budget, Meter
from bench.spec.method import Access, Data
from bench.utils.rng import Streams

if TYPE_CHECKING:
    from bench.harness.isolation.remote import Remote, RemoteImages, RemoteLayers

_current: list[TrialContext] = []


def current() -> TrialContext:
    """The context of the trial that runs in this process."""
    if not _current:
        raise MethodError("a Session works only while the harness runs its trial")
    return _current[-1]


class BudgetSpent(BaseException):
    """Ends a method that goes on after its budget is used up."""


@dataclass
class Hooks:
    """Who is told what a running method does; the clock runs while they are called."""

    after_step: Callable[[], None] = lambda: None
    on_phase: Callable[[str], None] = lambda phase: None  # noqa: ARG005
    on_keep: Callable[[str, Any], None] = lambda name, thing: None  # noqa: ARG005


class TrialContext:
    """State of one running trial."""

    def __init__(
        self,
        *,
        image: ImageSpec,
        teacher: nn.Module | Remote,
        student: nn.Module,
        budget: Budget,
        access: Access,
        data: Data,
        device: torch.device,
        seed: int,
        real: Split | RemoteImages | None = None,
        augment: Augmentation | None = None,
        precision: str = "float32",
        anchors: Sequence[Mapping[str, Tensor]] = (),
        fresh_teacher: Callable[[], nn.Module] | None = None,
        hooks: Hooks | None = None,
        skip_phases: Sequence[str] = (),
    ) -> None:
        """
        Args:
            image: the geometry of the images.
            teacher: trained, frozen, in evaluation mode; or the way to it where it is in another process.
            student: untrained.
            budget: what the method may spend.
            access: how far into the teacher the method may look.
            data: the real images that it declared.
            device: where everything runs.
            seed: of all random streams.
            real: the images that ``data`` stands for.
            augment: what happens to real images.
            precision: ``float32``, or the type of autocast.
            anchors: the teacher's weights at its anchors, the earliest first, without those of the teacher itself.
            fresh_teacher: makes the teacher's architecture with fresh weights.
            hooks: who is told of steps, phases and kept things.
            skip_phases: those that had ended when the trial was stopped.
        """
        self.image = image
        self.budget = budget
        self.access = access
        self.used = Access.NONE  # the deepest access that the method really made use of
        self.data = data
        self.device = device
        self.student = student.to(device).train()
        self.meter = Meter()
        self.streams = Streams(seed, device)
        self.capture = Capture(image)
        self.average = AveragedModel(self.student, multi_avg_fn=self._blend)
        self.kept: dict[str, Any] = {}
        self.logs: dict[str, list[Any]] = {}
        self.hooks = hooks or Hooks()
        self._skip_phases = tuple(skip_phases)
        self.phases: list[str] = []
        self.clock = Clock(self.meter, device, exact=budget.seconds is not None)
        self._remote: Remote | None = None
        self.trajectory: TeacherTrajectory | None = None
        if isinstance(teacher, nn.Module):
            self._teacher = CountedTeacher(teacher.to(device), image.shape, self.meter)
            self.trajectory = TeacherTrajectory(teacher, anchors, image.shape, self.meter) if anchors else None
        else:
            self._remote = teacher
            self._remote.meter = self.meter
        self._fresh_teacher = fresh_teacher
        self._counter = Counter(self.meter, image.shape, lambda: self.clock.running)
        self._real = RealImages(real, image, seed, device, augment) if isinstance(real, Split) else real
        self._copies: list[nn.Module] = []
        self._shares = 0.0
        self._student_parameters = {id(parameter) for parameter in self.student.parameters()}
        self._moves_student: dict[int, bool] = {}
        self.updates = Updates(device, precision)
        self._averaged = 0
        self._phase_start = 0.0
        self._in_step = False
        self._counter.watch_student(self.student, self._student_saw)
        self.student_side = StudentSide(self.student, image.shape, self._counter)
        self._hook = register_optimizer_step_post_hook(self._optimizer_stepped)

    # ---- running and the clock -------------------------------------------------------------------------------------

    def __enter__(self) -> TrialContext:
        _current.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.clock.stop()
        self._hook.remove()
        _current.remove(self)

    @property
    def progress(self) -> float:
        self.clock.read()
        return min(self.budget.progress(self.meter)[0], 1.0)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def steps(self, phase: str, share: float | None) -> Iterator[float]:
        if phase in self.phases:
            raise MethodError(f"two loops are named {phase!r}")
        if self._in_step:
            raise MethodError(f"the loop {phase!r} begins inside a step of another loop")
        end = 1.0 if share is None else self._shares + share
        if not self._shares < end <= 1.0 + 1e-9:
            raise MethodError(f"the shares of the phases up to {phase!r} add up to {end:g}; at most 1 is there")
        self._shares = end
        self.phases.append(phase)
        if phase in self._skip_phases:
            return
        self._phase_start = self.progress  # the phase before may have ended early, or run over
        self.hooks.on_phase(phase)
        idle = IdleCheck()
        try:
            while (spent := self.progress) < min(end, 1.0):
                idle.look(phase, spent, self.meter)
                self._in_step = True
                yield min((spent - self._phase_start) / (end - self._phase_start), 1.0)
                self._in_step = False
                self.meter.steps += 1
                self.check_finite()
                self.hooks.after_step()
        finally:
            self._in_step = False  # the method may leave the loop with `break`

    def _charge(self) -> None:
        """Between the loops work is allowed, but not beyond the budget; within one step it may run over."""
        if not self._in_step and self.clock.running and self.progress >= 1.0:
            raise BudgetSpent

    # ---- networks --------------------------------------------------------------------------------------------------

    def ask_teacher(self, images: Tensor, question: Question, anchor: int | None = None) -> TeacherAnswer:
        """See :meth:`CountedTeacher.ask`; ``anchor`` as in :class:`bench.harness.teacher_view.TeacherView`."""
        self._charge()
        if anchor is not None and not 0 <= anchor < self.anchors:
            raise MethodError(f"there is no anchor {anchor}: the method declares anchors={self.anchors}")
        if self._remote is not None:
            return self._remote.ask(images, question, anchor, gradients=self.access >= Access.GRADIENTS)
        teacher = self._teacher
        if anchor is not None and self.trajectory is not None and anchor < len(self.trajectory):
            teacher = self.trajectory.at(anchor)
        return teacher.ask(images, question, gradients=self.access >= Access.GRADIENTS)

    @property
    def anchors(self) -> int:
        """How many anchors there are, the teacher among them; 0 where the method declares none."""
        if self._remote is not None:
            return self._remote.anchors
        return 0 if self.trajectory is None else len(self.trajectory) + 1

    def pooled_size(self, pooled: Pooled) -> int:
        return (self._remote or self._teacher).pooled_size(pooled)

    @property
    def teacher_layers(self) -> LayerGroups | RemoteLayers:
        return (self._remote or self._teacher).layers

    def classifier_weight(self) -> Tensor:
        if self._remote is not None:
            return self._remote.classifier_weight()
        return classifier_weight(self._teacher.network).detach().clone()

    def classifier_bias(self) -> Tensor | None:
        if self._remote is not None:
            return self._remote.classifier_bias()
        bias = classifier_bias(self._teacher.network)
        return None if bias is None else bias.detach().clone()

    def copy_teacher(self, fresh: bool) -> nn.Module:
        """See :meth:`bench.harness.teacher_view.TeacherView.copy`."""
        if self._remote is not None:
            network = self._remote.teacher(fresh)
        elif fresh and self._fresh_teacher is None:
            raise MethodError("nobody knows how to build this teacher with fresh weights")
        else:
            network = self._fresh_teacher() if fresh and self._fresh_teacher else bare_copy(self._teacher.network)
        copy = network.to(self.device).requires_grad_(True).train()
        self._counter.watch_copy(copy)
        self._copies.append(copy)
        return copy

    def _student_saw(self, images: Tensor) -> None:
        self._charge()
        if self.student.training and torch.is_grad_enabled() and not images.requires_grad:
            self.capture.take(self.meter.steps, images)

    def count_drawn(self, shape: tuple[int, ...]) -> None:
        """Noise in the shape of images counts as synthesised images."""
        if tuple(shape[1:]) == self.image.shape:
            self.meter.synthesised_images += shape[0]

    @property
    def real(self) -> RealImages | RemoteImages:
        """The real images that the method declared; handing them out is counted by the one who does."""
        assert self._real is not None
        return self._real

    # ---- learning --------------------------------------------------------------------------------------------------

    def update(self, optimizer: Optimizer, loss: Tensor, clip: float | None = None) -> None:
        self._charge()
        self.updates.on_loss(optimizer, loss, clip)

    def apply(self, optimizer: Optimizer, gradients: Sequence[Tensor], clip: float | None = None) -> None:
        self._charge()
        self.updates.on_known(optimizer, gradients, clip)

    def _optimizer_stepped(self, optimizer: Optimizer, *_: Any) -> None:
        if not self.clock.running:
            return
        if id(optimizer) not in self._moves_student:
            if not any(thing is optimizer for thing in self.kept.values()):
                raise MethodError(
                    f"an optimiser ({type(optimizer).__name__}) is used but not kept: s.keep(name, optimizer)"
                )
            parameters = {id(parameter) for parameter in parameters_of(optimizer)}
            self._moves_student[id(optimizer)] = bool(parameters & self._student_parameters)
        self._charge()
        self.meter.optimizer_steps += 1
        if self._moves_student[id(optimizer)]:
            self.average.update_parameters(self.student)

    def _blend(self, averages: Any, values: Any, _: Any) -> None:
        """Exponential average with a warm-up: the weight of the past is (1 + n) / (10 + n), at most 0.999."""
        number = self._averaged = self._averaged + 1
        torch._foreach_lerp_(averages, values, 1.0 - min(0.999, (1 + number) / (10 + number)))

    def check_finite(self, now: bool = False) -> None:
        """Raise Diverged when a loss was NaN or infinite; on a GPU only now and then: looking waits for it."""
        looked_at = self.device.type != "cuda" or now or self.meter.steps % 100 == 0
        if looked_at and not self.updates.finite:
            raise Diverged("a loss became NaN or infinite")

    def withhold(self, images: Tensor, logits: Tensor) -> Tensor | None:
        return self.capture.withhold(self.meter.steps, images, logits)

    # ---- keeping ---------------------------------------------------------------------------------------------------

    def keep(self, name: str, thing: Any) -> Any:
        if name in self.kept:
            raise MethodError(f"two things are kept as {name!r}")
        checkpoint.check_kept(name, thing)
        thing = checkpoint.move_to(thing, self.device)
        self.kept[name] = thing
        if isinstance(thing, nn.Module) and all(thing is not known for known in (self.student, *self._copies)):
            self._counter.watch_kept(thing)
        self.hooks.on_keep(name, thing)
        return thing

    def log(self, values: dict[str, Tensor | float]) -> None:
        for name, value in values.items():
            number = value.detach().float().mean() if isinstance(value, Tensor) else float(value)
            total = self.logs.setdefault(name, [0.0, 0])
            total[0] = total[0] + number
            total[1] += 1

    def take_logs(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: float(total) / count for name, (total, count) in self.logs.items()}
        self.logs.clear()
        return means

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that :meth:`restore` needs to go on with the same bits; plain data and tensors only."""
        return {
            "phases": list(self.phases),
            "phase_start": self._phase_start,
            "scalers": self.updates.state(self.kept),
            "meter": vars(self.meter).copy(),
            "streams": self.streams.state(),
            "capture": self.capture.state(),
            "student": checkpoint.state_of(self.student),
            "average": checkpoint.state_of(self.average),
            "averaged": self._averaged,
            "kept": {name: checkpoint.state_of(thing) for name, thing in self.kept.items()},
            "logs": {name: [float(total), count] for name, (total, count) in self.logs.items()},
            "real": self._real.state() if self._real is not None else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put a checkpoint back, in place.

        Raises:
            MethodError: the method did not keep the same things before this loop as when the checkpoint was written.
        """
        if set(state["kept"]) != set(self.kept):
            raise MethodError("the method keeps other things than when it was stopped; keep everything before the loop")
        for name, value in state["meter"].items():
            setattr(self.meter, name, value)
        self.capture.restore(state["capture"])
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self._averaged = int(state["averaged"])
        for name, value in state["kept"].items():
            checkpoint.restore_into(self.kept[name], value)
        self.logs = {name: list(total) for name, total in state["logs"].items()}
        self._phase_start = float(state["phase_start"])
        self.updates.restore(state["scalers"], self.kept)
        if self._real is not None:
            self._real.restore(state["real"])
        self.streams.restore(state["streams"])  # last: nothing above may draw after it
        self.clock.restart()
