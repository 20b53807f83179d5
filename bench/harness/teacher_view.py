"""The teacher as a method sees it: what can be asked, and what is answered within the declared access."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import AccessDenied, MethodError
from bench.harness.counters import Pooled, Question
from bench.harness.trial_context import current
from bench.models.layer_groups import Shape
from bench.spec.method import Access


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
        pooled: Tensor | None = None,
        groups: tuple[Tensor, ...] | None = None,
        penultimate: Tensor | None = None,
        layers: tuple[tuple[Tensor, ...], ...] | None = None,
        labels: Tensor | None = None,
    ) -> None:
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
        """The predicted classes, int64 (N,); (N, H, W) for segmentation."""
        return self._logits.argmax(1) if self._labels is None else self._labels

    @property
    def logits(self) -> Tensor:
        """(N, classes), or (N, classes, H, W) for segmentation; with a gradient from ``Access.GRADIENTS`` on."""
        need(Access.LOGITS, "the teacher's logits")
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

    @property
    def pooled(self) -> Tensor:
        """(N, D): each image's spatial means, of all tapped maps side by side; only with ``pooled=...``."""
        if self._pooled is None:
            raise AttributeError('ask for the means: s.teacher(images, pooled="batch_norm")')
        return self._pooled

    @property
    def groups(self) -> tuple[Tensor, ...]:
        """The outputs (N, C, h, w) of the network's stages, in the order of the forward pass; only with ``groups``."""
        if self._groups is None:
            raise AttributeError("ask for the groups: s.teacher(images, groups=True)")
        return self._groups

    @property
    def penultimate(self) -> Tensor:
        """The input (N, D) of the classifier, the last linear layer; only with ``penultimate=True``.

        Where the network's head is that layer alone, these are the features.
        """
        if self._penultimate is None:
            raise AttributeError("ask for them: s.teacher(images, penultimate=True)")
        return self._penultimate

    @property
    def layers(self) -> tuple[tuple[Tensor, ...], ...]:
        """The maps (N, C, h, w) of the network's layers, a group for each shape; only with ``layers=True``."""
        if self._layers is None:
            raise AttributeError("ask for them: s.teacher(images, layers=True)")
        return self._layers


class TeacherView:
    """The frozen teacher, in evaluation mode. Calling it is metered and limited to the declared access."""

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
        """Ask about normalised images (N, C, H, W).

        Args:
            images: with a gradient, if the method wants one through the teacher.
            features: the input of the network's head.
            batch_norm: the batch's statistics at the input of every batch-norm layer.
            pooled: each image's spatial means: of the inputs of all batch-norm layers ("batch_norm"), or of the inputs
                of the network's stages ("stages").
            groups: the outputs of the network's stages.
            penultimate: the input of the network's classifier, its last linear layer.
            layers: the maps of all the layers that the network names, in groups of one shape.
            anchor: which point of its training, 0 (the earliest) to ``anchors`` - 1 (the trained teacher); the trained
                teacher by default. With ``@method(..., anchors=...)``.

        Raises:
            AccessDenied: the method declared less access than it uses.
            Unsupported: the network has no batch norm, no stages, no layers or no linear classifier; the trial is left
                out by plan.
        """
        context = current()
        need(Access.LABELS, "the teacher")
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
        wants_gradient = images.requires_grad and torch.is_grad_enabled()
        if wants_gradient:
            need(Access.GRADIENTS, "gradients through the teacher (else detach the images)")
        answer = context.ask_teacher(
            images, Question(features, batch_norm, pooled, groups, penultimate, layers), anchor
        )
        return TeacherOutput(
            answer.logits,
            answer.features[0] if features else None,
            tuple(BatchNormStatistics(*entry) for entry in answer.statistics) if batch_norm else None,
            answer.pooled if pooled is not None else None,
            tuple(answer.groups) if groups else None,
            answer.penultimate[0] if penultimate else None,
            context.teacher_layers.grouped(answer.maps) if layers else None,
            answer.labels,
        )

    @property
    def anchors(self) -> int:
        """How many points of its training can be asked about, as the method declares; 0 without."""
        return current().anchors

    @property
    def layer_shapes(self) -> tuple[tuple[Shape, ...], ...]:
        """Of each layer group the shapes (C, h, w) of its maps, all the same; known without a question.

        Raises:
            Unsupported: the network names no layers; the trial is left out by plan.
        """
        need(Access.FEATURES, "the layers of the teacher")
        return current().teacher_layers.shapes

    def pooled_size(self, pooled: Pooled) -> int:
        """The length D of what ``pooled`` gives for an image, for a head that is made before the first question."""
        _need_pooled(pooled)
        return current().pooled_size(pooled)

    def copy(self, *, fresh: bool = False) -> nn.Module:
        """A copy of the teacher that can be trained, in training mode; images through it count as teacher images.

        Keep it (``s.keep``) like any network. The teacher itself stays as it is.

        Args:
            fresh: with new random weights, so that only the architecture is the teacher's.
        """
        need(Access.PARAMETERS, "a copy of the teacher")
        return current().copy_teacher(fresh)

    @property
    def classifier_bias(self) -> Tensor | None:
        """A copy of the last linear layer's bias, (classes,), or None where it has none."""
        need(Access.PARAMETERS, "the teacher's weights")
        return current().classifier_bias()

    @property
    def classifier_weight(self) -> Tensor:
        """A copy of the last linear layer's weight, (classes, D): the class templates of ZSKD."""
        need(Access.PARAMETERS, "the teacher's weights")
        return current().classifier_weight()


def need(level: Access, what: str) -> None:
    """Raise AccessDenied unless the method declared ``level``; note that it was used."""
    context = current()
    if context.access < level:
        raise AccessDenied(
            f"the method uses {what}, but declares Access.{context.access.name}, not Access.{level.name}"
        )
    context.used = max(context.used, level)


def _need_pooled(pooled: Pooled) -> None:
    if pooled not in ("batch_norm", "stages"):
        raise MethodError(f"pooled must be 'batch_norm' or 'stages', not {pooled!r}")
    if pooled == "stages":
        need(Access.FEATURES, "the inputs of the teacher's stages")
    else:
        need(Access.BATCH_NORM, "the inputs of the teacher's batch-norm layers")
