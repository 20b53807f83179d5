"""Adaptive DeepInversion: DeepInversion that competes with the student, in new batches while it learns.

Phase 1 makes DeepInversion's images (:mod:`methods.deepinversion`, where settings and inferences are explained). In
phase 2 the student minimises KL_tau(T || S) on them; after every ``student_steps`` steps one more batch is made against
the student as it then is, and joins the others. These batches minimise, with a_c = ``competition``,

    CE(T(x'), y) + a_tv TV(x') + a_l2 |x'|_2 + a_bn R_bn + a_c R_adi,     R_adi = 1 - clip(JS, 0, 1)

JS is the batch mean of (KL(P || M) + KL(Q || M)) / 2 with P = softmax(S / 3), Q = softmax(T / 3), M = (P + Q) / 2,
the paper's Jensen-Shannon divergence in natural units. With ``clamped`` it is what the code has under this name: for M
formed first, and all three then clamped to [0.01, 0.99], (KL(M || P) + KL(M || Q)) / 2. The temperature of 3 is the
code's. The gradient goes through the student, in evaluation mode, to x; the student's weights get none.

From memory: a_c = 10. Inferred: that the pool stops growing at the paper's 1,000 batches in all, half of them from
phase 1, and that the first batches do not compete. With ``competition`` 0 and few ``first_images`` images and student
take turns, as in CMI's library. With ``batch_norm_weight`` 0 no batch norm is needed.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import Access, Data, Session, method, option
from methods.inversion import Inversion, image_prior, student_view
from methods.losses import batch_norm_distance, competition
from methods.optimizers import scheduled, set_lr, student_optimizer
from methods.pixels import PixelSpace
from methods.pools import ImagePool
from methods.rounds import evaluating, turn


@dataclass(frozen=True)
class Options:
    batch: int = option(256, "images made at a time", unit="images", low=2)
    iterations: int = option(2000, "updates of a batch of images", low=1)
    first_images: int = option(128_000, "the most images made before the student begins", unit="images", low=1)
    images: int = option(256_000, "the most images to make in all", unit="images", low=1)
    pool_mib: float = option(1024.0, "a larger pool of images lies on the host in 8 bits", unit="MiB", above=0)
    lr_images: float = option(0.05, "Adam's learning rate on normalised images", above=0)
    beta1: float = option(0.9, "Adam's first decay on images", low=0, high=0.999)
    beta2: float = option(0.999, "Adam's second decay on images", low=0, high=0.99999)
    schedule_images: Literal["constant", "cosine"] = option("constant", "how the images' rate falls within a batch")
    warmup: int = option(
        0, "updates over which the images' rate rises", low=0, high=1000, when={"schedule_images": "cosine"}
    )
    labels: Literal["balanced", "random"] = option("balanced", "the wanted classes: all in turn, or drawn")
    jitter: int = option(2, "largest random shift, each way", unit="pixels", low=0)
    flip: bool = option(False, "mirror the whole batch in every second update, by chance")
    tv: float = option(2.5e-5, "weight of the total variation", low=0)
    tv_form: Literal["l2", "l1"] = option("l2", "total variation by norms over the batch, or by mean absolute values")
    l2: float = option(3e-8, "weight of the images' L2 norm; 0 in the code", low=0)
    l2_form: Literal["batch", "image"] = option("batch", "one norm over the batch, or the mean of each image's")
    competition: float = option(10.0, "weight of the competition with the student", low=0)
    temperature_competition: float = option(3.0, "softmax temperature of the competition", above=0)
    clamped: bool = option(
        False, "the code's divergence of clamped probabilities, KL(M || P), in place of Jensen-Shannon's KL(P || M)"
    )
    batch_norm_weight: float = option(10.0, "weight of the batch-norm statistics", low=0)
    first_layer: float = option(1.0, "factor of the first batch-norm layer's term; 10 for ImageNet", low=0)
    squared: bool = option(False, "squared norms of the statistics, for comparison")
    clip: bool = option(False, "cut images to the range of pixels after every update")
    share: float = option(0.5, "share of the budget spent on the first images", above=0, high=0.99)
    student_steps: int = option(50, "steps of the student between two batches", low=1)
    temperature: float = option(3.0, "softmax temperature of the distillation loss", above=0)
    batch_student: int = option(256, "images a student step", unit="images", low=2)
    augmentation: Literal["crop+flip", "crop", "none"] = option("crop+flip", "what the student's images go through")
    optimizer: Literal["sgd", "adam"] = option("sgd", "the student's optimiser")
    lr_student: float = option(0.1, "the student's learning rate", above=0)
    momentum: float = option(0.9, "the student's momentum", low=0, high=1, when={"optimizer": "sgd"})
    weight_decay: float = option(1e-4, "the student's weight decay", low=0)
    schedule: Literal["cosine", "constant"] = option("cosine", "how the student's rate falls")


@method(
    "adi",
    title="Adaptive DeepInversion",
    paper="Yin et al., Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion, CVPR 2020",
    data=Data.NONE,
    access=Access.BATCH_NORM,
    batch_norm="batch_norm_weight",
    presets={
        "digits": {"augmentation": "crop"},
        "mnist": {"augmentation": "crop"},
        "svhn": {"augmentation": "crop"},
    },
    quick={
        "batch": 16, "iterations": 3, "first_images": 32, "images": 64, "pool_mib": 0.25, "batch_student": 32,
        "lr_student": 0.01, "student_steps": 2,
    },
)  # fmt: skip
def adi(s: Session, o: Options) -> None:
    """Images that the teacher knows and the student does not, made while the student learns from them."""
    space = PixelSpace.of(s)
    batch = Inversion(
        s, o.batch, o.iterations, o.lr_images, betas=(o.beta1, o.beta2), schedule=o.schedule_images, warmup=o.warmup,
        labels=o.labels,
    )  # fmt: skip
    pool = s.keep("pool", ImagePool(o.images, space, limit_mib=o.pool_mib))
    turns: dict[str, Any] = s.keep("turns", {})
    opt_s = s.keep(
        "opt_s", student_optimizer(s.student.parameters(), o.optimizer, o.lr_student, o.momentum, o.weight_decay)
    )

    def improve(competes: bool) -> None:
        """One update of the batch of images."""
        x = batch.view(o.jitter, o.flip)
        out = s.teacher(x, batch_norm=o.batch_norm_weight > 0)
        one_hot, prior = F.cross_entropy(out.logits, batch.labels), image_prior(x, o.tv, o.tv_form, o.l2, o.l2_form)
        loss = one_hot + prior
        if o.batch_norm_weight:
            statistics = batch_norm_distance(out.batch_norm, o.first_layer, o.squared)
            loss = loss + o.batch_norm_weight * statistics
            s.log(statistics=statistics)
        if competes:
            with evaluating(s.student):
                answers = out.logits, s.student(x)
            agreement = (competition if o.clamped else likeness)(*answers, o.temperature_competition)
            loss = loss + o.competition * agreement
            s.log(agreement=agreement)
        batch.update(loss, o.clip)
        s.log(one_hot=one_hot, prior=prior)
        if batch.finished:
            pool.add(batch.take())

    for _ in s.steps("synthesise", share=o.share):
        if len(pool) >= min(o.first_images, o.images):
            break
        improve(competes=False)

    if batch.started and "part" not in turns:  # the share ended in the middle of a batch: it is used as it is
        pool.add(batch.take())

    for progress in s.steps("distil"):
        part, _ = turn(turns, student=o.student_steps, images=0 if pool.full else o.iterations)
        if part == "images":
            improve(competes=o.competition > 0)
            continue
        set_lr(opt_s, scheduled(o.lr_student, o.schedule, progress))
        images = pool.sample(o.batch_student, s.generator("pool", host=True))
        images = student_view(images, o.augmentation, space, s.generator("views"))
        s.log(distillation=s.distill(opt_s, images, temperature=o.temperature))


def likeness(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 3.0) -> Tensor:
    """1 - clip(JS, 0, 1), JS the Jensen-Shannon divergence in natural units, at most log 2, mean over the batch."""
    logs = [F.log_softmax(logits / temperature, dim=1) for logits in (teacher_logits, student_logits)]
    mixture = torch.logaddexp(*logs) - math.log(2)
    parts = [F.kl_div(mixture, each, reduction="batchmean", log_target=True) for each in logs]
    return 1 - torch.stack(parts).mean().clamp(0, 1)
