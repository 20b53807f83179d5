"""DFQ: data-free network quantisation with adversarial knowledge distillation, as CMI's library distils with it.

For images x = G(z), z ~ N(0, I), T(x) and S(x) the logits of teacher and student, every round makes

    ``generator_steps`` times on fresh codes: the generator minimises
        batch_norm_weight * R_bn + one_hot * CE(T(x), argmax T(x)) - adversarial * KL(T(x) || S(x)) + balance * B
    ``student_steps`` times on fresh codes: the student minimises KL(T(x) || S(x)), x detached

    R_bn = sum over the teacher's batch-norm layers of |mean(x) - running mean|_2 + |var(x) - running var|_2
    B    = sum_k p_k ln p_k, p the mean over the batch of softmax(T(x)): lowest, -ln K, when classes are balanced

KL is the mean over the batch at temperature tau = 1, with the factor tau^2 for others, in both lines. (The library
reads a temperature and then ignores it.) The generator is in training mode when it learns and in evaluation mode when
it makes images for the student (``sampling``; Fast-DFKD's library leaves it in training mode); the student is in
evaluation mode in the generator's steps. Images are pixels from a sigmoid, then normalised. The generator is never set
back.

``batch_norm_weight: 0`` leaves R_bn out, for teachers without batch norm; the paper has no such. The library takes a
student rate of 0.05 for ResNet-34 -> ResNet-18 (presets). The original paper, which makes quantised students, is said
to match Gaussians by their KL divergence instead of R_bn and to use several generators; that is from memory and not
built here.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from math import e
from typing import Any, Literal

import torch
from torch.optim import Adam

from bench import Access, Data, Session, cmi_generator, kl_divergence, method, option
from methods.common.losses import batch_norm_distance, imbalance, one_hot_loss
from methods.common.optimizers import set_lr
from methods.common.options import CosineOptions, GeneratorOptions
from methods.common.rounds import evaluating, turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(GeneratorOptions, CosineOptions):
    batch: int = 256
    generator_steps: int = option(1, "generator steps in a row", low=1)
    student_steps: int = option(10, "student steps in a row", low=1)
    latent: int = 256
    generator: Literal["large", "small"] = option("large", "CMI's generator for DFQ, or the one that Fast-DFKD takes")
    batch_norm_weight: float = option(1.0, "weight of R_bn; 0 for teachers without batch norm", low=0)
    one_hot: float = option(1.0, "weight of the one-hot loss", low=0)
    adversarial: float = option(1.0, "weight of the divergence that the generator looks for", low=0)
    balance: float = option(20.0, "weight of the class-balance term (natural logarithm)", low=0)
    sampling: Literal["eval", "train"] = option("eval", "the generator's mode when it makes the student's images")
    temperature: float = option(1.0, "softmax temperature of both divergences", above=0)
    lr_generator: float = option(1e-3, "the generator's learning rate (Adam, betas 0.5 and 0.999)", above=0)


@method(
    "dfq", title="DFQ", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Choi et al., Data-Free Network Quantization With Adversarial Knowledge Distillation, CVPR Workshops 2020",
    presets={"cifar10/resnet18": {"lr_student": 0.05}, "cifar100/resnet18": {"lr_student": 0.05}},
    quick={"batch": 32, "latent": 16, "width": 8, "student_steps": 2},
)  # fmt: skip
def dfq(s: Session, o: Options) -> None:
    """A generator makes images with the statistics of the training data on which teacher and student differ."""
    generator = s.keep("generator", cmi_generator(o.latent, s.task.image, o.width, large=o.generator == "large"))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator, betas=(0.5, 0.999)))
    opt_s = kept_optimizer(s, o)
    at: dict[str, Any] = s.keep("at", {})
    for progress in s.steps("train"):
        part, _ = turn(at, generator=o.generator_steps, student=o.student_steps)
        if part == "student":
            set_lr(opt_s, o.rate(progress))
            with torch.no_grad(), evaluating(generator) if o.sampling == "eval" else nullcontext():
                images = generator(s.noise(o.batch, o.latent))
            s.log(distillation=s.distill(opt_s, images, temperature=o.temperature))
            continue
        images = generator(s.noise(o.batch, o.latent))
        out = s.teacher(images, batch_norm=o.batch_norm_weight > 0)
        with evaluating(s.student):
            divergence = kl_divergence(out.logits, s.student(images), o.temperature)
        one_hot, balance = one_hot_loss(out.logits), imbalance(out.logits, base=e)
        loss = o.one_hot * one_hot + o.balance * balance - o.adversarial * divergence
        if o.batch_norm_weight:
            statistics = batch_norm_distance(out.batch_norm)
            loss = loss + o.batch_norm_weight * statistics
            s.log(statistics=statistics)
        s.update(opt_g, loss)
        s.log(one_hot=one_hot, balance=balance, divergence=divergence)
