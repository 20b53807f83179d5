"""The teacher as a method sees it: what can be asked, and what is answered within the declared access."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bench.errors import AccessDenied, MethodError
from bench.harness.classes import classes_of
from bench.harness.counters import Pooled, Question
from bench.harness.no_tensor import NoModule, NoTensor, must_be_tensor
from bench.harness.plain_tensors import transforms
from bench.harness.sealed import BATCHED, FORWARD
from bench.harness.trial_context import current
from bench.models.layer_groups import Shape
from bench.spec.method import Access


@dataclass(frozen=True)
class BatchNormStatistics:
    """One batch-norm layer of the teacher with C channels: statistics of its input, and the stored running ones.

    Attributes:
        mean: of the input, over images and places, (C,).
        var: of the input, over images and places, biased, (C,).
        running_mean: as the teacher's training left it, (C,).
        running_var: as the teacher's training left it, (C,).
    """

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


class TeacherOutput(NoTensor):
    """The teacher's answer to a batch of N images, as far as the method's declared access goes.

    What was not asked for raises an ``AttributeError`` that says how to ask. It is no tensor itself: a function of
    tensors that gets it raises a ``TypeError`` that says so.
    """

    def __init__(
        self,
        logits: Tensor,
        features: Tensor | None,
        batch_norm: tuple[BatchNormStatistics, ...] | None,
        pooled: Tensor | None = None,
        groups: tuple[Tensor, ...] | None = None,
        penultimate: Tensor | None = None,
        layers: tuple[tuple[Tensor, ...], ...] | None = None,
        labels: Tensor | None = None,
    ) -> None:
        """``labels`` are given instead of the logits to a method that may see no more."""
        self._logits = logits
        self._labels = labels
        self._features = features
        self._batch_norm = batch_norm
        self._pooled = pooled
        self._groups = groups
        self._penultimate = penultimate
        self._layers = layers

    @property
    def labels(self) -> Tensor:
        """The predicted classes, int64 (N,), or (N, H, W) for segmentation."""
        return self._labels if self._labels is not None else classes_of(self._logits)

    @property
    def logits(self) -> Tensor:
        """The logits, (N, classes), or (N, classes, H, W) for segmentation.

        They carry a gradient where the images do, with ``Access.GRADIENTS`` or more.

        Raises:
            AccessDenied: the method declared less than ``Access.LOGITS``.
        """
        need(Access.LOGITS, "the teacher's logits")
        return self._logits

    @property
    def features(self) -> Tensor:
        """The input of the network's head, (N, D), or (N, D, h, w) for segmentation; only with ``features=True``."""
        if self._features is None:
            raise AttributeError("request features: s.teacher(images, features=True)")
        return self._features

    @property
    def batch_norm(self) -> tuple[BatchNormStatistics, ...]:
        """One entry for each batch-norm layer, in the order of the forward pass; only with ``batch_norm=True``."""
        if self._batch_norm is None:
            raise AttributeError("request the statistics: s.teacher(images, batch_norm=True)")
        return self._batch_norm

    @property
    def pooled(self) -> Tensor:
        """Each image's spatial means of the maps asked for, side by side, (N, D); only with ``pooled=...``."""
        if self._pooled is None:
            raise AttributeError('request the means: s.teacher(images, pooled="batch_norm")')
        return self._pooled

    @property
    def groups(self) -> tuple[Tensor, ...]:
        """The outputs (N, C, h, w) of the network's stages, in the order of the forward pass; only with
        ``groups=True``."""
        if self._groups is None:
            raise AttributeError("request the groups: s.teacher(images, groups=True)")
        return self._groups

    @property
    def penultimate(self) -> Tensor:
        """The input (N, D) of the classifier, the last linear layer; only with ``penultimate=True``.

        Where the network's head is that layer alone, these are the features.
        """
        if self._penultimate is None:
            raise AttributeError("request them: s.teacher(images, penultimate=True)")
        return self._penultimate

    @property
    def layers(self) -> tuple[tuple[Tensor, ...], ...]:
        """The maps (N, C, h, w) of the network's layers, one tuple for each layer group; only with ``layers=True``."""
        if self._layers is None:
            raise AttributeError("request them: s.teacher(images, layers=True)")
        return self._layers


