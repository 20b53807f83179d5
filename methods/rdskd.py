"""RDSKD: robustness and diversity seeking data-free knowledge distillation.

Phase 1, the generator alone. A batch of B codes is two independent halves; for images x = G(z) it minimises

    exp(L_oh - L_oh') + exp(L_ie - L_ie') + L_ds
    L_oh = mean CE(T(x), argmax T(x))                        one_hot: the teacher is confident
    L_ie = sum_k p_k ln p_k, p the mean of softmax(T(x))     balance: the classes are equally frequent
    L_ds = |P2 - P1|_F / |X2 - X1|_F                         diversity: of the halves' images X and their softmax P

L' are constants: 0 at first, and renewed after the second step of every epoch, with that step's values (as in the code;
they are no averages). L_ds is one ratio of the whole half-batches, not of pairs. Phase 2: the generator is frozen, in
evaluation mode (running batch-norm statistics, those of its output too), and the student minimises KL_tau(T || S).

The losses have no weights in the paper: ``diversity`` and ``exponential`` are there for its ablations. The exponent is
clamped at 20. The paper's 20 epochs of 120 steps are ``generator_steps`` and ``renewal``, its 1,000 epochs of the
student are what is left of the budget. ``share`` is inferred: it ends phase 1 where the budget is smaller than the
paper's. The article compares several rates and temperatures; these are its code's. ``classes`` in the log is
exp(-L_ie): how many classes, equally frequent, would have the batch's entropy.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.optim import Adam

from bench import Access, Data, Session, image_generator, method, option
from methods.common.losses import diversity_ratio, exponential, imbalance, one_hot_loss
from methods.common.optimizers import scheduled, set_lr
from methods.common.options import GeneratorOptions


@dataclass(frozen=True)
class Options(GeneratorOptions):
    batch: int = option(512, "images per step; an even number", unit="images", low=2)
    eps: float = option(0.8, "epsilon of the generator's inner batch norms, as in the reference code", above=0)
    generator_steps: int = option(2400, "the most steps of the generator", low=1)
    renewal: int = option(120, "steps from one renewal of the reference losses to the next: an epoch", low=2)
    exponential: bool = option(True, "exponentials of the losses' increase; else the plain losses")
    diversity: float = option(1.0, "weight of the diversity-seeking loss; 1 in the paper", low=0)
    share: float = option(0.5, "share of the budget spent on the generator", above=0, high=0.99)
    temperature: float = option(10.0, "softmax temperature of the distillation loss", above=0)
    batch_student: int = option(512, "images per student step", unit="images", low=2)
    lr_student: float = option(2e-3, "the student's learning rate (Adam)", above=0)
    schedule: Literal["constant", "cosine", "milestones"] = option("constant", "how the student's rate falls")
    milestones: tuple[float, ...] = option(
        (0.8,),
        "shares of the student's phase after which its rate is a tenth",
        above=0,
        high=1,
        when={"schedule": "milestones"},
    )


@method(
    "rdskd", title="RDSKD", data=Data.NONE, access=Access.GRADIENTS,
    paper="Han et al., Robustness and Diversity Seeking Data-Free Knowledge Distillation, ICASSP 2021",
    presets={
        "svhn": {"latent": 1000},
        "cifar10": {"latent": 1000, "schedule": "milestones"},
    },
    quick={"batch": 32, "latent": 16, "width": 8, "generator_steps": 12, "renewal": 3, "batch_student": 32},
)  # fmt: skip
def rdskd(s: Session, o: Options) -> None:
    """A generator is trained with the teacher alone, its images far apart; then the student follows on them."""
    generator = s.keep("generator", image_generator(o.latent, s.task.image, o.width, eps=o.eps))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_s = s.keep("opt_s", Adam(s.student.parameters(), o.lr_student))
    previous = s.keep("previous", torch.zeros(2))
    at = s.keep("at", {"step": 0})

    for _ in s.steps("generate", share=o.share):
        if at["step"] >= o.generator_steps:
            break
        images = generator(s.noise(o.batch, o.latent))
        logits = s.teacher(images).logits
        losses = torch.stack([one_hot_loss(logits), imbalance(logits, math.e)])
        diversity = diversity_ratio(images, logits)
        moving = exponential(losses, previous) if o.exponential else losses
        s.update(opt_g, moving.sum() + o.diversity * diversity)
        classes = (-losses[1].detach()).exp()
        s.log(one_hot=losses[0], balance=losses[1], classes=classes, diversity=diversity)
        s.log(clamped=losses.detach() - previous > 20)
        if at["step"] % o.renewal == 1:
            previous.copy_(losses.detach())
        at["step"] += 1

    generator.eval()
    for progress in s.steps("distil"):
        set_lr(opt_s, scheduled(o.lr_student, o.schedule, progress, o.milestones))
        with torch.no_grad():
            images = generator(s.noise(o.batch_student, o.latent))
        s.log(distillation=s.distill(opt_s, images, temperature=o.temperature))
