"""Images by gradient on themselves, against a fixed teacher: what DeepDream, DeepInversion and ADI share.

A step of making images, with the method's own loss in the middle:

    x = batch.view(jitter, flip)      # a fresh batch of noise when the last one is finished
    batch.update(loss, clip)
    if batch.finished:
        pool.add(batch.take())

:func:`filling` is the first phase, with the method's loss as the body of its loop, and :func:`following` the student's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from bench import Session
from methods.common.optimizers import scheduled, set_lr
from methods.common.options import InversionOptions
from methods.common.pixels import PixelSpace
from methods.common.pools import ImagePool
from methods.common.priors import jitter, l2_norm, total_variation
from methods.common.rounds import restart
from methods.common.training import scheduled_steps
from methods.common.views import cropped_view


class Inversion:
    """One batch of images after the other, each from N(0, 1) with its own optimiser (Adam on the images).

    The last iterate is what is kept of a batch: the reference code's "best" images are an alias of it. Keeps
    ``images``, ``labels``, ``opt_x`` and ``inversion``; make it before the loops.

    Args:
        s: the session.
        size: images in a batch.
        iterations: updates of a batch.
        lr: Adam's learning rate on normalised images.
        betas: Adam's.
        schedule: of the rate within a batch: ``constant``, or ``cosine`` to 0 after ``warmup`` updates.
        warmup: updates over which the rate rises linearly.
        labels: ``balanced``: all classes in turn, on from where the last batch ended; or ``random``.
    """

    def __init__(
        self,
        s: Session,
        size: int,
        iterations: int,
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: str = "constant",
        warmup: int = 0,
        labels: Literal["balanced", "random"] = "balanced",
    ) -> None:
        self.images = s.keep("images", torch.zeros(size, *s.task.image.shape, requires_grad=True))
        self.labels = s.keep("labels", torch.zeros(size, dtype=torch.int64))
        self.optimizer = s.keep("opt_x", Adam([self.images], lr, betas))
        self._at = s.keep("inversion", {"iteration": 0, "made": 0})
        self.space = PixelSpace.of(s)
        self._s, self._iterations = s, iterations
        self._lr, self._schedule, self._warmup, self._kind = lr, schedule, warmup, labels

    @classmethod
    def of(cls, s: Session, o: InversionOptions) -> Inversion:
        """As a method's options say."""
        return cls(
            s, o.batch, o.iterations, o.lr_images, betas=(o.beta1, o.beta2), schedule=o.schedule_images,
            warmup=o.warmup, labels=o.labels,
        )  # fmt: skip

    @property
    def started(self) -> bool:
        """Whether a batch is under way or finished, and not taken yet."""
        return bool(self._at["iteration"])

    @property
    def finished(self) -> bool:
        return bool(self._at["iteration"] >= self._iterations)

    def view(self, reach: int, flip: bool) -> Tensor:
        """The images under a random circular shift (one for the batch), by chance mirrored, with their gradient."""
        if not self.started:
            self._begin()
        return jitter(self.images, reach, self._s.generator("jitter", host=True), flip)

    def _begin(self) -> None:
        self.images.data.copy_(self._s.noise(*self.images.shape))
        if self._kind == "balanced":
            turns = torch.arange(len(self.labels), device=self.labels.device) + self._at["made"]
            self.labels.copy_(turns % self._s.task.classes)
        else:
            self.labels.random_(self._s.task.classes, generator=self._s.generator("labels"))
        restart(self.optimizer)

    def update(self, loss: Tensor, clip: bool) -> None:
        """One step of Adam; with ``clip`` the images are then cut to the range of real pixels."""
        set_lr(self.optimizer, rate(self._lr, self._schedule, self._warmup, self._at["iteration"], self._iterations))
        self._s.update(self.optimizer, loss)
        if clip:
            self.images.data.copy_(self.space.clip(self.images.data))
        self._at["iteration"] += 1

    def take(self) -> Tensor:
        """The batch as it is, finished or not; the next view begins another one."""
        self._at["made"] += len(self.images)
        self._at["iteration"] = 0
        return self.images.detach()


def rate(lr: float, schedule: str, warmup: int, iteration: int, iterations: int) -> float:
    """The learning rate at an iteration of a batch, counted from 0.

    >>> [rate(0.2, "cosine", 2, i, 4) for i in range(4)]
    [0.1, 0.2, 0.2, 0.1]
    """
    if iteration < warmup:
        return lr * (iteration + 1) / warmup
    return scheduled(lr, schedule, (iteration - warmup) / (iterations - warmup))


def kept_pool(s: Session, o: InversionOptions, batch: Inversion) -> ImagePool:
    """The pool of images that the student learns from, kept as ``pool``; not cut to the range of pixels unless
    ``clip``."""
    return s.keep("pool", ImagePool(o.images, batch.space, limit_mib=o.pool_mib, clipped=o.clip))


def filling(
    s: Session, o: InversionOptions, batch: Inversion, pool: ImagePool, most: int | None = None
) -> Iterator[Tensor]:
    """The phase ``synthesise``: the views of step after step, to each of which the loop's body answers by an update.

    It ends with its share of the budget, or when the pool holds ``most`` images, or as many as it may. A batch that is
    unfinished then is left to whoever comes next.
    """
    for _ in s.steps("synthesise", share=o.share):
        if pool.full or (most is not None and len(pool) >= most):
            break
        yield batch.view(o.jitter, o.flip)
        if batch.finished:
            pool.add(batch.take())


def following(s: Session, o: InversionOptions, batch: Inversion, pool: ImagePool, opt_s: Optimizer) -> None:
    """The phase ``distil``: the student follows on what was made, an unfinished batch as it is, to the budget's end."""
    if batch.started:
        pool.add(batch.take())
    for _ in scheduled_steps(s, opt_s, o, "distil"):
        follow(s, o, batch, pool, opt_s)


def follow(s: Session, o: InversionOptions, batch: Inversion, pool: ImagePool, opt_s: Optimizer) -> None:
    """One step of the student on views of images from the pool."""
    images = pool.sample(o.batch_student, s.generator("pool", host=True))
    images = student_view(images, o.augmentation, batch.space, s.generator("views"))
    s.log(distillation=s.distill(opt_s, images, temperature=o.temperature))


def image_prior(images: Tensor, tv: float, tv_form: Literal["l2", "l1"], l2: float, l2_form: str) -> Tensor:
    """a_tv TV(x) + a_l2 |x|_2; the L2 norm over the whole ``batch``, or the mean of each ``image``'s."""
    return tv * total_variation(images, tv_form) + l2 * l2_norm(images, per_image=l2_form == "image")


def student_view(images: Tensor, augmentation: str, space: PixelSpace, stream: torch.Generator) -> Tensor:
    """Normalised images as the student gets them: ``none``, ``crop`` (4 pixels of black border) or ``crop+flip``."""
    if augmentation == "none":
        return images
    return cropped_view(images, space, stream, flip="flip" in augmentation)
