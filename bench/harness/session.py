"""All that a method can see and do.

A Session is a thin shell: it holds nothing but the task's geometry. Networks, data, clock and counters are on the
harness's side (:mod:`bench.harness.trial_context`), so that no attribute of a Session leads to a real image or
to the teacher's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench.data.batches import RealImages
from bench.data.image_spec import ImageSpec
from bench.errors import DataLeak, MethodError
from bench.harness.losses import kl_divergence
from bench.harness.student_view import GroupBy
from bench.harness.teacher_view import BatchNormStatistics, TeacherOutput, TeacherView, need
from bench.harness.trial_context import current
from bench.models import head, linear_classifier
from bench.models.layer_groups import Shape
from bench.spec.method import Access, Data

if TYPE_CHECKING:
    from bench.harness.isolation.remote import RemoteImages

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class TaskView:
    """What a method may know of its task: the images' geometry, the number of classes, and whether networks answer for
    every pixel, with logits (N, classes, H, W)."""

    image: ImageSpec
    classes: int
    segmentation: bool = False


class Session:
    """One trial, as its method sees it."""

    task: TaskView
    teacher: TeacherView

    def __init__(self, task: TaskView) -> None:
        self.task = task
        self.teacher = TeacherView()

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
        context = current()
        context.count_drawn(shape)
        return torch.randn(*shape, generator=context.streams[stream], device=context.device)

    def uniform(self, *shape: int, stream: str = "uniform") -> Tensor:
        """Uniform numbers in [0, 1) from a named random stream."""
        context = current()
        context.count_drawn(shape)
        return torch.rand(*shape, generator=context.streams[stream], device=context.device)

    def generator(self, stream: str, *, host: bool = False) -> torch.Generator:
        """A named random stream for torch's own functions (``torch.randint(..., generator=s.generator("labels"))``).

        With ``host`` it is on the CPU whatever the device: for a number that Python itself needs (a shift of all
        images) or an index into a store on the host, so that no step waits for a GPU.
        """
        streams = current().streams
        return streams.on_host(stream) if host else streams[stream]

    def images(self, batch: int, *, part: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """The next real images that the method declared, normalised (N, C, H, W), shuffled anew every epoch.

        They are augmented as the task says (crops, mirror images). With ``Data.TRAIN`` the second tensor is their
        labels, int64 (N,); for segmentation (N, H, W), with -100 for pixels of no class, which torch's cross-entropy
        leaves out. With ``Data.POOL`` there are no labels: it is each image's place in the pool, int64 (N,), from 0 to
        ``pool_size`` - 1.

        With ``part=(i, n)`` they come out of the i-th (from 0) of n equal parts of the training images alone, as for a
        method that learns something on one half and something else on the other. Parts have no image in common, are the
        same all through the trial, and go their own ways: what was taken out of one does not change what comes next.

        Raises:
            DataLeak: the method declared ``Data.NONE``.
            MethodError: there is no such part.
        """
        context = current()
        if context.data is Data.NONE:
            raise DataLeak("the method asks for real images, but declares Data.NONE")
        if part is None:
            source = context.real
        elif context.data is Data.TRAIN:
            source = context.real.part(*part)
        else:
            raise MethodError("parts are of the training images; with Data.POOL use choose()")
        context.meter.real_images += batch
        return source.take(batch)

    @property
    def pool_size(self) -> int:
        """How many images the pool has; with ``Data.POOL``."""
        return len(_pool())

    def survey(self, batch: int) -> tuple[Tensor, Tensor]:
        """The next images of the whole pool, normalised and not augmented, and their places; to judge them, say.

        They come in one random order, each once before any comes again, whatever :meth:`choose` chose. The last batch
        of a round may be smaller. With ``Data.POOL``.
        """
        images, places = _pool().survey(batch)
        current().meter.real_images += len(places)
        return images, places

    def choose(self, places: Tensor) -> None:
        """From now on :meth:`images` gives only these images of the pool: ``places`` is int64 (M,), M at least 1.

        With ``Data.POOL``. The choice is saved and restored with the trial.
        """
        if places.dtype != torch.int64 or places.ndim != 1 or not len(places):
            raise MethodError(
                f"choose() takes int64 places (M,), M at least 1, not {places.dtype} {tuple(places.shape)}"
            )
        _pool().choose(places)

    def update(self, optimizer: Optimizer, loss: Tensor, *, clip: float | None = None) -> None:
        """One optimiser step on ``loss``; gradients are computed for this optimiser's parameters only.

        With ``clip`` their common L2 norm is scaled down to it first, where it is larger. The gradients stay in the
        parameters' ``grad`` until the optimiser's next update.

        Raises:
            MethodError: no parameter of the optimiser has a part in the loss.
        """
        current().update(optimizer, loss, clip)

    def apply(self, optimizer: Optimizer, gradients: Sequence[Tensor], *, clip: float | None = None) -> None:
        """One optimiser step on gradients that are known: those of a meta-learner, added up over inner updates.

        Args:
            optimizer: kept, as for :meth:`update`.
            gradients: one for each of its parameters, in their order and shapes.
            clip: the largest common L2 norm.
        """
        current().apply(optimizer, gradients, clip)

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
        criterion: Callable[..., Tensor] | None = None,
        rows: Tensor | None = None,
        groups: Sequence[Tensor] | None = None,
        group_loss: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor] | None = None,
        group_by: GroupBy = "stages",
        penultimate: bool = False,
        clip: float | None = None,
    ) -> Tensor:
        """One student step on alpha * KL_tau(teacher || student) + beta * CE(student, labels) + group_loss.

        Args:
            optimizer: over the student's parameters.
            images: normalised (N, C, H, W); detached here.
            logits: the teacher's answer to these images, if it is known already; else the teacher is asked.
            temperature: tau; the loss has the factor tau^2 and is averaged over the batch.
            alpha: weight of the teacher's term.
            labels: int64 (N,), or (N, H, W) for segmentation, for ``beta`` above 0.
            beta: weight of the cross-entropy with ``labels``.
            criterion: ``f(teacher_logits, student_logits)`` in place of the KL divergence; with ``rows`` it is called
                ``f(teacher_logits, student_logits, rows)``.
            rows: something of each image's own, (N, ...): its weight, or its place in a store. The harness may hold
                images out and put others in their place; the criterion gets the rows of those that are trained on.
            groups: the teacher's groups of these images, if they are known already.
            group_loss: ``f(teacher_groups, student_groups)``, added as it is; the student's groups come from the same
                forward pass as its logits.
            group_by: what the groups are: the outputs of the networks' stages, or with "layers" the last map of each
                layer group (see :meth:`student_groups`).
            penultimate: the criterion gets one more tensor, after the logits: the student's penultimate features (N, D)
                from the same forward pass, the input of :attr:`student_classifier`.
            clip: the largest common L2 norm of the gradients.

        Returns:
            The loss, detached.
        """
        context = current()
        images = images.detach()
        asks_groups = group_loss is not None and groups is None
        if logits is None or asks_groups:
            with torch.no_grad():
                by_layers = asks_groups and group_by == "layers"
                out = self.teacher(images, groups=asks_groups and not by_layers, layers=by_layers)
            logits = out.logits if logits is None else logits
            if asks_groups:
                groups = [group[-1] for group in out.layers] if by_layers else out.groups
        need(Access.LOGITS, "the teacher's logits")
        logits = logits.detach()
        groups = [group.detach() for group in groups or ()]
        order = context.withhold(images, logits)
        if order is not None:
            images, logits, groups = images[order], logits[order], [group[order] for group in groups]
            labels = labels[order] if labels is not None else None
            rows = rows[order.to(rows.device)] if rows is not None else None
        answer, own_groups, last = context.student_side.ask(
            images, groups=group_by if group_loss is not None else None, penultimate=penultimate
        )
        if criterion is None:
            loss = alpha * kl_divergence(logits, answer, temperature)
        else:
            loss = alpha * criterion(logits, answer, *last, *(() if rows is None else (rows,)))
        if labels is not None and beta:
            loss = loss + beta * nn.functional.cross_entropy(answer, labels)
        if group_loss is not None:
            loss = loss + group_loss(groups, own_groups)
        context.update(optimizer, loss, clip)
        return loss.detach()

    def student_features(self, images: Tensor, *, penultimate: bool = False) -> tuple[Tensor, Tensor]:
        """The student's logits and features (the input of its head) of normalised images, from one forward pass.

        With ``penultimate`` the features are the input (N, D) of :attr:`student_classifier`.
        """
        return current().student_side.features(images, penultimate)

    @property
    def student_layer_shapes(self) -> tuple[tuple[Shape, ...], ...]:
        """Of each of the student's layer groups the shapes (C, h, w) of its maps, all the same.

        A layer group are the layers that follow each other and make maps of one shape.

        Raises:
            Unsupported: the network names no layers; the trial is left out by plan.
        """
        return current().student_side.layers.shapes

    def student_groups(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The student's logits and the last map (N, C, h, w) of each layer group, from one forward pass."""
        return current().student_side.groups(images)

    def student_from(self, images: Tensor, group: int, maps: Tensor) -> Tensor:
        """The student's logits with ``maps`` (N, C, h, w) in the place of the last ones of a layer group, from 0.

        It is a whole forward pass and counted as one; what is before the group has no part in the answer.
        """
        return current().student_side.go_on_from(images, group, maps)

    @property
    def student_classifier(self) -> nn.Linear:
        """The student's last layer, (classes, D), to be written, or to be left out of an optimiser; not to be called.

        For a method that trains through another classifier: what is scored is the student as it stands.

        Raises:
            Unsupported: it is no linear layer; the trial is left out by plan.
        """
        return linear_classifier(current().student)

    def student_head(self, features: Tensor) -> Tensor:
        """The student's logits for features, as :meth:`student_features` gives them."""
        logits: Tensor = head(current().student)(features)
        return logits

    def log(self, **values: Tensor | float) -> None:
        """Record scalars; the curve holds their means between two evaluations."""
        current().log(values)


def _pool() -> RealImages | RemoteImages:
    context = current()
    if context.data is not Data.POOL:
        raise DataLeak(f"the method asks for a pool, but declares Data.{context.data.name}")
    return context.real


def session_for(image: ImageSpec, classes: int, segmentation: bool = False) -> Session:
    """The session of the trial that is being set up in this process."""
    return Session(TaskView(image, classes, segmentation))


__all__ = ["BatchNormStatistics", "Session", "TaskView", "TeacherView", "TeacherOutput", "session_for"]
