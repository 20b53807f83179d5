"""CuDFKD's and AdaDFKD's way from easy to hard: a generator's losses, one of which rises; weights of hard losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from bench import Session, TeacherOutput, option
from methods.common.losses import batch_norm_distance, imbalance, kl_rows, one_hot_loss
from methods.common.options import CosineOptions, GeneratorOptions

LARGEST = 50.0  # of an exponent: e^50 is finite in single precision


@dataclass(frozen=True)
class CurriculumOptions(GeneratorOptions, CosineOptions):
    """A generator whose images are to get harder along the budget, and student steps that count less while too hard."""

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

    def bound(self, progress: float) -> float:
        """lambda."""
        return self.lambda_start + (self.lambda_end - self.lambda_start) * progress

    def rising(self, progress: float) -> float:
        """a, the weight of the disagreement."""
        return self.adversarial * risen(progress, self.adversarial_from, self.adversarial_to)


def priors(s: Session, o: CurriculumOptions, out: TeacherOutput) -> Tensor:
    """The generator's losses of the teacher alone: confident, balanced, with its statistics."""
    one_hot, negative_entropy = one_hot_loss(out.logits), imbalance(out.logits / o.temperature_balance, base=math.e)
    s.log(one_hot=one_hot, balance=negative_entropy)
    loss = o.one_hot * one_hot + o.balance * negative_entropy
    if o.batch_norm_weight:
        distance = batch_norm_distance(out.batch_norm)
        s.log(batch_norm=distance)
        loss = loss + o.batch_norm_weight * distance
    return loss


def weighed(s: Session, o: CurriculumOptions, losses: Tensor, bound: float) -> Tensor:
    """The student's loss of the losses (N,) of its images: mean v l of the batch's mean, or of each image's."""
    if o.curriculum == "none":
        return losses.mean()
    if o.each == "batch":
        losses = losses.mean()
    weights = curriculum_weights(losses, bound, o.curriculum)
    s.log(counted=weights)
    return (weights * losses).mean()


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