class TeacherView(NoModule):
    """A frozen teacher, in evaluation mode. Calling it is metered and limited to the declared access."""

    _answer = TeacherOutput

    def __init__(self, which: int = 0) -> None:
        """``which`` of the task's teachers, 0 the first."""
        self._which = which

    def __call__(
        self,
        images: Tensor,
        *,
        features: bool = False,
        batch_norm: bool = False,
        pooled: Pooled | None = None,
        groups: bool = False,
        penultimate: bool = False,
        layers: bool = False,
        anchor: int | None = None,
    ) -> TeacherOutput:
        """Ask the teacher about images. They count as teacher images.

        Args:
            images: normalised (N, C, H, W). Where they carry a gradient, the answer does too (``Access.GRADIENTS``).
            features: also give the input of the network's head (``Access.FEATURES``).
            batch_norm: also give the batch's statistics at the input of every batch-norm layer (``Access.BATCH_NORM``).
            pooled: also give each image's spatial means: "batch_norm" for those of the inputs of all batch-norm layers
                (``Access.BATCH_NORM``), "stages" for those of the inputs of the network's stages (``Access.FEATURES``).
            groups: also give the outputs of the network's stages (``Access.FEATURES``).
            penultimate: also give the input of the last linear layer (``Access.FEATURES``).
            layers: also give the maps of all layers that the network names, in layer groups (``Access.FEATURES``).
            anchor: the point of its training to ask, from 0 (the earliest) to ``anchors`` - 1 (the trained teacher);
                by default the trained teacher. Needs ``@method(..., anchors=...)``. Only the first of several teachers
                has anchors.

        Returns:
            The answer, with the parts that were asked for.

        Raises:
            AccessDenied: the method declared less access than it uses.
            MethodError: there is no such anchor, or ``pooled`` is neither of the two.
            Unsupported: the network has no batch norm, no stages, no layers or no linear classifier.
        """
        context = current()
        need(Access.LABELS, "the teacher")
        must_be_tensor(images, "s.teacher(images)")
        if features:
            need(Access.FEATURES, "the teacher's features")
        if batch_norm:
            need(Access.BATCH_NORM, "the teacher's batch-norm statistics")
        if pooled is not None:
            _need_pooled(pooled)
        if groups:
            need(Access.FEATURES, "the teacher's groups")
        if penultimate:
            need(Access.FEATURES, "the teacher's penultimate features")
        if layers:
            need(Access.FEATURES, "the maps of the teacher's layers")
        if (images.requires_grad and torch.is_grad_enabled()) or _is_dual(images):
            need(Access.GRADIENTS, "gradients through the teacher (otherwise detach the images)")
        if _is_dual(images):
            raise MethodError(FORWARD)
        if "Vmap" in transforms():
            raise MethodError(BATCHED)
        answer = context.ask_teacher(
            images, Question(features, batch_norm, pooled, groups, penultimate, layers), anchor, self._which
        )
        labels = answer.labels  # given where the judge answers from another process
        if labels is None and context.access is Access.LABELS:
            labels = classes_of(answer.logits)
        layers_seen = zip(answer.statistics, answer.running, strict=True)
        return TeacherOutput(
            answer.logits if labels is None else torch.empty(0),
            answer.features[0] if features else None,
            tuple(BatchNormStatistics(*now, *stored) for now, stored in layers_seen) if batch_norm else None,
            answer.pooled if pooled is not None else None,
            tuple(answer.groups) if groups else None,
            answer.penultimate[0] if penultimate else None,
            context.teacher_layers(self._which).grouped(answer.maps) if layers else None,
            labels,
        )

    @property
    def anchors(self) -> int:
        """How many points of its training can be asked, as the method declares.

        0 for a method without anchors, and for all but the first of several teachers.
        """
        return current().anchors(self._which)

    @property
    def layer_shapes(self) -> tuple[tuple[Shape, ...], ...]:
        """For each layer group, the shapes (C, h, w) of its maps, which are all the same. Known without a question.

        Raises:
            AccessDenied: the method declared less than ``Access.FEATURES``.
            Unsupported: the network names no layers.
        """
        need(Access.FEATURES, "the layers of the teacher")
        return current().teacher_layers(self._which).shapes

    def pooled_size(self, pooled: Pooled) -> int:
        """The length D of what ``pooled`` gives for an image, known without a question.

        Args:
            pooled: "batch_norm" or "stages", as for a question.
        """
        _need_pooled(pooled)
        return current().pooled_size(pooled, self._which)

    def copy(self, *, fresh: bool = False) -> nn.Module:
        """A copy of the teacher that can be trained, in training mode. Images through it count as teacher images.

        Keep it (``s.keep``) like any network. The teacher itself stays as it is.

        Args:
            fresh: give it new random weights, so that only the architecture is the teacher's.

        Raises:
            AccessDenied: the method declared less than ``Access.PARAMETERS``.
        """
        need(Access.PARAMETERS, "a copy of the teacher")
        return current().copy_teacher(fresh, self._which)

    @property
    def classifier_bias(self) -> Tensor | None:
        """A copy of the last linear layer's bias, (classes,); None where it has none. Needs ``Access.PARAMETERS``."""
        need(Access.PARAMETERS, "the teacher's weights")
        return current().classifier_bias(self._which)

    @property
    def classifier_weight(self) -> Tensor:
        """A copy of the last linear layer's weight, (classes, D). Needs ``Access.PARAMETERS``."""
        need(Access.PARAMETERS, "the teacher's weights")
        return current().classifier_weight(self._which)


def need(level: Access, what: str) -> None:
    """Raise AccessDenied unless the method declared ``level``; note that it was used."""
    context = current()
    if context.access < level:
        raise AccessDenied(
            f"the method uses {what}, but declares Access.{context.access.name}, not Access.{level.name}"
        )
    context.used = max(context.used, level)


def _is_dual(images: Tensor) -> bool:
    """Whether forward-mode derivatives are taken of what is made of the images."""
    if "Jvp" in transforms():
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(images).tangent is not None


def _need_pooled(pooled: Pooled) -> None:
    if pooled not in ("batch_norm", "stages"):
        raise MethodError(f"pooled must be 'batch_norm' or 'stages', not {pooled!r}")
    if pooled == "stages":
        need(Access.FEATURES, "the inputs of the teacher's stages")
    else:
        need(Access.BATCH_NORM, "the inputs of the teacher's batch-norm layers")
