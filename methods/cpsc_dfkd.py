"""CPSC-DFKD: a conditional generator; the classes that it is asked for supervise both it and the student.

A round is ``generator_steps`` of the generator G, then ``student_steps`` of the student, each on new x = G(z, y),
z ~ N(0, I), classes y uniform. With T, S the logits of both networks and f_T, f_S the spatial means of their last maps,
scaled to unit length (those of a student of another width go through a fixed random adapter first):

    generator   - KL(T || S) - alpha * D + batch_norm_weight * R_bn + contrast * SCL + cross_entropy * CE(T(x), y)
    student     KL(T || S) + alpha * D' + cross_entropy * CE(S(x), y)

    D       mean (S - T)^2 over images and classes, T detached in it (``mse``); D' the same
            ``log``: D = log of that mean, D' = log |S - T|_2 over the batch, the code's form for CIFAR-10 (presets)
    R_bn    sum over the teacher's batch norms of |mean - running mean| + |var - running var|
    SCL     supervised contrast of the 2 N features, two views f_S, f_T of each image: the mean over anchors a of
            - 1/|P(a)| sum over p in P(a) of log [exp(a . p / tau) / sum over b != a of exp(a . b / tau)],
            P(a) all other features of images of a's class, tau = ``contrast_temperature``
    CE      ``label: probabilities`` has CE of softmax(T), softmax(S) in place of the logits: a second softmax, as in
            the code. ``logits`` is the cross-entropy itself

KL is at ``temperature``, 1 in the code, with tau^2. G is DAFL's generator with a batch norm whose scale and shift
belong to the class (1 and 0 at first, eps 1e-3), also after tanh. Both networks and G are in training mode throughout.

The released code makes a new Adam for G in every step: its update is close to the sign of the gradient, times the
rate, which stays. ``fresh_adam: false`` keeps it. The student's rate rises linearly over the first ``warmup`` of the
budget (10 of 600 epochs) and then falls along a cosine. The defaults are those of the code's command for CIFAR-100. The
paper was not read.

Differences: the schedule follows the budget step by step (once an epoch in the code, whose cosine has begun when the
warm-up ends). The adapter is linear, ReLU, linear, as in the code, where it is in the student's optimiser but has no
part in the student's loss; here it stays as it is. The last map is that of a network's last group of layers: with a
ResNet or a VGG its means are the code's features, with a WRN they lack the last batch norm and ReLU. Other data sets
than CIFAR-10 have ``mse``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, StudentBatch, image_generator, method, option
from methods.common.losses import batch_norm_distance, kl_rows
from methods.common.optimizers import set_lr
from methods.common.options import CosineOptions, GeneratorOptions
from methods.common.rounds import restart, turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(GeneratorOptions, CosineOptions):
    latent: int = 256
    generator_steps: int = option(6, "generator steps of a round", low=1)
    student_steps: int = option(5, "student steps of a round", low=1)
    temperature: float = option(1.0, "softmax temperature of the KL divergence", above=0)
    alpha: float = option(5.0, "weight of the logits' distance D, for both networks", low=0)
    distance: Literal["mse", "log"] = option("mse", "form of D", when={"alpha": 5.0})
    batch_norm_weight: float = option(1.0, "weight of the distance of batch-norm statistics", low=0)
    contrast: float = option(0.7, "weight of the supervised contrast", low=0)
    contrast_temperature: float = option(
        0.07, "temperature of the supervised contrast", above=0, when={"contrast": 0.7}
    )
    cross_entropy: float = option(0.7, "weight of the cross-entropy with the wanted classes, for both networks", low=0)
    label: Literal["logits", "probabilities"] = option(
        "logits", "of the logits, or of softmax probabilities as in the code", when={"cross_entropy": 0.7}
    )
    fresh_adam: bool = option(True, "the generator gets a new Adam in every step, as in the code")
    warmup: float = option(
        0.0167, "share of the budget over which the student's rate rises", low=0, high=0.9, when={"schedule": "cosine"}
    )
    weight_decay: float = 5e-4

    def warmed_rate(self, progress: float) -> float:
        """The student's rate: it rises over ``warmup``, and then falls over the rest."""
        if self.schedule == "constant" or not self.warmup:
            return self.rate(progress)
        if progress < self.warmup:
            return self.lr_student * progress / self.warmup
        return self.rate((progress - self.warmup) / (1 - self.warmup))


class ClassBatchNorm(nn.Module):
    """Batch norm of maps (N, C, h, w) with a scale and a shift for each class."""

    def __init__(self, classes: int, channels: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps, affine=False)
        self.scale = nn.Embedding.from_pretrained(torch.ones(classes, channels), freeze=False)
        self.shift = nn.Embedding.from_pretrained(torch.zeros(classes, channels), freeze=False)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        scale, shift = (each(labels)[:, :, None, None] for each in (self.scale, self.shift))
        changed: Tensor = scale * self.norm(maps) + shift
        return changed


