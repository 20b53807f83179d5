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
from bench.harness.student_batch import CRITERION, OWN_LOSS, StudentBatch, checked_rows, in_order, must_fit
from bench.harness.student_view import StudentParts
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
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
        clip: float | None = None,
    ) -> Tensor:
        """One student step on ``alpha * KL_tau(teacher || student) + beta * CE(student, labels)``.

        A loss that needs more than the two networks' logits is one of ``student_step``.

        Args:
            optimizer: an optimiser of the student's parameters that is kept.
            images: (N, C, H, W); detached here. They count as student images.
            logits: the teacher's logits for these images, where they are known already, or the mean of those of several
                teachers; otherwise ``s.teacher`` is asked. Detached here.
            temperature: tau, above 0. The loss has the factor tau^2 and is averaged over the batch.
            alpha: the weight of the teacher's term.
            labels: int64 (N,), or (N, H, W) for segmentation; used where ``beta`` is not 0.
            beta: the weight of the cross-entropy with ``labels``.
            criterion: ``f(teacher_logits, student_logits)``, a scalar, used instead of the KL divergence.
            clip: the largest common L2 norm of the gradients, as in ``update``.

        Returns:
            The loss, a scalar, detached.

        Raises:
            AccessDenied: the method declared less than ``Access.LOGITS``.
            MethodError: ``temperature`` or ``clip`` is not above 0, ``beta`` is not 0 and there are no labels, logits
                or labels have not one row for each image, or the criterion takes or gives something else.
        """
        must_be_optimizer(optimizer, "s.distill(optimizer, images)")
        must_be_tensor(images, "s.distill(optimizer, images)")
        if beta and labels is None:
            raise MethodError(f"s.distill(beta={beta:g}) needs labels=")
        if labels is not None:
            must_be_tensor(labels, "labels= of s.distill")
            must_fit(labels, images, "labels= of s.distill")
        if criterion is not None:
            CRITERION.check(criterion)

        def loss(batch: StudentBatch) -> Tensor:
            if criterion is None:
                value = alpha * kl_divergence(batch.teacher, batch.student, temperature)
            else:
                value = alpha * CRITERION.value(criterion, batch.teacher, batch.student)
            if labels is not None and beta:
                value = value + beta * nn.functional.cross_entropy(batch.student, batch.rows)
            return value

        return self._student_step("s.distill", optimizer, images, loss, logits, labels, StudentParts(), clip)

    def student_step(
        self,
        optimizer: Optimizer,
        images: Tensor,
        loss: Callable[[StudentBatch], Tensor],
        *,
        logits: Tensor | None = None,
        rows: Tensor | Sequence[Tensor] | None = None,
        features: bool = False,
        groups: bool = False,
        layers: bool = False,
        penultimate: bool = False,
        clip: float | None = None,
    ) -> Tensor:
        """One student step on a loss of one's own, which gets the batch: ``loss(batch)`` gives a scalar.

        The batch has the images that are trained on, both networks' logits, the rows, and of the student's forward pass
        what is asked for here. Each switch names the attribute that it brings, as for ``s.teacher``. The loss may call
        ``s.student`` and kept networks again, on ``batch.images`` or on what it makes of them; that counts.

        Args:
            optimizer: an optimiser of the student's parameters, and of others that learn along, that is kept.
            images: (N, C, H, W), as for ``distill``.
            loss: ``f(batch)``, a scalar.
            logits: the teacher's logits for these images, as for ``distill``.
            rows: a tensor (N, ...) with one row for each image, such as its label, its weight or its place in a store;
                or several such tensors, such as the teacher's maps. The harness may hold images out and put others in
                their place: ``batch.rows`` are the rows of those that are trained on. They keep their gradient.
            features: ``batch.features``, the input of the student's head.
            groups: ``batch.groups``, the outputs of the student's stages.
            layers: ``batch.layers``, the maps of all layers that the student names, in layer groups.
            penultimate: ``batch.penultimate``, the input of ``student_classifier``.
            clip: the largest common L2 norm of the gradients, as in ``update``.

        Returns:
            The loss, a scalar, detached.

        Raises:
            AccessDenied: the method declared less than ``Access.LOGITS``.
            MethodError: ``clip`` is not above 0, logits or rows have not one row for each image, or the loss takes or
                gives something else.
            Unsupported: the student has not the stages, the layers or the classifier that are asked for.
        """
        must_be_optimizer(optimizer, "s.student_step(optimizer, images, loss)")
        must_be_tensor(images, "s.student_step(optimizer, images, loss)")
        OWN_LOSS.check(loss)
        given = checked_rows(rows, "rows= of s.student_step")
        must_fit(given, images, "rows= of s.student_step")

        def own(batch: StudentBatch) -> Tensor:
            return OWN_LOSS.value(loss, batch)

        wanted = StudentParts(features, groups, layers, penultimate)
        return self._student_step("s.student_step", optimizer, images, own, logits, given, wanted, clip)

    def _student_step(
        self,
        who: str,
        optimizer: Optimizer,
        images: Tensor,
        loss: Callable[[StudentBatch], Tensor],
        logits: Tensor | None,
        rows: Tensor | tuple[Tensor, ...] | None,
        wanted: StudentParts,
        clip: float | None,
    ) -> Tensor:
        context = current()
        if logits is not None:
            must_be_tensor(logits, f"logits= of {who}")
            must_fit(logits, images, f"logits= of {who}")
        images = images.detach()
        if logits is None:
            with torch.no_grad():
                logits = self.teacher(images).logits
        need(Access.LOGITS, "the teacher's logits")
        logits = logits.detach()
        order = context.withhold(images, logits)
        if order is not None:
            images, logits, rows = in_order((images, logits, rows), order)
        found = context.student_side.ask(images, wanted)
        parts = found.features, found.groups, found.layers, found.penultimate
        value = loss(StudentBatch(images, logits, found.logits, rows, *parts))
        context.update(optimizer, value, clip)
        return value.detach()

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


__all__ = [
    "BatchNormStatistics", "Session", "StudentBatch", "TaskView", "TeacherOutput", "TeacherView", "session_for"
]  # fmt: skip
