"""MAD (re-derived): momentum adversarial distillation; no code was published, and the paper was not read.

The generator G looks for images on which student and teacher differ, and G_m, an exponential moving average of it,
makes images like those of its former versions, so that the student does not forget. A round is ``student_steps`` steps
of the student, each on fresh x = G(z) and x_m = G_m(z_m), z and z_m ~ N(0, I), then one step of the generator. With D
the discrepancy of T and S (``mae``: mean |S - T| over images and classes, on the raw logits):

    student     current * D(x) + past * D(x_m), one step on both; images detached
    generator   -D(x) + batch_norm_weight * R_bn
                R_bn sum over the teacher's batch norms of |mean - running mean| + |var - running var|
    G_m         weights <- momentum_generator * G_m + (1 - momentum_generator) * G, after each step of the generator

G_m starts as G does. All of them are in training mode throughout, so G_m normalises by its own batches.

Known, from other texts about the paper: G_m and its momentum, 0.95, the best of 0.2 to 0.999; that the student trains
on both, with a weight each, and loses where either is 0; that the base is adversarial belief matching (``zskt``); that
the generator of small images has no classes. From memory: the statistics R_bn in the generator's loss. Inferred, with
an option each: the form of D, the weights, the numbers of steps and images, generator, optimisers, rates and schedule,
all after DFAD. Inferred without an option: the average is taken of parameters, once a step of the generator. The class-
conditional generator of the paper's large data sets, G(z + e_y), is not here, nor are the bounds on the losses that its
appendix has.

Logged are ``difference`` (D of the generator's images), ``recent`` and ``former`` (D of x and of x_m in the student's
step).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from bench import Access, Data, Session, dcgan_generator, image_generator, method, option
from methods.common.losses import batch_norm_distance, discrepancy
from methods.common.optimizers import scheduled, set_lr
from methods.common.options import AdversaryOptions, CosineOptions
from methods.common.rounds import turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(AdversaryOptions, CosineOptions):
    momentum_generator: float = option(0.95, "momentum of the generator's average", low=0, high=0.99999)
    current: float = option(1.0, "weight of the student's loss on the generator's images", low=0)
    past: float = option(1.0, "weight of the student's loss on the average's images", low=0)
    batch_norm_weight: float = option(1.0, "weight of the distance of batch-norm statistics", low=0)
    schedule_generator: bool = option(
        True, "the generator's rate falls as the student's does", when={"schedule": "cosine"}
    )
    batch: int = 256
    latent: int = 256
    weight_decay: float = 5e-4


@method(
    "mad", title="MAD (re-derived)", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Do et al., Momentum Adversarial Distillation: Handling Large Distribution Shifts in DFKD, NeurIPS 2022",
    presets={"mnist": {"batch": 512, "latent": 100}},
    quick={"batch": 32, "latent": 16, "width": 8, "student_steps": 2},
)  # fmt: skip
def mad(s: Session, o: Options) -> None:
    """A generator looks for images on which both differ; the student follows on them and on its average's images."""
    make = dcgan_generator if o.generator == "dcgan" else image_generator
    made = make(o.latent, s.task.image, o.width)
    former = copy.deepcopy(made).requires_grad_(False)
    generator, average = s.keep("generator", made), s.keep("average", former)
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_s = kept_optimizer(s, o)
    at: dict[str, Any] = s.keep("at", {})
    differ = discrepancy(o.discrepancy, o.temperature)

    def both(teacher: Tensor, student: Tensor) -> Tensor:
        """Of the generator's images, the first half, and of the average's."""
        recent, earlier = (differ(t, a) for t, a in zip(teacher.split(o.batch), student.split(o.batch), strict=True))
        s.log(recent=recent, former=earlier)
        return o.current * recent + o.past * earlier

    for progress in s.steps("train"):
        part, _ = turn(at, student=o.student_steps, generator=1)
        if part == "student":
            set_lr(opt_s, o.rate(progress))
            with torch.no_grad():
                images = [generator(s.noise(o.batch, o.latent)), average(s.noise(o.batch, o.latent, stream="former"))]
            s.log(imitation=s.distill(opt_s, torch.cat(images), criterion=both))
            continue
        if o.schedule_generator:
            set_lr(opt_g, scheduled(o.lr_generator, o.schedule, progress))
        made = generator(s.noise(o.batch, o.latent))
        out = s.teacher(made, batch_norm=o.batch_norm_weight > 0)
        difference = differ(out.logits, s.student(made))
        loss = -(difference + 1).log() if o.adaptive else -difference
        if o.batch_norm_weight:
            distance = batch_norm_distance(out.batch_norm)
            loss = loss + o.batch_norm_weight * distance
            s.log(batch_norm=distance)
        s.update(opt_g, loss)
        s.log(difference=difference)
        with torch.no_grad():
            for own, other in zip(average.parameters(), generator.parameters(), strict=True):
                own.lerp_(other, 1 - o.momentum_generator)