class ClassGenerator(nn.Module):
    """Codes (N, latent) and classes, int64 (N,), to normalised images: DAFL's generator with class batch norms."""

    def __init__(self, plain: nn.Sequential, classes: int) -> None:
        super().__init__()
        norms = (each for each in plain if isinstance(each, nn.BatchNorm2d))
        widths = iter([each.num_features for each in norms])
        self.layers = nn.ModuleList(
            ClassBatchNorm(classes, next(widths)) if isinstance(each, nn.BatchNorm2d) else each for each in plain
        )

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        maps = codes
        for layer in self.layers:
            maps = layer(maps, labels) if isinstance(layer, ClassBatchNorm) else layer(maps)
        return maps


def supervised_contrast(views: tuple[Tensor, Tensor], labels: Tensor, temperature: float) -> Tensor:
    """SCL of two views (N, D) of N images of classes (N,)."""
    features, classes = torch.cat(views), labels.repeat(2)
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    similar = (features / temperature) @ features.T
    logs = similar - similar.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    positive = ((classes[:, None] == classes) & ~itself).to(logs)
    return -((logs * positive).sum(1) / positive.sum(1)).mean()


def logits_distance(student: Tensor, teacher: Tensor, kind: str, whole: bool = False) -> Tensor:
    """D, and with ``whole`` the student's D': no gradient goes to the teacher's logits."""
    apart = student - teacher.detach()
    if kind == "mse":
        return apart.square().mean()
    return torch.linalg.vector_norm(apart).log() if whole else apart.square().mean().log()


@method(
    "cpsc_dfkd", title="CPSC-DFKD", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    layers=True,
    paper="Shao, Zhang and Wang, Conditional Pseudo-Supervised Contrast for Data-Free Knowledge Distillation, "
    "Pattern Recognition 2023",
    presets={"cifar10": {"distance": "log"}},
    quick={"batch": 32, "latent": 16, "width": 8, "generator_steps": 2, "student_steps": 2, "warmup": 0.1},
)  # fmt: skip
def cpsc_dfkd(s: Session, o: Options) -> None:
    """A generator is asked for classes; features of a class are to be near in both networks, and both learn from it."""
    plain = image_generator(o.latent, s.task.image, o.width)
    generator = s.keep("generator", ClassGenerator(plain, s.task.classes))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator, betas=(0.5, 0.999)))
    opt_s = kept_optimizer(s, o)
    own, other = s.student_layer_shapes[-1][-1][0], s.teacher.layer_shapes[-1][-1][0]
    mlp = nn.Sequential(nn.Linear(own, own), nn.ReLU(), nn.Linear(own, other)).requires_grad_(False)
    adapter = s.keep("adapter", nn.Identity() if own == other else mlp)
    at: dict[str, Any] = s.keep("at", {})

    def wanted() -> Tensor:
        return torch.randint(s.task.classes, (o.batch,), generator=s.generator("labels"), device=s.device)

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits if o.label == "logits" else logits.softmax(1), labels)

    for progress in s.steps("train"):
        part, _ = turn(at, generator=o.generator_steps, student=o.student_steps)
        if part == "generator":
            labels = wanted()
            images = generator(s.noise(o.batch, o.latent), labels)
            out = s.teacher(images, batch_norm=o.batch_norm_weight > 0, layers=o.contrast > 0)
            answer, maps = s.student_groups(images)
            apart = kl_rows(out.logits, answer, o.temperature).mean()
            told = cross_entropy(out.logits, labels)
            loss = o.cross_entropy * told - apart
            if o.alpha:
                loss = loss - o.alpha * logits_distance(answer, out.logits, o.distance)
            if o.batch_norm_weight:
                distance = batch_norm_distance(out.batch_norm)
                loss = loss + o.batch_norm_weight * distance
                s.log(batch_norm=distance)
            if o.contrast:
                views = adapter(maps[-1].mean((2, 3))), out.layers[-1][-1].mean((2, 3))
                units = F.normalize(views[0]), F.normalize(views[1])
                near = supervised_contrast(units, labels, o.contrast_temperature)
                loss = loss + o.contrast * near
                s.log(contrast=near)
            if o.fresh_adam:
                restart(opt_g)
            s.update(opt_g, loss)
            s.log(disagreement=apart, told=told)
            continue
        set_lr(opt_s, o.warmed_rate(progress))
        labels = wanted()
        with torch.no_grad():
            images = generator(s.noise(o.batch, o.latent), labels)

        def imitation(batch: StudentBatch) -> Tensor:
            """The student's loss; the rows are the classes that were asked for."""
            loss = kl_rows(batch.teacher, batch.student, o.temperature).mean()
            loss = loss + o.cross_entropy * cross_entropy(batch.student, batch.rows)
            if o.alpha:
                loss = loss + o.alpha * logits_distance(batch.student, batch.teacher, o.distance, whole=True)
            return loss

        s.log(imitation=s.student_step(opt_s, images, imitation, rows=labels))
