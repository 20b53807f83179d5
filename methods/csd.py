"""CSD: synthetic data that is customised to the student, by a task at which the student's own features are judged.

One synthesis call: the generator G starts over (weights N(0, 0.02^2)) with codes z ~ N(0, I) and labels y ~ uniform.
Adam on G and z minimises, for ``iterations`` updates, on v, the pixels of G(z) cropped with 4 pixels of black border
and flipped, then normalised,

    L = batch_norm_weight * R_bn + one_hot * CE(T(v), y) - adversarial * CE(A(f_S(R v)), 4 y + r)

    R_bn    sum over the teacher's batch norms of |mean - running mean| + |var - running var|  (batch_norm_distance)
    R v     each image turned by r = 0, 1, 2, 3 quarters: four for one
    f_S     the student's penultimate features, the input of its last layer, in evaluation mode
    A       the auxiliary classifier, which tells class and turn: linear, ReLU, linear, unit L2 norm; 4 K outputs

The images G(z) of the update with the lowest finite L go to the pool in 8 bits, with their labels. First ``warm_up``
calls of ``iterations_warm_up`` updates fill the pool without A and the student. Then a round is one call and
``student_steps`` steps, before which A starts over (weights N(0, 0.02^2), biases 0; the momentum of its optimiser
stays). A step is on cropped and flipped images x of the pool, drawn with replacement, with their labels y:

    student tau^2 KL_tau(T || S) + cross_entropy * CE(S(x), y) + feature * mean (C(g_S(x)) - g_T(x))^2
    then A  CE(A(f_S(R x)), 4 y + r), the student in evaluation mode and left alone

    g       the last map (N, C, h, w) of a network; C, learned with the student, brings g_S to the channels of g_T:
            1x1, 3x3 and 1x1 convolutions without bias, twice as many channels between, each of the first two followed
            by batch norm and ReLU; where the maps' sizes differ it averages first

The defaults are those of the released scripts for WRN-40-2 on CIFAR-10: 400 calls of 500 updates, then 100 rounds. The
rate of A's SGD stays, with the student's momentum and weight decay.

Differences: the warm-up takes at most ``share`` of the budget. The cosine runs over the budget that the warm-up leaves,
step by step. Images are drawn with replacement. A full pool drops its oldest images (the code's never is full). g is
the end of a network's last group of layers: for WRNs that is the code's. The temperature's factor is that of
``kl_divergence``. The paper was not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import Access, Data, Session, StudentBatch, cmi_generator, kl_divergence, method, option
from methods.common.best import Best
from methods.common.contrastive import InstanceHead
from methods.common.losses import batch_norm_distance
from methods.common.meta import normal_weights
from methods.common.optimizers import set_lr
from methods.common.options import StoreOptions, SynthesisOptions
from methods.common.pixels import PixelSpace
from methods.common.pools import ImagePool
from methods.common.rounds import evaluating, restart, turn
from methods.common.training import kept_optimizer
from methods.common.views import cropped_view

TURNS = 4


@dataclass(frozen=True)
class Options(SynthesisOptions, StoreOptions):
    batch_synthesis: int = 200
    warm_up: int = option(400, "synthesis calls before the student's first step, without the auxiliary task", low=1)
    iterations_warm_up: int = option(500, "updates of such a call", low=1)
    share: float = option(0.5, "the largest share of the budget for the warm-up", above=0, high=0.99)
    batch_norm_weight: float = 1.0
    one_hot: float = 1.0
    adversarial: float = option(10.0, "weight of the auxiliary task's cross-entropy, which is to be large", low=0)
    student_steps: int = 2000
    batch: int = 128
    cross_entropy: float = option(1.0, "weight of the student's cross-entropy with the wanted classes", low=0)
    feature: float = option(30.0, "weight of the distance of the last maps", low=0)
    pool: int = option(100_000, "the most images to keep (all, in the paper's 500 calls)", unit="images", low=1)
    lr_generator: float = option(1e-3, "Adam's learning rate on generator and codes", above=0)
    lr_auxiliary: float = option(
        0.1, "SGD's learning rate on the auxiliary classifier", above=0, when={"adversarial": 10.0}
    )


class MapConnector(nn.Module):
    """Maps (N, ``own``, h, w) to (N, ``wanted``, ``size``, ``size``); other sizes are averaged first."""

    def __init__(self, own: int, wanted: int, size: int) -> None:
        super().__init__()
        self.size = size
        between = 2 * wanted
        self.layers = nn.Sequential(
            *(nn.Conv2d(own, between, 1, bias=False), nn.BatchNorm2d(between), nn.ReLU()),
            *(nn.Conv2d(between, between, 3, padding=1, bias=False), nn.BatchNorm2d(between), nn.ReLU()),
            nn.Conv2d(between, wanted, 1, bias=False),
        )

    def forward(self, maps: Tensor) -> Tensor:
        own = maps.shape[-1]
        if own % self.size == 0:  # the other pooling has no deterministic backward pass on a GPU
            maps = F.avg_pool2d(maps, own // self.size) if own > self.size else maps
        else:
            maps = F.adaptive_avg_pool2d(maps, self.size)
        adapted: Tensor = self.layers(maps)
        return adapted


def turned(images: Tensor) -> Tensor:
    """Each image (N, C, S, S) turned by 0, 1, 2 and 3 quarters, (4 N, C, S, S): the four of one follow each other."""
    return torch.stack([images.rot90(quarter, (2, 3)) for quarter in range(TURNS)], 1).flatten(0, 1)


def joint_labels(labels: Tensor) -> Tensor:
    """4 y + r of classes (N,), for :func:`turned`, (4 N,)."""
    return (TURNS * labels[:, None] + torch.arange(TURNS, device=labels.device)).flatten()


@method(
    "csd", title="CSD", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight", layers=True,
    paper="Luo, Chen and Wang, Customizing Synthetic Data for Data-Free Student Learning, ICME 2023",
    quick={
        "batch_synthesis": 16, "iterations": 3, "warm_up": 2, "iterations_warm_up": 2, "latent": 16, "width": 8,
        "pool": 40, "memory_mib": 0.2, "student_steps": 3, "batch": 16,
    },
)  # fmt: skip
def csd(s: Session, o: Options) -> None:
    """Images are inverted on which the student's features do not tell class and turn; the student trains on all."""
    space = PixelSpace.of(s)
    generator = s.keep("generator", cmi_generator(o.latent, s.task.image, o.width))
    codes = s.keep("codes", torch.zeros(o.batch_synthesis, o.latent, requires_grad=True))
    labels = s.keep("labels", torch.zeros(o.batch_synthesis, dtype=torch.int64))
    opt_g = s.keep("opt_g", Adam([*generator.parameters(), codes], o.lr_generator, betas=(0.5, 0.999)))
    own, target = s.student_layer_shapes[-1][-1], s.teacher.layer_shapes[-1][-1]
    connector = s.keep("connector", MapConnector(own[0], target[0], target[-1]))
    opt_s = kept_optimizer(s, o, [*s.student.parameters(), *connector.parameters()])
    auxiliary = s.keep("auxiliary", InstanceHead(s.student_classifier.in_features, TURNS * s.task.classes))
    opt_a = s.keep(
        "opt_a", SGD(auxiliary.parameters(), o.lr_auxiliary, momentum=o.momentum, weight_decay=o.weight_decay)
    )
    pool = s.keep("pool", ImagePool(o.pool, space, ring=True, eight_bit=o.eight_bit, limit_mib=o.memory_mib))
    classes = s.keep("classes", ImagePool(o.pool, ring=True))  # of the pool's images
    best = s.keep("best", Best())
    at: dict[str, Any] = s.keep("at", {})  # its rounds are calls
    filled = s.keep("filled", {"calls": 0})

    def auxiliary_loss(images: Tensor, wanted: Tensor) -> Tensor:
        """The cross-entropy of the auxiliary task; through the student where the images carry a gradient."""
        with evaluating(s.student), torch.set_grad_enabled(images.requires_grad):
            _, features = s.student_features(turned(images), penultimate=True)
        return F.cross_entropy(auxiliary(features), joint_labels(wanted))

    def invert(index: int, iterations: int, adversarial: float) -> None:
        """One update of a call."""
        if index == 0:
            normal_weights(generator, s.generator("weights"))
            codes.data.copy_(s.noise(*codes.shape))
            labels.random_(s.task.classes, generator=s.generator("labels"))
            restart(opt_g)
            best.restart()
        images = generator(codes)
        view = cropped_view(images, space, s.generator("views"))
        out = s.teacher(view, batch_norm=o.batch_norm_weight > 0)
        loss = o.one_hot * F.cross_entropy(out.logits, labels)
        if o.batch_norm_weight:
            distance = batch_norm_distance(out.batch_norm)
            loss = loss + o.batch_norm_weight * distance
            s.log(batch_norm=distance)
        if adversarial:
            hard = auxiliary_loss(view, labels)
            loss = loss - adversarial * hard
            s.log(hard=hard)
        best.look(loss, images)
        s.update(opt_g, loss)
        s.log(inversion=loss)
        if index == iterations - 1:
            pool.add(best.tensors[0])
            classes.add(labels)
            s.log(held=len(pool))

    def imitation(batch: StudentBatch) -> Tensor:
        """The student's loss; the rows are the labels, and the teacher's last map where it is asked for."""
        wanted, *target = batch.rows
        loss = kl_divergence(batch.teacher, batch.student, o.temperature)
        if o.cross_entropy:
            loss = loss + o.cross_entropy * F.cross_entropy(batch.student, wanted)
        if o.feature:
            apart = F.mse_loss(connector(batch.layers[-1][-1]), target[0])
            s.log(maps=apart)
            loss = loss + o.feature * apart
        return loss

    for _ in s.steps("warm-up", share=o.share):
        if filled["calls"] == o.warm_up and at["index"] == o.iterations_warm_up - 1:
            break
        _, index = turn(at, synthesis=o.iterations_warm_up)
        filled["calls"] = at["round"] + 1
        invert(index, o.iterations_warm_up, 0.0)
    for progress in s.steps("train"):
        warm = at.get("round", 0) < filled["calls"]  # the warm-up's last call is finished first
        iterations = o.iterations_warm_up if warm else o.iterations
        part, index = turn(at, synthesis=iterations, student=0 if warm else o.student_steps)
        if part == "synthesis":
            warm = at["round"] < filled["calls"]
            invert(index, o.iterations_warm_up if warm else o.iterations, 0.0 if warm else o.adversarial)
            continue
        if index == 0:
            normal_weights(auxiliary, s.generator("auxiliary"))
        places = torch.randint(len(pool), (o.batch,), generator=s.generator("pool", host=True))
        images, wanted = cropped_view(pool.take(places), space, s.generator("crops")), classes.take(places)
        set_lr(opt_s, o.rate(progress))
        with torch.no_grad():
            out = s.teacher(images, layers=o.feature > 0)
        rows = (wanted, out.layers[-1][-1]) if o.feature else (wanted,)
        loss = s.student_step(opt_s, images, imitation, logits=out.logits, rows=rows, layers=o.feature > 0)
        s.log(distillation=loss)
        if o.adversarial:
            told = auxiliary_loss(images, wanted)
            s.update(opt_a, told)
            s.log(auxiliary=told)
