"""All that a method can see and do.

A Session is a thin shell: it holds nothing but the task's geometry. Networks, data, clock and counters are on the
harness's side (:mod:`bench.desk`), so that no attribute of a Session leads to a real image or to the teacher's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench.declare import Access, Data
from bench.desk import current
from bench.errors import AccessDenied, DataLeak
from bench.losses import kl_divergence
from bench.task import ImageSpec

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class TaskView:
    """What a method may know of its task: the images' geometry, the number of classes, and whether networks answer for
    every pixel, with logits (N, classes, H, W)."""

    image: ImageSpec
    classes: int
    segmentation: bool = False


@dataclass(frozen=True)
class BatchNormStatistics:
    """One batch-norm layer of the teacher: statistics of its input over (N, H, W), and the stored running ones."""

    mean: Tensor
    var: Tensor  # biased
    running_mean: Tensor
    running_var: Tensor


class TeacherOutput:
    """The teacher's answer to a batch, as far as the method's declared access goes."""

    def __init__(
        self,
        logits: Tensor,
        features: Tensor | None,
        batch_norm: tuple[BatchNormStatistics, ...] | None,
    ) -> None:
        self._logits = logits
        self._features = features
        self._batch_norm = batch_norm

    @property
    def labels(self) -> Tensor:
        """The predicted classes, int64 (N,); (N, H, W) for segmentation."""
        return self._logits.argmax(1)

    @property
    def logits(self) -> Tensor:
        """(N, classes), or (N, classes, H, W) for segmentation; with a gradient from ``Access.GRADIENTS`` on."""
        _need(Access.LOGITS, "the teacher's logits")
        return self._logits

    @property
    def features(self) -> Tensor:
        """The input of the network's head; only when asked for with ``features=True``.

        (N, D), or (N, D, h, w) for segmentation.
        """
        if self._features is None:
            raise AttributeError("ask for features: s.teacher(images, features=True)")
        return self._features

    @property
    def batch_norm(self) -> tuple[BatchNormStatistics, ...]:
        """One entry a batch-norm layer, in the order of the forward pass; only with ``batch_norm=True``."""
        if self._batch_norm is None:
            raise AttributeError("ask for the statistics: s.teacher(images, batch_norm=True)")
        return self._batch_norm


class Teacher:
    """The frozen teacher, in evaluation mode. Calling it is metered and limited to the declared access."""

    def __call__(self, images: Tensor, *, features: bool = False, batch_norm: bool = False) -> TeacherOutput:
        """Ask about normalised images (N, C, H, W).

        Raises:
            AccessDenied: the method declared less access than it uses.
        """
        desk = current()
        _need(Access.LABELS, "the teacher")
        if features:
            _need(Access.FEATURES, "the teacher's features")
        if batch_norm:
            _need(Access.BATCH_NORM, "the teacher's batch-norm statistics")
        wants_gradient = images.requires_grad and torch.is_grad_enabled()
        if wants_gradient:
            _need(Access.GRADIENTS, "gradients through the teacher (else detach the images)")
        logits, tapped, statistics = desk.ask_teacher(images, features, batch_norm)
        found = tuple(BatchNormStatistics(*entry) for entry in statistics) if batch_norm else None
        return TeacherOutput(logits, tapped, found)

    @property
    def classifier_weight(self) -> Tensor:
        """A copy of the last linear layer's weight, (classes, D): the class templates of ZSKD."""
        _need(Access.PARAMETERS, "the teacher's weights")
        return current().classifier_weight()


