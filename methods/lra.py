"""LRA: learning to retain while acquiring, an adversarial generator and a student that meta-learns not to forget.

A round is ``generator_steps`` of the generator and ``student_steps`` of the student, each on new images x = G(z),
z ~ N(0, I). With T, S_w the logits of teacher and student with weights w, f_T the input of the teacher's head:

    generator   one_hot * CE(T(x), argmax T(x)) + balance * sum_k p_k log10 p_k - activation * mean |f_T|
                + disagreement * (1 - clip(J, 0, 1)),  p the mean of softmax(T(x)), J as below, T detached in it
    student     acquisition alone while the memory is empty: mean |S_w(x) - T(x)|
                then, with one batch m of the memory, drawn at random, and both batches together u = [x; m]:
                mean |S_w(u) - T(u)| + retention * mean |S_v(m) - T(m)|
                v = w - lr_virtual * (g + weight_decay * w),  g = grad_w mean |S_w(x) - T(x)|

The student's gradient goes through v: through the second derivatives of the acquisition loss. Each of the two passes
that belong to v is normalised by its own batch, and leaves no trace in the running statistics. ``retention: 0`` is the
memory bank alone, without the meta step. ``second_order: false`` takes g for a constant.

The memory has ``memory`` batches of ``batch_memory`` images, the oldest is overwritten. Of the last student step's
images of a round the first ones are remembered: in round ``first``, and in every ``every``-th after it.

The generator is PRE-DFKD's, in training mode throughout, and so is the student. ``temperature`` is tau of J, the only
one in the method. With P, Q the softmax of T / tau and S / tau and M = (P + Q) / 2, all clamped to [0.01, 0.99], J is
the mean over N * K elements of [KL(M || P) + KL(M || Q)] / 2, as in the released code; see PRE-DFKD for how little of
it is left when there are many classes. ``clamped: false`` is the Jensen-Shannon divergence itself.

The defaults are those of the released configuration with a memory bank, for CIFAR-100: 72 rounds an epoch, 400 epochs,
one batch remembered in the last round of epochs 1, 6, 11, ... The inner optimiser there has a momentum too, which does
nothing in the only step that it makes.

Differences: the cosine runs over the whole budget (the code steps it once in an epoch). The released code's second
configuration, with PRE-DFKD's memory generator in place of the bank, is not here. Inferred: other data sets than
CIFAR-100 take that one's settings. The paper was not read: whether it weighs new and remembered images by their number,
as the mean over u does, is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, StudentBatch, method, option
from methods.common.losses import competition, imbalance, likeness, one_hot_loss
from methods.common.optimizers import set_lr
from methods.common.options import CosineOptions
from methods.common.pools import ImagePool
from methods.common.pseudo_replay import novel_generator
from methods.common.rounds import turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(CosineOptions):
    batch: int = option(512, "new images of one generator or student step", unit="images", low=16)
    batch_memory: int = option(64, "images of a remembered batch, at most a batch", unit="images", low=2)
    memory: int = option(10, "remembered batches", low=1)
    first: int = option(72, "round whose images are the first to be remembered", low=1)
    every: int = option(360, "rounds until some are remembered again", low=1)
    generator_steps: int = option(1, "generator steps in a row", low=1)
    student_steps: int = option(10, "student steps in a row", low=1)
    latent: int = option(1000, "length of the generator's code", low=1)
    width: int = option(128, "channels of the generator's first layers", low=2)
    eps: float = option(0.8, "epsilon of the inner batch norms, as in the reference code", above=0)
    init: float = option(0.08, "weights start uniform between plus and minus this", above=0)
    one_hot: float = option(1.0, "weight of the one-hot loss", low=0)
    balance: float = option(5.0, "weight of the information entropy (log10) loss", low=0)
    activation: float = option(0.1, "weight of the activation loss", low=0)
    disagreement: float = option(1.0, "weight of the disagreement with the student", low=0)
    temperature: float = option(3.0, "softmax temperature of the disagreement", above=0)
    clamped: bool = option(True, "disagreement by the code's mean over clamped elements, or Jensen-Shannon's")
    retention: float = option(1.0, "weight of the loss on the memory after the virtual step", low=0)
    lr_virtual: float = option(0.9, "learning rate of the virtual step", above=0)
    second_order: bool = option(True, "the student's gradient goes through the virtual step's own gradient")
    lr_generator: float = option(0.02, "the generator's learning rate (Adam)", above=0)
    weight_decay: float = 5e-4


@method(
    "lra", title="LRA", data=Data.NONE, access=Access.FEATURES,
    paper="Patel et al., Learning to Retain while Acquiring: Combating Distribution-Shift in DFKD, CVPR 2023",
    quick={
        "batch": 24, "batch_memory": 8, "memory": 2, "first": 1, "every": 2, "latent": 16, "width": 8,
        "student_steps": 3, "lr_virtual": 0.1,
    },
)  # fmt: skip
def lra(s: Session, o: Options) -> None:
    """A generator makes new images; after a virtual step on them the student is still to know the remembered ones."""
    generator = s.keep("generator", novel_generator(s, o.latent, o.width, o.eps, o.init))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_s = kept_optimizer(s, o)
    remembered = min(o.batch_memory, o.batch)
    memory = s.keep("memory", ImagePool(o.memory * remembered, ring=True))
    at: dict[str, Any] = s.keep("at", {})
    differ = partial(competition, elements=True) if o.clamped else likeness

    def virtual(weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """The student's answers with other weights; its running statistics stay as they are."""
        statistics = {name: value.clone() for name, value in s.student.named_buffers()}
        answer: Tensor = functional_call(s.student, {**weights, **statistics}, (images,))
        return answer

    def retained(images: Tensor, new: Tensor, old: Tensor) -> Tensor:
        """The loss on the last images after a step on the first; ``new`` and ``old`` are the teacher's answers."""
        weights = dict(s.student.named_parameters())
        acquisition = F.l1_loss(virtual(weights, images[: len(new)]), new)
        gradients = torch.autograd.grad(acquisition, list(weights.values()), create_graph=o.second_order)
        moved = {
            name: weight - o.lr_virtual * (gradient + o.weight_decay * weight)
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        return F.l1_loss(virtual(moved, images[len(new) :]), old)

    def imitation(batch: StudentBatch) -> Tensor:
        """The student's loss on new images and, after them, remembered ones."""
        loss = F.l1_loss(batch.student, batch.teacher)
        if o.retention and len(batch.images) > o.batch:  # the first of them are new in any case
            kept = retained(batch.images, batch.teacher[: o.batch], batch.teacher[o.batch :])
            s.log(retention=kept)
            loss = loss + o.retention * kept
        return loss

    for progress in s.steps("train"):
        part, index = turn(at, generator=o.generator_steps, student=o.student_steps)
        if part == "generator":
            images = generator(s.noise(o.batch, o.latent))
            out = s.teacher(images, features=True)
            apart = differ(out.logits.detach(), s.student(images), o.temperature)
            one_hot, balance = one_hot_loss(out.logits), imbalance(out.logits)
            activation = -out.features.abs().mean()
            loss = o.one_hot * one_hot + o.balance * balance + o.activation * activation + o.disagreement * apart
            s.update(opt_g, loss)
            s.log(one_hot=one_hot, balance=balance, activation=activation, disagreement=apart)
            continue
        set_lr(opt_s, o.rate(progress))
        with torch.no_grad():
            images = novel = generator(s.noise(o.batch, o.latent))
        if len(memory):
            batches = len(memory) // remembered
            chosen = torch.randint(batches, (1,), generator=s.generator("memory", host=True))
            images = torch.cat([novel, memory.take(chosen * remembered + torch.arange(remembered))])

        s.log(imitation=s.student_step(opt_s, images, imitation))
        if index == o.student_steps - 1 and (at["round"] + 1 - o.first) % o.every == 0 and at["round"] + 1 >= o.first:
            memory.add(novel[:remembered])
            s.log(held=len(memory))
