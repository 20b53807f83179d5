"""CuDFKD: a curriculum for generator and student, from easy images to hard ones.

A round is ``generator_steps`` of the generator G, then ``student_steps`` of the student, each on new images x = G(z),
z ~ N(0, I). With T, S the logits of both networks and p the batch's mean of softmax(T(x) / temperature_balance):

    generator   one_hot * CE(T(x), argmax T(x)) - balance * H(p) + batch_norm_weight * R_bn + a * L_adv
                H(p) = - sum_k p_k log p_k
                R_bn sum over the teacher's batch norms of |mean - running mean| + |var - running var|
                L_adv  - mean m_i tau^2 KL(T_i || S_i), tau = ``temperature``, m_i = 1 where both predict one class
                a    0 until ``adversarial_from`` of the budget, ``adversarial`` from ``adversarial_to`` on; linear
                     between
    student     v * l,  l = mean |S(x) - T(x)| over images and classes
                v = (1 + exp(-lambda)) / (1 + exp(l - lambda))     (``log``; a constant for the gradient)
                lambda goes from ``lambda_start`` to ``lambda_end`` along the budget

So a step on images that are too hard as yet (l above lambda) counts less. ``hard`` has v = 1 where l < lambda, else 0;
``soft`` v = 1 - l / lambda there. ``each: image`` weighs every image by its own l, and takes the mean of v_i l_i.

The student is in evaluation mode in the generator's step. The generator is in training mode there, and in evaluation
mode when it makes the student's images. Its weights start from N(0, 0.02^2), its optimiser is Adam with betas
(0.9, 0.99).

The defaults are those of the released script for CIFAR-10 (250 epochs of 80 rounds), a preset has CIFAR-100's. There a
grows by 0.5 after each epoch of the middle half, so to 62; lambda by 1e-4 a step of the student, so from 2 to 12. The
code of the script weighs the whole batch (its losses per image are commented out): ``each: batch``. The paper was not
read.

Differences: a and lambda follow the budget, as the rate's cosine does, step by step (a and the rate change once an
epoch in the code). The loss in the code has a further term of v alone, which has no gradient. Other data sets than
CIFAR take CIFAR-10's settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Adam

from bench import Access, Data, Session, cmi_generator, method, option
from methods.common.losses import batch_norm_distance, imbalance, kl_rows, one_hot_loss
from methods.common.meta import normal_weights
from methods.common.optimizers import set_lr
from methods.common.options import CosineOptions, GeneratorOptions
from methods.common.rounds import evaluating, turn
from methods.common.training import kept_optimizer

LARGEST = 50.0  # of an exponent: e^50 is finite in single precision


@dataclass(frozen=True)
class Options(GeneratorOptions, CosineOptions):
    batch: int = 768
    latent: int = 512
    generator_steps: int = option(1, "generator steps of a round", low=1)
    student_steps: int = option(5, "student steps of a round", low=1)
    one_hot: float = option(1.0, "weight of the cross-entropy with the teacher's own prediction", low=0)
    balance: float = option(20.0, "weight of the entropy of the batch's mean prediction", low=0)
    temperature_balance: float = option(
        20.0, "softmax temperature of the mean prediction", above=0, when={"balance": 20.0}
    )
    batch_norm_weight: float = option(1.0, "weight of the distance of batch-norm statistics", low=0)
    adversarial: float = option(
        62.0, "last weight of the disagreement with the student, where both predict alike", low=0
    )
    adversarial_from: float = option(
        0.25, "share of the budget after which that weight rises from 0", low=0, high=0.99, when={"adversarial": 62.0}
    )
    adversarial_to: float = option(
        0.75, "share of the budget after which that weight is the last", above=0, high=1, when={"adversarial": 62.0}
    )
    temperature: float = option(3.0, "softmax temperature of the disagreement", above=0, when={"adversarial": 62.0})
    curriculum: Literal["log", "hard", "soft", "none"] = option("log", "how a loss above lambda is weighed down")
    each: Literal["batch", "image"] = option("batch", "what is weighed", when={"curriculum": "log"})
    lambda_start: float = option(2.0, "lambda at the start", above=0, when={"curriculum": "log"})
    lambda_end: float = option(12.0, "lambda at the end of the budget", above=0, when={"curriculum": "log"})
    lr_student: float = 0.05


def curriculum_weights(losses: Tensor, bound: float, kind: str) -> Tensor:
    """v of losses of any shape, in [0, 1], without a gradient: how far they count while the bound is lambda."""
    losses = losses.detach()
    if kind == "log":
        return (1 + math.exp(-bound)) / (1 + (losses - bound).clamp_max(LARGEST).exp())
    below = (losses < bound).to(losses)
    return below if kind == "hard" else below * (1 - losses / bound)


def masked_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """mean m_i tau^2 KL(T_i || S_i), m_i = 1 where both predict one class and 0 elsewhere; the mask has no gradient."""
    agree = teacher_logits.argmax(1) == student_logits.argmax(1)
    return (kl_rows(teacher_logits, student_logits, temperature) * agree).mean()


def risen(progress: float, first: float, last: float) -> float:
    """0 before ``first``, 1 from ``last`` on, linear between; a step where ``last`` is not later."""
    if progress < first:
        return 0.0
    return 1.0 if progress >= last else (progress - first) / (last - first)


@method(
    "cudfkd", title="CuDFKD", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Li et al., Dynamic Data-Free Knowledge Distillation by Easy-to-Hard Learning Strategy, "
    "Information Sciences 2023",
    presets={
        "cifar100": {
            "lr_student": 0.1, "temperature_balance": 5.0, "adversarial": 16.4, "adversarial_from": 0.2,
            "lambda_start": 1.0, "lambda_end": 7.0,
        },
    },
    quick={"batch": 32, "latent": 16, "width": 8, "student_steps": 2, "adversarial_from": 0.0, "lambda_start": 0.1},
)  # fmt: skip
def cudfkd(s: Session, o: Options) -> None:
    """A generator makes images that get harder along the budget; steps on images that are too hard yet count less."""
    made = cmi_generator(o.latent, s.task.image, o.width, large=True)
    generator = s.keep("generator", made)
    normal_weights(generator, s.generator("weights"))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator, betas=(0.9, 0.99)))
    opt_s = kept_optimizer(s, o)
    at: dict[str, Any] = s.keep("at", {})

    for progress in s.steps("train"):
        part, _ = turn(at, generator=o.generator_steps, student=o.student_steps)
        if part == "generator":
            images = generator(s.noise(o.batch, o.latent))
            out = s.teacher(images, batch_norm=o.batch_norm_weight > 0)
            one_hot = one_hot_loss(out.logits)
            negative_entropy = imbalance(out.logits / o.temperature_balance, base=math.e)
            loss = o.one_hot * one_hot + o.balance * negative_entropy
            if o.batch_norm_weight:
                distance = batch_norm_distance(out.batch_norm)
                loss = loss + o.batch_norm_weight * distance
                s.log(batch_norm=distance)
            weight = o.adversarial * risen(progress, o.adversarial_from, o.adversarial_to)
            if weight:
                with evaluating(s.student):
                    apart = masked_divergence(out.logits, s.student(images), o.temperature)
                loss = loss - weight * apart
                s.log(disagreement=apart)
            s.update(opt_g, loss)
            s.log(one_hot=one_hot, balance=negative_entropy)
            continue
        set_lr(opt_s, o.rate(progress))
        with torch.no_grad(), evaluating(generator):
            images = generator(s.noise(o.batch, o.latent))
        bound = o.lambda_start + (o.lambda_end - o.lambda_start) * progress

        def criterion(teacher: Tensor, student: Tensor, bound: float = bound) -> Tensor:
            losses = (student - teacher).abs().mean(1)
            if o.curriculum == "none":
                return losses.mean()
            if o.each == "batch":
                losses = losses.mean()
            weights = curriculum_weights(losses, bound, o.curriculum)
            s.log(counted=weights)
            return (weights * losses).mean()

        s.log(imitation=s.distill(opt_s, images, criterion=criterion))
