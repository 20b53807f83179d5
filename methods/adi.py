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

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from bench import Access, Data, Session, method, option
from methods.common.inversion import Inversion, filling, follow, image_prior, kept_pool
from methods.common.losses import batch_norm_distance, competition, likeness
from methods.common.optimizers import set_lr
from methods.common.options import InversionOptions, StatisticsOptions
from methods.common.rounds import evaluating, turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(StatisticsOptions, InversionOptions):
    first_images: int = option(128_000, "the most images made before the student begins", unit="images", low=1)
    images: int = option(256_000, "the most images to make in all", unit="images", low=1)
    competition: float = option(10.0, "weight of the competition with the student", low=0)
    temperature_competition: float = option(3.0, "softmax temperature of the competition", above=0)
    clamped: bool = option(
        False, "the code's divergence of clamped probabilities, KL(M || P), instead of Jensen-Shannon's KL(P || M)"
    )
    batch_norm_weight: float = option(10.0, "weight of the batch-norm statistics", low=0)
    share: float = option(0.5, "share of the budget spent on the first images", above=0, high=0.99)
    student_steps: int = option(50, "steps of the student between two batches", low=1)


@method(
    "adi", title="Adaptive DeepInversion", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Yin et al., Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion, CVPR 2020",
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
    batch, opt_s = Inversion.of(s, o), kept_optimizer(s, o)
    pool = kept_pool(s, o, batch)
    turns: dict[str, Any] = s.keep("turns", {})

    def improve(x: Tensor, competes: bool) -> None:
        """One update of the batch of images, of which x is the view."""
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

    for x in filling(s, o, batch, pool, most=o.first_images):
        improve(x, competes=False)

    if batch.started and "part" not in turns:  # the share ended in the middle of a batch: it is used as it is
        pool.add(batch.take())

    for progress in s.steps("distil"):
        part, _ = turn(turns, student=o.student_steps, images=0 if pool.full else o.iterations)
        if part == "images":
            improve(batch.view(o.jitter, o.flip), competes=o.competition > 0)
            if batch.finished:
                pool.add(batch.take())
            continue
        set_lr(opt_s, o.rate(progress))
        follow(s, o, batch, pool, opt_s)
