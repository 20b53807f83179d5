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

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from bench import Access, Data, Session, cmi_generator, method
from methods.common.curriculum import CurriculumOptions, masked_divergence, priors, weighed
from methods.common.meta import normal_weights
from methods.common.optimizers import set_lr
from methods.common.rounds import evaluating, turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(CurriculumOptions):
    batch: int = 768
    lr_student: float = 0.05


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
            loss = priors(s, o, out)
            if weight := o.rising(progress):
                with evaluating(s.student):
                    apart = masked_divergence(out.logits, s.student(images), o.temperature)
                loss = loss - weight * apart
                s.log(disagreement=apart)
            s.update(opt_g, loss)
            continue
        set_lr(opt_s, o.rate(progress))
        with torch.no_grad(), evaluating(generator):
            images = generator(s.noise(o.batch, o.latent))
        bound = o.bound(progress)

        def criterion(teacher: Tensor, student: Tensor, bound: float = bound) -> Tensor:
            return weighed(s, o, (student - teacher).abs().mean(1), bound)

        s.log(imitation=s.distill(opt_s, images, criterion=criterion))
