"""AdaDFKD (re-derived): images that contrast with earlier ones, first with unlike and later with like ones.

Its loop is CuDFKD's (``cudfkd``), by the same authors: a round is ``generator_steps`` of the generator G, then
``student_steps`` of the student, each on new images x = G(z), z ~ N(0, I). With T, S the logits of both networks and
f_T, f_S their penultimate features, of unit length:

    generator   CuDFKD's loss, whose adversarial weight rises along the budget, + contrast * N(f_S, f_T, bank)
                N(a, b, negatives) = mean of - log [exp(a_i . b_i / tau) / (exp(a_i . b_i / tau) + sum over the
                negatives chosen for i of exp(a_i . n / tau))],  tau = ``contrast_temperature``
                chosen are ``length`` of the bank's features, in the order of a_i . n from the least alike on, without
                the first h of them: h is 0 until ``adversarial_from`` of the budget, 1 - ``length`` from
                ``adversarial_to`` on, linear between
    bank        the last ``bank`` of f_T, of the images of earlier steps of the generator
    student     v * (l + contrast_student * N(f_S, f_T, f_T of the batch's other images)), v CuDFKD's weight of it all,
                l: tau^2 KL(T || S) at ``temperature_imitation``, or for ``mae`` the mean of |S - T| over classes

Where the features' lengths differ those of S go through a linear layer that is drawn again in every step and learns
nothing, as in the code. In the generator's step the student is in evaluation mode and the gradient goes through both
networks' features; in the student's through its own alone.

Known from the released code: the loop, all of the other losses, that the contrast is one of teacher's and student's
features with a bank of ``bank`` entries, its temperature and weights, ``length`` and the growth of h. The two
functions that compute N were not at hand. Inferred, after MoCo, whose name the bank has, and the paper's abstract (from
easy to hard to discriminate): what is anchor and positive, that the bank has f_T, how ``length`` and h choose from it,
that N in the student's step is over the batch. The paper was not read.

The defaults are those of the script for CIFAR-10, a preset has CIFAR-100's. Differences: as in CuDFKD. The bank is
empty at first, and the first step has no contrast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, StudentBatch, cmi_generator, method, option
from methods.common.curriculum import CurriculumOptions, masked_divergence, priors, risen, weighed
from methods.common.losses import kl_rows
from methods.common.meta import normal_weights
from methods.common.optimizers import set_lr
from methods.common.pools import ImagePool
from methods.common.rounds import evaluating, turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(CurriculumOptions):
    batch: int = 512
    student_steps: int = 10
    adversarial: float = 37.5
    lambda_start: float = 2.41
    lambda_end: float = 12.41
    contrast: float = option(0.1, "weight of the contrast with the bank, for the generator", low=0)
    contrast_student: float = option(0.1, "weight of the contrast within a batch, for the student", low=0)
    contrast_temperature: float = option(0.07, "temperature of both contrasts", above=0, when={"contrast": 0.1})
    bank: int = option(8192, "earlier images whose features are kept", unit="images", low=1, when={"contrast": 0.1})
    length: float = option(0.9, "share of the bank that an image is told from", above=0, high=1, when={"contrast": 0.1})
    imitation: Literal["kl", "mae"] = option("kl", "how far the student is from the teacher")
    temperature_imitation: float = option(20.0, "softmax temperature of `kl`", above=0, when={"imitation": "kl"})


def told_apart(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """N of each anchor (N, D), (N,): its positive among its similarities (N, M) to negatives; all of unit length."""
    own = (anchors * positives).sum(1, keepdim=True)
    return -F.log_softmax(torch.cat([own, negatives], 1) / temperature, dim=1)[:, 0]


def window(similar: Tensor, length: float, first: float) -> Tensor:
    """Of similarities (N, M) the ``length`` of each row, at least one, after the ``first`` share of the lowest."""
    count = similar.shape[1]
    size = max(1, round(length * count))
    start = min(round(first * count), count - size)
    return similar.sort(1).values[:, start : start + size]


def among_themselves(anchors: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """N of each anchor (N, D), (N,), its negatives the positives of the others."""
    similar = anchors @ positives.T / temperature
    return -F.log_softmax(similar, dim=1).diagonal()


@method(
    "adadfkd", title="AdaDFKD (re-derived)", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Li et al., AdaDFKD: Exploring Adaptive Inter-Sample Relationship in Data-Free Knowledge Distillation, "
    "Neural Networks 2024",
    presets={
        "cifar100": {
            "batch": 768, "student_steps": 5, "temperature_balance": 5.0, "adversarial": 30.0, "adversarial_from": 0.2,
            "adversarial_to": 0.8, "lambda_start": 1.2, "lambda_end": 9.2, "bank": 24_576, "length": 0.62,
            "imitation": "mae",
        },
    },
    quick={
        "batch": 32, "latent": 16, "width": 8, "student_steps": 2, "adversarial_from": 0.0, "lambda_start": 0.1,
        "bank": 80,
    },
)  # fmt: skip
def adadfkd(s: Session, o: Options) -> None:
    """A generator's images contrast with earlier ones, in the end with the most similar; the student follows."""
    generator = s.keep("generator", cmi_generator(o.latent, s.task.image, o.width, large=True))
    normal_weights(generator, s.generator("weights"))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator, betas=(0.9, 0.99)))
    opt_s = kept_optimizer(s, o)
    bank = s.keep("features", ImagePool(o.bank, ring=True))
    at: dict[str, Any] = s.keep("at", {})

    def units(features: Tensor, wanted: int) -> Tensor:
        """Features of unit length, of another length D through a layer that is drawn again."""
        own = features.shape[1]
        if own != wanted:
            drawn = (2 * s.uniform(wanted, own + 1, stream="projection") - 1) / math.sqrt(own)
            features = F.linear(features, drawn[:, :own], drawn[:, own])
        return F.normalize(features)

    for progress in s.steps("train"):
        part, _ = turn(at, generator=o.generator_steps, student=o.student_steps)
        if part == "generator":
            images = generator(s.noise(o.batch, o.latent))
            out = s.teacher(images, batch_norm=o.batch_norm_weight > 0, penultimate=o.contrast > 0)
            loss = priors(s, o, out)
            weight, contrasts = o.rising(progress), o.contrast > 0 and len(bank) > 0
            if weight or contrasts:
                with evaluating(s.student):
                    answer, found = s.student_features(images, penultimate=True)
            if weight:
                apart = masked_divergence(out.logits, answer, o.temperature)
                loss = loss - weight * apart
                s.log(disagreement=apart)
            if o.contrast:
                targets = F.normalize(out.penultimate)
            if contrasts:
                anchors = units(found, targets.shape[1])
                similar = anchors @ bank.take(torch.arange(len(bank))).T
                first = (1 - o.length) * risen(progress, o.adversarial_from, o.adversarial_to)
                chosen = window(similar, o.length, first)
                told = told_apart(anchors, targets, chosen, o.contrast_temperature).mean()
                loss = loss + o.contrast * told
                s.log(contrast=told)
            s.update(opt_g, loss)
            if o.contrast:
                bank.add(targets)
            continue
        set_lr(opt_s, o.rate(progress))
        with torch.no_grad(), evaluating(generator):
            images = generator(s.noise(o.batch, o.latent))
            out = s.teacher(images, penultimate=o.contrast_student > 0)
        bound = o.bound(progress)

        def imitation(batch: StudentBatch, bound: float = bound) -> Tensor:
            """The student's loss; the rows are the teacher's features, where they are asked for."""
            if o.imitation == "kl":
                losses = kl_rows(batch.teacher, batch.student, o.temperature_imitation)
            else:
                losses = (batch.student - batch.teacher).abs().mean(1)
            if o.contrast_student:
                anchors = units(batch.penultimate, batch.rows.shape[1])
                told = among_themselves(anchors, F.normalize(batch.rows), o.contrast_temperature)
                s.log(told=told)
                losses = losses + o.contrast_student * told
            return weighed(s, o, losses, bound)

        near = o.contrast_student > 0
        rows = out.penultimate if near else None
        s.log(imitation=s.student_step(opt_s, images, imitation, logits=out.logits, rows=rows, penultimate=near))
