"""DDAD-like: a generator between two discriminators, the teacher's batch-norm statistics and the student.

No code of the authors is known. Established are the parts: a generator learns from the teacher's stored batch-norm
statistics ("first discriminator") and from the largest discrepancy to the student ("second discriminator"); the student
is distilled on its images; the two alternate, for classification and for segmentation. Results are DDAD-like, and never
a reproduction. With images x = G(z), z ~ N(0, I), every round makes, as DFAD does,

    ``student_steps`` times on fresh codes: the student minimises D(x), x detached
    once on fresh codes: the generator minimises
        A(x) + batch_norm_weight * R_bn + one_hot * CE(T(x), argmax T(x)) + balance * B

    D    = mean |S(x) - T(x)| over images, classes and pixels (``discrepancy``), A = -D or, ``adaptive``, -log(D + 1)
    R_bn = sum over the teacher's batch-norm layers of |mean(x) - running mean|_2 + |var(x) - running var|_2
    B    = sum_k p_k ln p_k, p the mean of softmax(T(x)) over images and pixels

Inferred, hence options: the forms of D and R_bn, the terms CE and B, their weights, the alternation, the generators,
the schedule and all rates. For segmentation CE and B count every pixel as an image, or go with a weight of 0.
``temperature`` is that of ``discrepancy: kl``. ``batch_norm_weight: 0`` removes the first discriminator, for teachers
without batch norm. Both networks are in training mode throughout, as in DFAD.
"""

from dataclasses import dataclass
from math import e
from typing import Any, Literal

import torch
from torch.optim import Adam

from bench import Access, Data, Session, dcgan_generator, image_generator, method, option
from methods.common.losses import batch_norm_distance, discrepancy, imbalance, one_hot_loss
from methods.common.optimizers import set_lr
from methods.common.options import AdversaryOptions, SteppedOptions
from methods.common.rounds import turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(AdversaryOptions, SteppedOptions):
    batch: int = 256
    batch_norm_weight: float = option(1.0, "weight of R_bn; 0 for teachers without batch norm", low=0)
    one_hot: float = option(1.0, "weight of the one-hot loss", low=0)
    balance: float = option(5.0, "weight of the class-balance term (natural logarithm)", low=0)
    latent: int = 256
    schedule: Literal["constant", "cosine", "milestones"] = "milestones"
    milestones: tuple[float, ...] = (0.2, 0.4)
    weight_decay: float = 5e-4


@method(
    "ddad", title="DDAD-like", data=Data.NONE, access=Access.BATCH_NORM,
    batch_norm="batch_norm_weight", segmentation=True,
    paper="Zhao et al., Dual Discriminator Adversarial Distillation for Data-free Model Compression, arXiv 2021",
    presets={
        "caltech101": {"batch": 64, "generator": "dcgan", "width": 64, "lr_student": 0.05},
        "camvid": {"batch": 64, "generator": "dcgan", "width": 64, "adaptive": True},
        "nyuv2": {"batch": 64, "generator": "dcgan", "width": 64, "adaptive": True},
        "shapes": {"batch": 64, "generator": "dcgan", "width": 64, "adaptive": True},
    },
    quick={"batch": 32, "latent": 16, "width": 8, "student_steps": 2},
)  # fmt: skip
def ddad(s: Session, o: Options) -> None:
    """A generator satisfies the teacher's statistics and looks for what the student has not learnt yet."""
    make = dcgan_generator if o.generator == "dcgan" else image_generator
    generator = s.keep("generator", make(o.latent, s.task.image, o.width))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_s = kept_optimizer(s, o)
    at: dict[str, Any] = s.keep("at", {})
    differ = discrepancy(o.discrepancy, o.temperature)
    for progress in s.steps("train"):
        part, _ = turn(at, student=o.student_steps, generator=1)
        with torch.set_grad_enabled(part == "generator"):
            images = generator(s.noise(o.batch, o.latent))
        if part == "student":
            set_lr(opt_s, o.rate(progress))
            s.log(imitation=s.distill(opt_s, images, criterion=differ))
            continue
        out = s.teacher(images, batch_norm=o.batch_norm_weight > 0)
        difference = differ(out.logits, s.student(images))
        one_hot, balance = one_hot_loss(out.logits), imbalance(out.logits, base=e)
        loss = (-(difference + 1).log() if o.adaptive else -difference) + o.one_hot * one_hot + o.balance * balance
        if o.batch_norm_weight:
            statistics = batch_norm_distance(out.batch_norm)
            loss = loss + o.batch_norm_weight * statistics
            s.log(statistics=statistics)
        s.update(opt_g, loss)
        s.log(difference=difference, one_hot=one_hot, balance=balance)
