"""Fast-DFKD's way to a batch of images: a few updates of its codes and of a copy of a meta-learned generator.

One call of the synthesis is ``iterations`` steps of a flat loop, each an ``images`` and a ``learn`` with its index:

    theta' = theta, z ~ N(0, I), labels y uniform, a fresh Adam     at index 0
    theta', z <- Adam on the loss of G_theta'(z)                    at every index; the best images are remembered
    theta <- Adam, rate lr_generator * iterations                   at the last index, on the sum of the gradients of
                                                                    theta' (first-order MAML), or 67 (theta - theta')
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from bench import BatchNormStatistics, Session
from methods.common.best import Best
from methods.common.meta import BatchNormAverage, GradientSum, copy_weights, reptile
from methods.common.options import MetaOptions
from methods.common.rounds import restart, turn

Meta = Literal["maml", "reptile", "none"]


@torch.no_grad()
def renew_first_layers(generator: nn.Module, stream: torch.Generator, std: float = 0.02) -> None:
    """Fast-DFKD's ``reset_l0``: new first linear layer and batch norm: weights N(0, std^2), biases 0."""
    first = [next(m for m in generator.modules() if isinstance(m, kind)) for kind in (nn.Linear, nn.BatchNorm2d)]
    for layer in first:
        for name, parameter in layer.named_parameters():
            parameter.normal_(0.0, std, generator=stream) if name == "weight" else parameter.zero_()


class MetaInversion:
    """The generator, its copy, the codes and their optimisers, all of them kept.

    Args:
        s: the trial's session.
        generator: makes normalised images of codes (N, latent); ``none`` as ``meta`` trains it itself, without a copy.
        batch: images of a call.
        latent: length of a code.
        iterations: updates of a call.
        lr_generator: Adam's rate on the copy; the meta optimiser's is ``iterations`` times that.
        lr_codes: Adam's rate on the codes.
        meta: how the generator itself learns.
        momentum: of the average of batch statistics over calls.
    """

    def __init__(
        self,
        s: Session,
        generator: nn.Module,
        *,
        batch: int,
        latent: int,
        iterations: int,
        lr_generator: float,
        lr_codes: float,
        meta: Meta = "maml",
        momentum: float = 0.9,
    ) -> None:
        self.s = s
        self.iterations = iterations
        self.meta = meta
        inner = generator if meta == "none" else copy.deepcopy(generator)
        self.generator = s.keep("generator", generator)
        self.inner = self.generator if meta == "none" else s.keep("inner", inner)
        self.codes = s.keep("codes", torch.zeros(batch, latent, requires_grad=True))
        self.labels = s.keep("labels", torch.zeros(batch, dtype=torch.int64))
        groups: list[dict[str, Any]] = [
            {"params": list(self.inner.parameters())},
            {"params": [self.codes], "lr": lr_codes},
        ]
        self.opt = s.keep("opt_g", Adam(groups, lr_generator, betas=(0.5, 0.999)))
        if meta != "none":
            self.opt_meta = s.keep(
                "opt_meta", Adam(self.generator.parameters(), lr_generator * iterations, betas=(0.5, 0.999))
            )
        if meta == "maml":
            self.gradients = s.keep("gradients", GradientSum(self.generator))
        self.average = s.keep("average", BatchNormAverage(momentum))
        self.best = s.keep("best", Best())

    @classmethod
    def of(cls, s: Session, o: MetaOptions, generator: nn.Module) -> MetaInversion:
        """As a method's options say."""
        return cls(
            s, generator, batch=o.batch_synthesis, latent=o.latent, iterations=o.iterations,
            lr_generator=o.lr_generator, lr_codes=o.lr_codes, meta=o.meta, momentum=o.average,
        )  # fmt: skip

    def images(self, index: int) -> Tensor:
        """Normalised images (batch, C, H, W) of the present weights and codes; at index 0 a new call begins."""
        if index == 0:
            self.codes.data.copy_(self.s.noise(*self.codes.shape))
            self.labels.random_(self.s.task.classes, generator=self.s.generator("labels"))
            if self.meta != "none":
                copy_weights(self.generator, self.inner)
            restart(self.opt)
            self.best.restart()
        images: Tensor = self.inner(self.codes)
        return images

    def learn(self, index: int, loss: Tensor, statistics: Sequence[BatchNormStatistics], *found: Tensor) -> bool:
        """One update; whether it was the call's last.

        Args:
            index: the iteration, from 0.
            loss: of this iteration's images.
            statistics: plain ones of this iteration; the last iteration's enter the average.
            found: the images, and whatever else of the best iteration is wanted in ``best.tensors``.
        """
        self.best.look(loss, *found)
        self.s.update(self.opt, loss)
        if self.meta == "maml":
            self.gradients.add(self.inner)
        if index < self.iterations - 1:
            return False
        if self.meta == "maml":
            self.s.apply(self.opt_meta, self.gradients.take())
        elif self.meta == "reptile":
            self.s.apply(self.opt_meta, reptile(self.generator.parameters(), self.inner.parameters()))
        self.average.update(statistics)
        return True


class Calls:
    """Whose step it is: first one synthesis call after the other, then one in turn with steps of the student.

    Keeps ``at`` and, under the given name, how many calls came first; make it before the loops.
    """

    def __init__(self, s: Session, o: MetaOptions, first: str) -> None:
        self._at: dict[str, Any] = s.keep("at", {})
        self._first = s.keep(first, {"calls": 0})
        self._iterations, self._student_steps = o.iterations, o.student_steps

    def made(self, calls: int) -> bool:
        """Whether so many calls have been made, and the last of them is finished."""
        return self._first["calls"] == calls and self._at.get("index") == self._iterations - 1

    def first(self) -> int:
        """The index of the next update, before the student begins."""
        _, index = turn(self._at, synthesis=self._iterations)
        self._first["calls"] = self._at["round"] + 1
        return index

    def turn(self) -> tuple[str, int]:
        """``synthesis`` and the index of its update, or ``student``; a call under way is finished at first."""
        student_steps = self._student_steps if self._at.get("round", 0) >= self._first["calls"] else 0
        return turn(self._at, synthesis=self._iterations, student=student_steps)

    @property
    def number(self) -> int:
        """Which call this is since the student may begin, from 1."""
        return int(self._at["round"] + 1 - self._first["calls"])
