"""The harness's side of one trial: networks, counters, random streams, the clock, and what the method asked to keep.

A :class:`~bench.harness.session.Session` reaches it through :func:`current`, never by holding it.
"""

from __future__ import annotations

import contextlib
import math
import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsFloat

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, register_optimizer_step_post_hook
from torch.optim.swa_utils import AveragedModel

from bench.data import Split
from bench.data.batches import RealImages
from bench.data.image_spec import Augmentation, ImageSpec
from bench.errors import AccessDenied, Diverged, MethodError
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
from bench.spec.budget import Budget, Meter, restore_uses
from bench.spec.method import Access, Data
from bench.utils.memory_format import CONTIGUOUS, lay_out
from bench.utils.rng import Streams

if TYPE_CHECKING:
    from bench.harness.isolation.remote import Remote, RemoteImages, RemoteLayers, RemoteTeacher

_current: list[TrialContext] = []


def current() -> TrialContext:
    """The context of the trial that runs in this process."""
    if not _current:
        raise MethodError("a Session works only while the harness runs its trial")
    return _current[-1]


IMAGES = 1_000_000  # real images at a time
NUMBERS = 2**34  # random numbers at a time


def whole_number(value: Any, what: str, low: int = 1) -> int:
    """A count that a method asks for, from ``low`` to a million images, checked before anything is made.

    Raises:
        MethodError: it is no whole number, or not in this range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < low or (low and number > IMAGES):
        limit = f"from {low} to {IMAGES:,}" if low else f"from {low} on"
        raise MethodError(f"{what} takes whole numbers {limit}, not {value!r}")
    return number


class BudgetSpent(BaseException):
    """Ends a method that continues after its budget is used up."""


@dataclass
class Hooks:
    """Observers of a running method; the clock runs while they are called."""

    after_step: Callable[[], None] = lambda: None
    on_phase: Callable[[str], None] = lambda phase: None  # noqa: ARG005
    on_keep: Callable[[str, Any], None] = lambda name, thing: None  # noqa: ARG005
    untouched: Callable[[], bool] = lambda: True  # whether torch is torch, asked before every question


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
        memory_format: str = CONTIGUOUS,
        others: Sequence[nn.Module] = (),
        anchors: Sequence[Mapping[str, Tensor]] = (),
        fresh_teacher: Callable[[int], nn.Module] | None = None,
        hooks: Hooks | None = None,
        skip_phases: Sequence[str] = (),
    ) -> None:
        """
        Args:
            image: the geometry of the images.
            teacher: trained, frozen, in evaluation mode; or the way to all teachers where they are in another process.
            student: untrained.
            budget: what the method may spend.
            access: how far into the teacher the method may look.
            data: the real images that it declared.
            device: where everything runs.
            seed: of all random streams.
            real: the images that ``data`` stands for.
            augment: what happens to real images.
            precision: ``float32``, or the type of autocast.
            memory_format: of all networks, and of real images; the teacher has it already.
            others: the further teachers of a task with several, like ``teacher``.
            anchors: the teacher's weights at its anchors, the earliest first, without those of the teacher itself.
            fresh_teacher: makes the architecture of a teacher, 0 the first, with fresh weights.
            hooks: observers of steps, phases and kept objects.
            skip_phases: those that had ended when the trial was stopped.
        """
        self.image = image
        self.budget = budget
        self.access = access
        self.used = Access.NONE  # the deepest access that the method really made use of
        self.data = data
        self.device = device
        self.memory_format = memory_format
        self.student = lay_out(student.to(device), memory_format).train()
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
        self._teachers: list[CountedTeacher] = []
        self.trajectory: TeacherTrajectory | None = None
        if isinstance(teacher, nn.Module):
            networks = [each.to(device) for each in (teacher, *others)]
            self._teachers = [CountedTeacher(each, image.shape, self.meter) for each in networks]
            self.uses = [each.use for each in self._teachers]
            if anchors:
                self.trajectory = TeacherTrajectory(teacher, anchors, image.shape, self.meter, self.uses[0])
        else:
            self._remote = teacher
            self._remote.meter = self.meter
            self.uses = self._remote.uses
        self._fresh_teacher = fresh_teacher
        self._counter = Counter(self.meter, image.shape, self._watching)
        self._real = RealImages(real, image, seed, device, augment) if isinstance(real, Split) else real
        self._copies: list[nn.Module] = []
        self._shares = 0.0
        self._student_parameters = {id(parameter) for parameter in self.student.parameters()}
        self._moves_student: dict[int, bool] = {}
        self.updates = Updates(device, precision)
        self._averaged = 0
        self._phase_start = 0.0
        self._in_step = False
        self._collecting = False
        self._owner = threading.get_ident()
        self._refused: MethodError | None = None
        self._left_at: list[Tensor] | None = None  # the student at the end of the last loop
        self.learning: Callable[[], None] = self._must_be_in_a_loop  # told of everything that trains
        self._counter.before, self._counter.learning = self._charge, lambda: self.learning()
        for each in [self._remote] if self._remote else self._teachers:
            each.learning = lambda: self.learning()
        if self.trajectory is not None:
            self.trajectory.learning(lambda: self.learning())
        self._counter.watch_student(self.student, self._student_saw)
        self.student_side = StudentSide(self.student, image.shape, self._counter)
        self._hook = register_optimizer_step_post_hook(self._optimizer_stepped)

    # ---- running and the clock -------------------------------------------------------------------------------------

    def __enter__(self) -> TrialContext:
        _current.append(self)
        self._counter.install()
        return self

    def __exit__(self, *error: object) -> None:
        self.clock.stop()
        self._counter.remove()
        self._hook.remove()
        _current.remove(self)

    @property
    def progress(self) -> float:
        self.clock.read()
        return min(self.budget.progress(self.meter)[0], 1.0)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def steps(self, phase: str, share: float | None) -> Iterator[float]:
        if not isinstance(phase, str):
            raise MethodError(
                f"s.steps(phase) takes the phase's name, such as s.steps('train'), not {type(phase).__name__}: "
                "the budget says how many steps there are"
            )
        if phase in self.phases:
            raise MethodError(f"two loops are named {phase!r}")
        if self._in_step:
            raise MethodError(f"the loop {phase!r} begins inside a step of another loop")
        end = 1.0 if share is None else self._shares + share
        if not self._shares < end <= 1.0 + 1e-9:
            raise MethodError(f"the shares of the phases up to {phase!r} add up to {end:g}; the maximum is 1")
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
                self.check_counting()
                self.hooks.after_step()
        finally:
            self._in_step = False  # the method may leave the loop with `break`
            self._left_at = [value.detach().clone() for value in self.student.state_dict().values()]

    def _charge(self) -> None:
        """Between the loops work is allowed, but not beyond the budget; within one step it may run over."""
        if not self._in_step and self.clock.running and self.progress >= 1.0:
            raise BudgetSpent

    def _watching(self) -> bool:
        """Whether it is the method that works now, and not the harness: a thread of the method's always is."""
        return self.clock.running or self._collecting or threading.get_ident() != self._owner

    @contextlib.contextmanager
    def _collected(self) -> Iterator[None]:
        """Inside, things of the method's are asked for their state, which may run its code."""
        self._collecting = True
        try:
            yield
        finally:
            self._collecting = False

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Copies of the student's weights and of their average."""
        with self._collected():
            student, average = self.student.state_dict(), self.average.module.state_dict()
        copies = [{name: value.detach().clone() for name, value in each.items()} for each in (student, average)]
        return copies[0], copies[1]

    def _must_be_in_a_loop(self) -> None:
        if not self._in_step and self._watching():
            self._refused = MethodError(
                "something is trained outside a loop: gradients and optimiser steps belong inside "
                "`for _ in s.steps(...)`, which is what the budget counts"
            )
            raise self._refused

    def check_counting(self) -> None:
        """Raise MethodError when the method has put something in the place of what counts, or a thread was refused."""
        if self._refused is not None:
            raise self._refused
        if not self._counter.installed or self._hook.id not in _global_optimizer_post_hooks:
            raise MethodError("the method replaced nn.Module.__call__ or torch's optimiser hooks, by which is counted")

    def check_end(self) -> None:
        """After the method: it had a loop, and left the student as the last step did.

        Raises:
            MethodError: it did not.
        """
        if not self.phases:
            raise MethodError("the method has no loop: train inside `for _ in s.steps(...)`")
        if self._in_step or self._left_at is None:  # it still holds the loop
            return
        now = self.student.state_dict().values()
        if not all(_same_bits(left, value) for left, value in zip(self._left_at, now, strict=True)):
            raise MethodError(
                "the student was changed after the last loop; what is scored is the student as the last step left it: "
                "write into it inside `for _ in s.steps(...)`"
            )

    # ---- networks --------------------------------------------------------------------------------------------------

    def ask_teacher(
        self, images: Tensor, question: Question, anchor: int | None = None, which: int = 0
    ) -> TeacherAnswer:
        """See :meth:`CountedTeacher.ask`; ``anchor`` as in :class:`bench.harness.teacher_view.TeacherView`.

        ``which`` of several teachers, here and below: 0 is the first.
        """
        self._charge()
        if anchor is not None:
            self._check_anchor(anchor, which)
        if self._remote is not None:
            wants = self.access >= Access.GRADIENTS
            return self._remote.teachers[which].ask(images, question, anchor, gradients=wants)
        teacher = self._teachers[which]
        if anchor is not None and self.trajectory is not None and anchor < len(self.trajectory):
            teacher = self.trajectory.at(anchor)
        if not self.hooks.untouched():
            raise AccessDenied("the method replaced functions of torch's that the teacher passes through")
        with self._counter.silent():
            return teacher.ask(images, question, gradients=self.access >= Access.GRADIENTS)

    def _check_anchor(self, anchor: int, which: int) -> None:
        if which:
            raise MethodError(f"anchors are of the first teacher, s.teacher, and not of s.teachers[{which}]")
        if not 0 <= anchor < self.anchors():
            raise MethodError(f"there is no anchor {anchor}: the method declares anchors={self.anchors()}")

    def anchors(self, which: int = 0) -> int:
        """How many anchors there are, the teacher among them; 0 where the method declares none, or of a further one."""
        if which:
            return 0
        if self._remote is not None:
            return self._remote.anchors
        return 0 if self.trajectory is None else len(self.trajectory) + 1

    def _side(self, which: int) -> CountedTeacher | RemoteTeacher:
        return self._teachers[which] if self._remote is None else self._remote.teachers[which]

    def pooled_size(self, pooled: Pooled, which: int = 0) -> int:
        with self._counter.silent():
            return self._side(which).pooled_size(pooled)

    def teacher_layers(self, which: int = 0) -> LayerGroups | RemoteLayers:
        with self._counter.silent():
            return self._side(which).layers

    def classifier_weight(self, which: int = 0) -> Tensor:
        if self._remote is not None:
            return self._remote.teachers[which].classifier_weight()
        return classifier_weight(self._teachers[which].network).detach().clone()

    def classifier_bias(self, which: int = 0) -> Tensor | None:
        if self._remote is not None:
            return self._remote.teachers[which].classifier_bias()
        bias = classifier_bias(self._teachers[which].network)
        return None if bias is None else bias.detach().clone()

    def copy_teacher(self, fresh: bool, which: int = 0) -> nn.Module:
        """See :meth:`bench.harness.teacher_view.TeacherView.copy`."""
        with self._counter.silent():  # somebody else's network is tried as it is built
            network = self._copy_of_teacher(fresh, which)
        copy = lay_out(network.to(self.device), self.memory_format).requires_grad_(True).train()
        self._counter.watch_copy(copy, self.uses[which])
        self._copies.append(copy)
        return copy

    def _copy_of_teacher(self, fresh: bool, which: int) -> nn.Module:
        if self._remote is not None:
            return self._remote.teachers[which].network(fresh)
        if not fresh:
            return bare_copy(self._teachers[which].network)
        if self._fresh_teacher is None:
            raise MethodError("this teacher cannot be built with fresh weights")
        return self._fresh_teacher(which)

    def _student_saw(self, images: Tensor, wanted: bool) -> None:
        if self.student.training and torch.is_grad_enabled() and not wanted:
            self.capture.take(self.meter.steps, images)

    def count_drawn(self, shape: tuple[Any, ...], who: str) -> tuple[int, ...]:
        """Noise in the shape of images counts as synthesised images; returns the shape, checked.

        Raises:
            MethodError: it is no shape, or too large a one.
        """
        if len(shape) == 1 and isinstance(shape[0], list | tuple):
            shape = tuple(shape[0])
        checked = tuple(whole_number(each, f"{who}(*shape)", low=0) for each in shape)
        if math.prod(checked) > NUMBERS:
            raise MethodError(f"{who}{checked} asks for more than {NUMBERS:,} numbers at a time")
        if checked[1:] == self.image.shape:
            self.meter.synthesised_images += checked[0]
        return checked

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
        if not self._watching():
            return
        if id(optimizer) not in self._moves_student:
            if not any(thing is optimizer for thing in self.kept.values()):
                raise MethodError(
                    f"an optimiser ({type(optimizer).__name__}) is used but not kept: s.keep(name, optimizer)"
                )
            parameters = {id(parameter) for parameter in parameters_of(optimizer)}
            self._moves_student[id(optimizer)] = bool(parameters & self._student_parameters)
        self._charge()
        self.learning()
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
        if not isinstance(name, str):
            raise MethodError(f"s.keep(name, thing) takes a name first, such as 'opt_s', not {type(name).__name__}")
        if name in self.kept:
            raise MethodError(f"two objects are kept as {name!r}")
        checkpoint.check_kept(name, thing)
        thing = checkpoint.move_to(thing, self.device)
        if isinstance(thing, nn.Module):
            lay_out(thing, self.memory_format)
        self.kept[name] = thing
        if isinstance(thing, nn.Module) and all(thing is not known for known in (self.student, *self._copies)):
            self._counter.watch_kept(thing)
        self.hooks.on_keep(name, thing)
        return thing

    def log(self, values: dict[str, Tensor | float]) -> None:
        for name, value in values.items():
            if not isinstance(value, Tensor | SupportsFloat):
                raise MethodError(f"s.log({name}=...) takes a number or a tensor, not {type(value).__name__}")
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
        """Everything that :meth:`restore` needs to continue with the same bits; plain data and tensors only."""
        with self._collected():
            return self._state()

    def _state(self) -> dict[str, Any]:
        return {
            "phases": list(self.phases),
            "phase_start": self._phase_start,
            "scalers": self.updates.state(self.kept),
            "meter": vars(self.meter).copy(),
            "uses": [vars(use).copy() for use in self.uses],
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
            raise MethodError(
                "the method keeps different objects than when it was stopped; keep everything before the loop"
            )
        for name, value in state["meter"].items():
            setattr(self.meter, name, value)
        restore_uses(self.uses, state.get("uses", ()))
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


def _same_bits(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    flat = [each.detach().contiguous().view(-1).view(torch.uint8) for each in (left, right)]
    return torch.equal(flat[0], flat[1])
