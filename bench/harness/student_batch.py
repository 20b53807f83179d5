"""What the loss of a student's step is given, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from bench.errors import MethodError
from bench.harness.no_tensor import NoTensor, must_be_tensor

Part = TypeVar("Part")


@dataclass(frozen=True, eq=False, repr=False)
class StudentBatch(NoTensor):
    """One batch of N images that the student is trained on, as the loss of ``Session.student_step`` gets it.

    All parts belong to the same images in the same order. The harness may hold some images out and put others of the
    batch in their place: these are what is left, so a loss uses them and not tensors from outside. Images may occur
    twice. What was not asked for raises an ``AttributeError`` that says how to ask. It is no tensor itself: a function
    of tensors that gets it raises a ``TypeError`` that says so.

    Attributes:
        images: (N, C, H, W), without a gradient.
        teacher: the teacher's logits, (N, classes), or (N, classes, H, W) for segmentation, without a gradient.
        student: the student's logits, of the same shape, with a gradient to the student.
    """

    _use: ClassVar[str] = ".student, .teacher, .images, or another part that was asked for"

    images: Tensor
    teacher: Tensor
    student: Tensor
    _rows: Tensor | tuple[Tensor, ...] | None = None
    _features: Tensor | None = None
    _groups: tuple[Tensor, ...] | None = None
    _layers: tuple[tuple[Tensor, ...], ...] | None = None
    _penultimate: Tensor | None = None

    @property
    def rows(self) -> Any:
        """What was given as ``rows``: one tensor (N, ...), or a tuple of such tensors."""
        return _asked(self._rows, "rows=tensor")

    @property
    def features(self) -> Tensor:
        """The input of the student's head, (N, D), or (N, D, h, w) for segmentation; only with ``features=True``."""
        return _asked(self._features, "features=True")

    @property
    def groups(self) -> tuple[Tensor, ...]:
        """The outputs (N, C, h, w) of the student's stages, in the order of the forward pass; only with
        ``groups=True``."""
        return _asked(self._groups, "groups=True")

    @property
    def layers(self) -> tuple[tuple[Tensor, ...], ...]:
        """The maps (N, C, h, w) of the student's layers, one tuple for each layer group; only with ``layers=True``."""
        return _asked(self._layers, "layers=True")

    @property
    def penultimate(self) -> Tensor:
        """The input (N, D) of ``student_classifier``; only with ``penultimate=True``."""
        return _asked(self._penultimate, "penultimate=True")


def _asked(part: Part | None, how: str) -> Part:
    if part is None:
        raise AttributeError(f"ask for it: s.student_step(..., {how})")
    return part


def checked_rows(rows: Any, what: str) -> Tensor | tuple[Tensor, ...] | None:
    """Rows as they were given, a list as a tuple.

    Raises:
        MethodError: they are neither a tensor nor tensors.
    """
    if rows is None:
        return None
    if isinstance(rows, list | tuple):
        for place, each in enumerate(rows):
            must_be_tensor(each, f"{what}, at place {place},")
        return tuple(rows)
    must_be_tensor(rows, what)
    checked: Tensor = rows
    return checked


def must_fit(value: Tensor | Sequence[Tensor] | None, images: Tensor, what: str) -> None:
    """Raise MethodError unless a tensor, or each of some, has one row for each image."""
    for each in () if value is None else (value,) if isinstance(value, Tensor) else value:
        if each.shape[:1] != images.shape[:1]:
            raise MethodError(
                f"{what} takes one row for each image: {tuple(each.shape)} does not fit images {tuple(images.shape)}"
            )


def in_order(value: Any, order: Tensor) -> Any:
    """The rows of a tensor, or of each tensor of a tuple, in an order (N,)."""
    if isinstance(value, tuple):
        return tuple(in_order(each, order) for each in value)
    return None if value is None else value[order.to(value.device)]


@dataclass(frozen=True)
class LossForm:
    """How a method's loss is called, and what is said where it is another."""

    name: str
    form: str
    others: str  # what a loss of another form is to do

    def check(self, loss: Any) -> None:
        """Raise MethodError unless a loss is a function."""
        if isinstance(loss, type):
            raise MethodError(f"{self.name} is a function, {self.form}, not a class: make one, {loss.__name__}()")
        if not callable(loss):
            raise MethodError(f"{self.name} is a function, {self.form}, not {type(loss).__name__}; {self.others}")

    def value(self, loss: Callable[..., Tensor], *given: Any) -> Tensor:
        """What a loss makes of its arguments.

        Raises:
            MethodError: it does not take these arguments, or gives no tensor.
        """
        try:
            value = loss(*given)
        except TypeError:
            if (names := _other_arguments(loss, given)) is None:
                raise
            raise MethodError(f"{self.name} is called as {self.form}, and takes {names}; {self.others}") from None
        if not isinstance(value, Tensor):
            raise MethodError(f"{self.name} gives a scalar tensor, not {type(value).__name__}")
        return value


CRITERION = LossForm(
    "criterion= of s.distill",
    "f(teacher_logits, student_logits)",
    "a loss that needs more than these is one of s.student_step(optimizer, images, loss)",
)
OWN_LOSS = LossForm(
    "the loss of s.student_step",
    "loss(batch)",
    "the logits are batch.teacher and batch.student, and for these alone there is criterion= of s.distill",
)


def _other_arguments(loss: Callable[..., Tensor], given: tuple[Any, ...]) -> str | None:
    """The names of a function's arguments where it does not take those given; None where it does, or cannot tell."""
    try:
        signature = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*given)
    except TypeError:
        return f"({', '.join(signature.parameters)})"
    return None
