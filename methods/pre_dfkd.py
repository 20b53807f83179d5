"""PRE-DFKD: robust data-free knowledge distillation by generative pseudo replay.

A student that learns only from a drifting generator forgets. So each of its batches mixes novel images x = G(z) with
images of a memory generator G_m (:mod:`methods.common.pseudo_replay`), a VAE's decoder that learns to make earlier
images again. A round is ``generator_steps`` of the generator and ``student_steps`` of the student. With T, S the
logits, f_T the input of the teacher's head, P = softmax(T / tau), Q = softmax(S / tau), M = (P + Q) / 2:

    novel    one_hot * CE(T(x), argmax T(x)) + balance * sum_k p_k log10 p_k - activation * mean |f_T|
             + disagreement * (1 - clip(JS, 0, 1)),  JS the batch mean of [KL(P || M) + KL(Q || M)] / 2
             (p the mean of softmax(T(x)); T is detached in JS; S is in training mode)
    replay   z ~ N(0, I) makes one Adam step of ``lr_codes`` on
             balance * sum_k p_k log10 p_k + one_hot * CE + mean_d (var_d(z) - 1)^2 + mean_d mean_d(z)^2  of G_m(z);
             then x_m = G_m(z); for the student's batches G_m is in evaluation mode
    student  mean |S(u) - T(u)| over u = [novel; replayed] images
    memory   after the first ``memory_updates`` student steps of a round, for u = ``batch_fit`` of the novel images and,
             from the second round on, a new replay:
             mean |u - u'| + mean |T(u) - T(u')| + code_divergence * KL(N(mean, var) || N(0, I)),
             mean, var = encoder(u), u' = G_m(mean + sqrt(var) * noise); G_m is in training mode, in the replay too

The novel generator is in training mode throughout. ``temperature`` is tau of JS, the only one in the method. Image
sizes that are multiples of 4 serve. One Adam moves encoder and memory generator: the reference's two, of one rate, make
the same steps.

Where the reference code has another form, it is an option; the published numbers were made with the code's.
``clamped``: instead of JS, with P, Q and M clamped to [0.01, 0.99], the mean over N * K elements of
[KL(M || P) + KL(M || Q)] / 2. Of 100 classes nearly all lie at the clamp: for logits of standard deviation 1 or 2 its
gradient is exactly 0, and the code's generator does not compete with the student at all; at 5 and 10 that of JS is 41
and 22 times as large (of 10 classes 4 to 9 times, at 1 to 10). ``match_memory``: the gradient of a memory update's
replay is not cleared, so G_m steps on balance and one-hot loss as well, and not on reconstruction alone.

Differences: the cosine runs over the whole budget (the code steps it once in 36 rounds, over 400 epochs whatever their
number). MNIST's Adam has no weight decay, as in the code. Inferred: its rate, which the code leaves to an option; other
data sets than CIFAR-100 take that one's settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, method, option
from methods.common.losses import competition, imbalance, likeness, one_hot_loss
from methods.common.optimizers import set_lr
from methods.common.options import CosineOptions
from methods.common.pseudo_replay import (
    code_divergence,
    code_spread,
    draw_codes,
    encoder,
    memory_generator,
    novel_generator,
)
from methods.common.rounds import evaluating, restart, turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(CosineOptions):
    batch: int = option(1024, "novel images of one generator or student step", unit="images", low=2)
    batch_memory: int = option(128, "replayed images added to each student step", unit="images", low=2)
    batch_fit: int = option(512, "novel images of a memory update, at most a batch", unit="images", low=2)
    generator_steps: int = option(1, "generator steps in a row", low=1)
    student_steps: int = option(10, "student steps in a row", low=1)
    memory_updates: int = option(4, "student steps of a round that are followed by a memory update", low=1)
    latent: int = option(1000, "length of the codes of both generators", low=1)
    width: int = option(128, "channels of the generators' first and the encoder's last layers", low=2)
    eps: float = option(0.8, "epsilon of the inner batch norms, as in the reference code", above=0)
    init: float = option(0.08, "weights start uniform between plus and minus this", above=0)
    one_hot: float = option(1.0, "weight of the one-hot loss, of novel and of replayed images", low=0)
    balance: float = option(5.0, "weight of the information entropy (log10) loss, of novel and of replayed", low=0)
    activation: float = option(0.1, "weight of the activation loss", low=0)
    disagreement: float = option(1.0, "weight of the disagreement with the student", low=0)
    temperature: float = option(3.0, "softmax temperature of the disagreement", above=0)
    clamped: bool = option(False, "disagreement by the code's mean over clamped elements, instead of Jensen-Shannon's")
    match_memory: bool = option(False, "the memory generator also learns from its replay's losses, as in the code")
    code_divergence: float = option(1e-5, "weight of the codes' divergence from N(0, I)", low=0)
    lr_generator: float = option(0.02, "the novel generator's learning rate (Adam)", above=0)
    lr_memory: float = option(5e-4, "learning rate of encoder and memory generator (Adam)", above=0)
    lr_codes: float = option(0.02, "how far the one Adam step moves the codes of replayed images", above=0)
    weight_decay: float = 5e-4


@method(
    "pre_dfkd", title="PRE-DFKD", data=Data.NONE, access=Access.FEATURES,
    paper="Binici et al., Robust and Resource-Efficient Data-Free KD by Generative Pseudo Replay, AAAI 2022",
    presets={"mnist": {"optimizer": "adam", "lr_student": 2e-3, "weight_decay": 0.0}},
    quick={
        "batch": 32,
        "batch_memory": 8,
        "batch_fit": 16,
        "latent": 16,
        "width": 8,
        "student_steps": 3,
        "memory_updates": 2,
    },
)  # fmt: skip
def pre_dfkd(s: Session, o: Options) -> None:
    """A generator makes new images, another one makes earlier ones again; the student learns from both."""
    nets = (o.latent, o.width, o.eps, o.init)
    generator = s.keep("generator", novel_generator(s, *nets))
    memory = s.keep("memory", memory_generator(s, *nets))
    encode = s.keep("encoder", encoder(s, *nets))
    codes = s.keep("codes", torch.zeros(o.batch_memory, o.latent, requires_grad=True))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_m = s.keep("opt_m", Adam([*encode.parameters(), *memory.parameters()], o.lr_memory))
    opt_z = s.keep("opt_z", Adam([codes], o.lr_codes))
    opt_s = kept_optimizer(s, o)
    at: dict[str, Any] = s.keep("at", {})

    def replay() -> tuple[Tensor, Sequence[Tensor]]:
        """Images of codes that made a step; with ``match_memory`` also the gradients for the memory generator."""
        codes.data.copy_(s.noise(*codes.shape, stream="codes"))
        restart(opt_z)
        logits = s.teacher(memory(codes)).logits
        loss = o.balance * imbalance(logits) + o.one_hot * one_hot_loss(logits) + code_spread(codes)
        left: Sequence[Tensor] = ()
        if o.match_memory and memory.training:
            left = torch.autograd.grad(loss, list(memory.parameters()), retain_graph=True)
        s.update(opt_z, loss)
        with torch.no_grad():
            return memory(codes), left

    def remember(images: Tensor, logits: Tensor, left: Sequence[Tensor]) -> Tensor:
        moments = encode(images)
        again = memory(draw_codes(moments, s.noise(len(images), o.latent, stream="encoder")))
        loss = F.l1_loss(again, images) + F.l1_loss(s.teacher(again).logits, logits)
        total = loss + o.code_divergence * code_divergence(moments)
        for weight, gradient in zip(memory.parameters(), left, strict=False):  # adds just these gradients, if any
            total = total + (weight * gradient).sum()
        s.update(opt_m, total)
        return loss

    for progress in s.steps("train"):
        part, index = turn(at, generator=o.generator_steps, student=o.student_steps)
        if part == "generator":
            images = generator(s.noise(o.batch, o.latent))
            out = s.teacher(images, features=True)
            differ = partial(competition, elements=True) if o.clamped else likeness
            apart = differ(out.logits.detach(), s.student(images), o.temperature)
            one_hot, balance = one_hot_loss(out.logits), imbalance(out.logits)
            activation = -out.features.abs().mean()
            loss = o.one_hot * one_hot + o.balance * balance + o.activation * activation + o.disagreement * apart
            s.update(opt_g, loss)
            s.log(one_hot=one_hot, balance=balance, activation=activation, disagreement=apart)
            continue
        set_lr(opt_s, o.rate(progress))
        with torch.no_grad():
            novel = generator(s.noise(o.batch, o.latent))
        with evaluating(memory):
            images = torch.cat([novel, replay()[0]])
        with torch.no_grad():
            logits = s.teacher(images).logits
        s.log(imitation=s.distill(opt_s, images, logits=logits, criterion=F.l1_loss))
        if index < o.memory_updates:
            images, logits = novel[: o.batch_fit], logits[: min(o.batch_fit, o.batch)]
            left: Sequence[Tensor] = ()
            if at["round"]:
                replayed, left = replay()
                with torch.no_grad():
                    images = torch.cat([images, replayed])
                    logits = torch.cat([logits, s.teacher(replayed).logits])
            s.log(memory=remember(images, logits, left))
