"""Everything that a method can see and do.

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
from bench.harness.no_tensor import Named, must_be_optimizer, must_be_tensor
from bench.harness.student_view import GroupBy
from bench.harness.teacher_view import BatchNormStatistics, TeacherOutput, TeacherView, need
from bench.harness.trial_context import current, whole_number
from bench.models import linear_classifier
from bench.models.layer_groups import Shape
from bench.spec.method import Access, Data
from bench.utils.memory_format import laid_out

if TYPE_CHECKING:
    from bench.harness.isolation.remote import RemoteImages

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class TaskView(Named):
    """What a method may know about its task.

    Attributes:
        image: the geometry and normalisation of the images.
        classes: the number of classes.
        segmentation: whether the networks answer for every pixel. Logits are then (N, classes, H, W), not (N, classes).
    """

    image: ImageSpec
    classes: int
    segmentation: bool = False


class Session(Named):
    """One trial, as its method sees it: the first argument of a method.

    Images are always normalised, float32 (N, C, H, W), on the trial's device.

    Attributes:
        task: what may be known of the task.
        teacher: the frozen teacher; call it to ask about images. Of a task with several it is the first.
        teachers: all teachers of the task, ``teacher`` first; most tasks have one. Each is asked with the same declared
            access, and counts: images of two teachers are twice as many teacher images.
    """

    task: TaskView
    teacher: TeacherView
    teachers: tuple[TeacherView, ...]

    def __init__(self, task: TaskView, teachers: int = 1) -> None:
        self.task = task
        self.teachers = tuple(TeacherView(which) for which in range(teachers))
        self.teacher = self.teachers[0]

    @property
    def student(self) -> nn.Module:
        """The student, in training mode, on the trial's device. Call it whole: what is inside is not counted."""
        return current().student

    @property
    def progress(self) -> float:
        """The share of the whole budget that is spent, 0 to 1. Learning-rate schedules follow it."""
        return current().progress

    @property
    def device(self) -> torch.device:
        """The device of the trial. Tensors that a method makes must be made there."""
        return current().device

    def keep(self, name: str, thing: Kept) -> Kept:
        """Move a module or tensor to the device, count its work, and save and restore it with the trial.

        Everything that changes from step to step must be kept: modules, optimisers, tensors, dictionaries of plain
        values, and objects with ``state_dict`` and ``load_state_dict``. Keep a module before you make its optimiser,
        and keep everything before the first loop that uses it.

        Args:
            name: any name that is not taken yet; the trial's checkpoint uses it.
            thing: what to keep.

        Returns:
            The thing, on the device. Use this one from then on.

        Raises:
            MethodError: the name is taken, or the thing cannot be saved.
        """
        kept: Kept = current().keep(name, thing)
        return kept

    def steps(self, phase: str, share: float | None = None) -> Iterator[float]:
        """Loop until the phase's share of the budget is spent. One pass through the loop is one step.

        The harness evaluates, saves and counts between two passes.

        Args:
            phase: the name of the phase.
            share: the part of the whole budget for this phase, above 0 and at most 1; by default all of the rest.

        Yields:
            The phase's own progress, 0 to 1, before each step.

        Raises:
            MethodError: the name is used twice, the loop begins inside another one, the share is not above 0, or the
                shares of all phases add up to more than 1.
        """
        return current().steps(phase, share)

    def noise(self, *shape: int, stream: str = "noise") -> Tensor:
        """Draw standard normal numbers, float32 on the device, from a named random stream.

        Args:
            shape: the shape of the tensor. Noise of the shape (N, C, H, W) of the task's images counts as synthesised
                images.
            stream: the name of the stream. Streams with different names are independent of each other; each is seeded
                by the trial and continues after an interruption.
        """
        context = current()
        shape = context.count_drawn(shape, "s.noise")
        return torch.randn(*shape, generator=context.streams[stream], device=context.device)

    def uniform(self, *shape: int, stream: str = "uniform") -> Tensor:
        """Draw uniform numbers in [0, 1), float32 on the device, from a named random stream.

        Args:
            shape: the shape of the tensor, as in ``noise``.
            stream: the name of the stream, as in ``noise``.
        """
        context = current()
        shape = context.count_drawn(shape, "s.uniform")
        return torch.rand(*shape, generator=context.streams[stream], device=context.device)

    def generator(self, stream: str, *, host: bool = False) -> torch.Generator:
        """A named random stream for torch's own functions: ``torch.randint(..., generator=s.generator("labels"))``.

        Args:
            stream: the name of the stream, as in ``noise``.
            host: the stream is on the CPU, whatever the device. Use it for a number that Python needs (a shift of all
                images) or an index into a store on the CPU, so that no step waits for a GPU.
        """
        streams = current().streams
        return streams.on_host(stream) if host else streams[stream]

    def images(self, batch: int, *, part: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """The next real images that the method declared, shuffled again in every epoch.

        They are augmented as the task says (crops, mirror images).

        Args:
            batch: how many images, N.
            part: ``(i, n)`` draws from the i-th (from 0) of n equal parts of the training images only, for a method
                that learns one thing on one half and another on the other half. Parts have no image in common and stay
                the same during a trial. Drawing from one part does not change what another gives next.

        Returns:
            The images (N, C, H, W), and a second tensor. With ``Data.TRAIN`` it has their labels, int64 (N,); for
            segmentation (N, H, W), with -100 for pixels of no class, which torch's cross-entropy leaves out. With
            ``Data.POOL`` there are no labels: it has the place of each image in the pool, int64 (N,), from 0 to
            ``pool_size`` - 1.

        Raises:
            DataLeak: the method declared ``Data.NONE``.
            MethodError: there is no such part, the images are those of a pool, or ``batch`` is not a number from 1 to
                1,000,000.
        """
        context = current()
        batch = whole_number(batch, "s.images(batch)")
        if context.data is Data.NONE:
            raise DataLeak("the method requests real images, but declares Data.NONE")
        if part is None:
            source = context.real
        elif context.data is Data.TRAIN:
            source = context.real.part(*part)
        else:
            raise MethodError("parts are of the training images; with Data.POOL use choose()")
        images, second = source.take(batch)
        context.meter.real_images += batch
        return laid_out(images, context.memory_format), second

    @property
    def pool_size(self) -> int:
        """How many images the pool has.

        Raises:
            DataLeak: the method did not declare ``Data.POOL``.
        """
        return len(_pool())

    def survey(self, batch: int) -> tuple[Tensor, Tensor]:
        """The next images of the whole pool, not augmented: for example to let the teacher judge them.

        They come in one random order, each once before any comes again, whatever ``choose`` chose.

        Args:
            batch: how many images, N. The last batch of a round may be smaller.

        Returns:
            The images (N, C, H, W), and their places in the pool, int64 (N,).

        Raises:
            DataLeak: the method did not declare ``Data.POOL``.
        """
        context = current()
        images, places = _pool().survey(whole_number(batch, "s.survey(batch)"))
        context.meter.real_images += len(places)
        return laid_out(images, context.memory_format), places

    def choose(self, places: Tensor) -> None:
        """Restrict ``images`` to some images of the pool, until the next call. The choice is saved with the trial.

        Args:
            places: the places of the images in the pool, int64 (M,), M at least 1.

        Raises:
            DataLeak: the method did not declare ``Data.POOL``.
            MethodError: the places are of another type or shape.
        """
        if places.dtype != torch.int64 or places.ndim != 1 or not len(places):
            raise MethodError(
                f"choose() takes int64 places (M,), M at least 1, not {places.dtype} {tuple(places.shape)}"
            )
        _pool().choose(places)

    def update(self, optimizer: Optimizer, loss: Tensor, *, clip: float | None = None) -> None:
        """One optimiser step on a loss. Gradients are computed for this optimiser's parameters only.

        They stay in the parameters' ``grad`` until the optimiser's next update.

        Args:
            optimizer: an optimiser that is kept.
            loss: a scalar.
            clip: the largest common L2 norm of the gradients, above 0. Larger gradients are scaled down to it.

        Raises:
            MethodError: no parameter of the optimiser has a part in the loss, or ``clip`` is not above 0.
        """
        must_be_optimizer(optimizer, "s.update(optimizer, loss)")
        must_be_tensor(loss, "the loss of s.update(optimizer, loss)")
        current().update(optimizer, loss, clip)

    def apply(self, optimizer: Optimizer, gradients: Sequence[Tensor], *, clip: float | None = None) -> None:
        """One optimiser step on gradients that are known, such as those that a meta-learner adds up over inner updates.

        Args:
            optimizer: an optimiser that is kept.
            gradients: one for each of its parameters, in their order and shapes.
            clip: the largest common L2 norm of the gradients, as in ``update``.

        Raises:
            MethodError: the gradients are not those of the parameters, or ``clip`` is not above 0.
        """
        must_be_optimizer(optimizer, "s.apply(optimizer, gradients)")
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
        """One student step on ``alpha * KL_tau(teacher || student) + beta * CE(student, labels) + group_loss``.

        Args:
            optimizer: an optimiser of the student's parameters that is kept.
            images: (N, C, H, W); detached here. They count as student images.
            logits: the teacher's logits for these images, where they are known already, or the mean of those of several
                teachers; otherwise ``s.teacher`` is asked.
            temperature: tau, above 0. The loss has the factor tau^2 and is averaged over the batch.
            alpha: the weight of the teacher's term.
            labels: int64 (N,), or (N, H, W) for segmentation; used where ``beta`` is not 0.
            beta: the weight of the cross-entropy with ``labels``.
            criterion: ``f(teacher_logits, student_logits)``, used instead of the KL divergence. With ``rows`` it is
                called ``f(teacher_logits, student_logits, rows)``.
            rows: a tensor (N, ...) with one row for each image, such as its weight or its place in a store. The harness
                may hold images out and put others in their place; the criterion gets the rows of those that are
                trained on.
            groups: the teacher's groups for these images, where they are known already.
            group_loss: ``f(teacher_groups, student_groups)``, added with the weight 1. The student's groups come from
                the forward pass that gives its logits.
            group_by: what the groups are: "stages", the outputs of the networks' stages, or "layers", the last map of
                each layer group (see ``student_groups``).
            penultimate: the criterion gets one more tensor after the logits: the student's penultimate features (N, D)
                from the same forward pass, which are the input of ``student_classifier``.
            clip: the largest common L2 norm of the gradients, as in ``update``.

        Returns:
            The loss, a scalar, detached.

        Raises:
            AccessDenied: the method declared less than ``Access.LOGITS``.
            MethodError: ``temperature`` or ``clip`` is not above 0, or ``beta`` is not 0 and there are no labels.
            Unsupported: a network does not have the groups or the classifier that are asked for.
        """
        context = current()
        must_be_optimizer(optimizer, "s.distill(optimizer, images)")
        must_be_tensor(images, "s.distill(optimizer, images)")
        if beta and labels is None:
            raise MethodError(f"s.distill(beta={beta:g}) needs labels=")
        for given, name in ((logits, "logits"), (labels, "labels"), (rows, "rows")):
            if given is not None:
                must_be_tensor(given, f"{name}= of s.distill")
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
        """The student's logits and features from one forward pass.

        Args:
            images: (N, C, H, W).
            penultimate: the features are the input of ``student_classifier``, (N, D).

        Returns:
            The logits, and the features: the input of the network's head, (N, D), or (N, D, h, w) for segmentation.
        """
        return current().student_side.features(images, penultimate)

    @property
    def student_layer_shapes(self) -> tuple[tuple[Shape, ...], ...]:
        """For each layer group of the student, the shapes (C, h, w) of its maps, which are all the same.

        A layer group consists of layers that follow each other and make maps of one shape.

        Raises:
            Unsupported: the network names no layers.
        """
        return current().student_side.layers.shapes

    def student_groups(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The student's logits and the last map (N, C, h, w) of each layer group, from one forward pass.

        Raises:
            Unsupported: the network names no layers.
        """
        return current().student_side.groups(images)

    def student_from(self, images: Tensor, group: int, maps: Tensor) -> Tensor:
        """The student's logits where other maps stand in the place of the last map of a layer group.

        This is a whole forward pass and counted as one, but layers before the group have no part in the result.

        Args:
            images: (N, C, H, W).
            group: the layer group, from 0.
            maps: (N, C, h, w), of the shape that ``student_layer_shapes`` has for the group.

        Raises:
            MethodError: there is no such group, or the maps have another shape.
            Unsupported: the network names no layers.
        """
        return current().student_side.go_on_from(images, group, maps)

    @property
    def student_classifier(self) -> nn.Linear:
        """The student's last layer, with a weight of (classes, D). Write into it or leave it out of an optimiser; do
        not call it.

        It is for methods that train the student through another classifier: the student is scored with this one.

        Raises:
            Unsupported: the last layer is not linear.
        """
        return linear_classifier(current().student)

    def student_head(self, features: Tensor) -> Tensor:
        """The student's logits for features as ``student_features`` gives them (without ``penultimate``)."""
        return current().student_side.head(features)

    def log(self, **values: Tensor | float) -> None:
        """Record numbers. The trial's curve holds the mean of each between two evaluations.

        Args:
            values: numbers or tensors by name; of a tensor the mean is taken.

        Raises:
            MethodError: a value is neither a number nor a tensor.
        """
        current().log(values)


def _pool() -> RealImages | RemoteImages:
    context = current()
    if context.data is not Data.POOL:
        raise DataLeak(f"the method requests a pool, but declares Data.{context.data.name}")
    return context.real


def session_for(image: ImageSpec, classes: int, segmentation: bool = False, teachers: int = 1) -> Session:
    """The session of the trial that is being set up in this process, with so many teachers."""
    return Session(TaskView(image, classes, segmentation), teachers)


__all__ = ["BatchNormStatistics", "Session", "TaskView", "TeacherView", "TeacherOutput", "session_for"]