class Session:
    """One trial, as its method sees it."""

    task: TaskView
    teacher: Teacher

    def __init__(self, task: TaskView) -> None:
        self.task = task
        self.teacher = Teacher()

    @property
    def student(self) -> nn.Module:
        """The student, in training mode, on the trial's device."""
        return current().student

    @property
    def progress(self) -> float:
        """The share of the whole budget that is spent, 0 to 1: what learning-rate schedules follow."""
        return current().progress

    @property
    def device(self) -> torch.device:
        """Where tensors of the method's own must live."""
        return current().device

    def keep(self, name: str, thing: Kept) -> Kept:
        """Move a module or tensor to the device, meter it, and save and restore it with the trial.

        Everything that changes from step to step must be kept: modules, optimisers, tensors, dictionaries of plain
        values, and objects with ``state_dict`` and ``load_state_dict``.

        Raises:
            MethodError: the name is taken, or the thing cannot be saved.
        """
        kept: Kept = current().keep(name, thing)
        return kept

    def steps(self, phase: str, share: float | None = None) -> Iterator[float]:
        """Loop until the phase's share of the budget (or all that is left) is spent.

        Yields the phase's own progress, 0 to 1. The harness evaluates, saves and counts between two passes.

        Raises:
            MethodError: a phase's name is used twice, or the shares add up to more than 1.
        """
        return current().steps(phase, share)

    def noise(self, *shape: int, stream: str = "noise") -> Tensor:
        """Standard normal numbers from a named random stream."""
        desk = current()
        desk.count_drawn(shape)
        return torch.randn(*shape, generator=desk.streams[stream], device=desk.device)

    def uniform(self, *shape: int, stream: str = "uniform") -> Tensor:
        """Uniform numbers in [0, 1) from a named random stream."""
        desk = current()
        desk.count_drawn(shape)
        return torch.rand(*shape, generator=desk.streams[stream], device=desk.device)

    def generator(self, stream: str) -> torch.Generator:
        """A named random stream for torch's own functions (``torch.randint(..., generator=s.generator("labels"))``)."""
        return current().streams[stream]

    def images(self, batch: int) -> tuple[Tensor, Tensor]:
        """The next real training images, normalised (N, C, H, W), and labels, in an order shuffled every epoch.

        They are augmented as the task says (crops, mirror images). Labels are int64 (N,); for segmentation (N, H, W),
        with -100 for pixels of no class, which torch's cross-entropy leaves out.

        Raises:
            DataLeak: the method declared ``Data.NONE``.
        """
        desk = current()
        if desk.data is Data.NONE:
            raise DataLeak("the method asks for real images, but declares Data.NONE")
        return desk.real_images(batch)

    def update(self, optimizer: Optimizer, loss: Tensor) -> None:
        """One optimiser step on ``loss``; gradients are computed for this optimiser's parameters only.

        Raises:
            MethodError: no parameter of the optimiser has a part in the loss.
        """
        current().update(optimizer, loss)

    def distill(
        self,
        optimizer: Optimizer,
        images: Tensor,
        *,
        logits: Tensor | None = None,
        temperature: float = 1.0,
        alpha: float = 1.0,
        labels: Tensor | None = None,
        beta: float = 0.0,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """One student step on alpha * KL_tau(teacher || student) + beta * CE(student, labels).

        Args:
            optimizer: over the student's parameters.
            images: normalised (N, C, H, W); detached here.
            logits: the teacher's answer to these images, if it is known already; else the teacher is asked.
            temperature: tau; the loss has the factor tau^2 and is averaged over the batch.
            alpha: weight of the teacher's term.
            labels: int64 (N,), or (N, H, W) for segmentation, for ``beta`` above 0.
            beta: weight of the cross-entropy with ``labels``.
            criterion: ``f(teacher_logits, student_logits)`` in place of the KL divergence.

        Returns:
            The loss, detached.
        """
        desk = current()
        images = images.detach()
        if logits is None:
            with torch.no_grad():
                logits = self.teacher(images).logits
        _need(Access.LOGITS, "the teacher's logits")
        logits = logits.detach()
        order = desk.withhold(images, logits)
        if order is not None:
            images, logits = images[order], logits[order]
            labels = labels[order] if labels is not None else None
        answer = self.student(images)
        matching = criterion or (lambda teacher, student: kl_divergence(teacher, student, temperature))
        loss = alpha * matching(logits, answer)
        if labels is not None and beta:
            loss = loss + beta * nn.functional.cross_entropy(answer, labels)
        desk.update(optimizer, loss)
        return loss.detach()

    def log(self, **values: Tensor | float) -> None:
        """Record scalars; the curve holds their means between two evaluations."""
        current().log(values)


def _need(level: Access, what: str) -> None:
    desk = current()
    if desk.access < level:
        raise AccessDenied(f"the method uses {what}, but declares Access.{desk.access.name}, not Access.{level.name}")
    desk.used = max(desk.used, level)


def session_for(image: ImageSpec, classes: int, segmentation: bool = False) -> Session:
    """The session of the trial that is being set up in this process."""
    return Session(TaskView(image, classes, segmentation))


__all__ = ["BatchNormStatistics", "Session", "TaskView", "Teacher", "TeacherOutput", "session_for"]
