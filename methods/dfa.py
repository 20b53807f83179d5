"""DFA (re-derived): what the student imitates is a searched mixture of the teacher's layers, group by group.

No code of the authors is known, and the paper was not at hand: what is stated below is from its abstract and from two
summaries by readers. A layer group are layers whose maps have one shape. T_ij is the j-th map of the teacher's group i,
S_i the last map of the student's group of the same height and width, f_{i+1..} all of the student that follows:

    A_i  = sum_j a_ij T_ij,  a_i = softmax(b_i)                                        (aggregated feature)
    L_ST = D(F_i(S_i), A_i)              student to teacher: how well the student can learn A_i
    L_TS = CE(f_{i+1..}(G_i(A_i)), y)    teacher to student: how much A_i tells, in the student's own hands

Stage 1, the search: min_b L_val(w*(b), b) + R(b) with w*(b) = argmin_w L_train(w, b), both the bridge loss
CE(S(x), y) + ``student_to_teacher`` L_ST + ``teacher_to_student`` L_TS, in alternation (DARTS, first order): a step of
b on one half of the training images, then one of w (student and connectors F, G) on the other half. One group is
searched after the other. CE(S(x), y) does not depend on b and is left out of its step.
Stage 2: b is fixed, the student starts over and learns from

    L = CE(S(x), y) + feature * sum_i D(F_i(S_i), A_i)

Stated: layer groups by spatial size; a mixture for each, by a softmax; the bi-level search, group by group, with a
bridge loss of these two paths, which pull b in opposite directions; R; connectors between the widths; stage 2 and its
loss. And the ablations: ``aggregation`` "last" is ordinary feature distillation, "average" does not search.
Inferred: layers are blocks in residual networks, convolutions after ReLU in VGGs, and in LeNets convolution, batch norm
and ReLU (where a mixture is one of before and after); a group of one layer is not searched; F and G are 1x1
convolutions with a bias; D is the mean square of all elements; all weights of terms are 1; first order; DARTS's Adam
for b (rate 3e-4, betas 0.5 and 0.999), with R its weight decay 1e-3; b starts at 0; groups have equal shares of the
search, and student and connectors go on from one to the next; the student is in training mode on both halves; stage 2
starts from the trial's first weights of student and F. The search's share is 40 of 280 epochs, as commonly quoted.
Batch and optimiser are those of the usual benchmark on CIFAR (Tian et al., Contrastive Representation Distillation,
ICLR 2020: 240 epochs, rate * 0.1 at 150, 180 and 210), on the digits and MNIST those of ``kd``; the schedule runs once
in the search and once in stage 2. ``alpha`` and ``temperature``, the teacher's soft labels in stage 2, are additions.
Logged is ``depth``, where a mixture lies in its group: 0 the first layer, 1 the last; a mean of all searched groups.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, StudentBatch, Unsupported, kl_divergence, method, option
from methods.common.optimizers import set_lr
from methods.common.options import SteppedOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(SteppedOptions):
    batch: int = option(64, "images per step; in the search, per half", unit="images", low=2)
    aggregation: Literal["search", "average", "last"] = option("search", "how each group's layers are weighted")
    share: float = option(
        0.143, "share of the budget spent on the search", above=0, high=0.9, when={"aggregation": "search"}
    )
    student_to_teacher: float = option(1.0, "weight of L_ST in the search", low=0, when={"aggregation": "search"})
    teacher_to_student: float = option(1.0, "weight of L_TS in the search", low=0, when={"aggregation": "search"})
    lr_aggregation: float = option(3e-4, "learning rate of b", above=0, when={"aggregation": "search"})
    weight_decay_aggregation: float = option(1e-3, "R, weight decay of b", low=0, when={"aggregation": "search"})
    feature: float = option(1.0, "weight of the features' distance in stage 2", low=0)
    alpha: float = option(0.0, "weight of the teacher's soft labels in stage 2", low=0)
    temperature: float = option(4.0, "their softmax temperature", above=0, when={"alpha": 1.0})
    optimizer: Literal["adam", "sgd"] = option("sgd", "the optimiser of the student and its connectors")
    lr_student: float = option(0.05, "their learning rate", above=0)
    schedule: Literal["constant", "cosine", "milestones"] = option("milestones", "how it falls, in each stage")
    milestones: tuple[float, ...] = option(
        (0.625, 0.75, 0.875),
        "shares of a stage after which the learning rate is a tenth",
        above=0,
        high=1,
        when={"schedule": "milestones"},
    )
    momentum: float = option(0.9, "their momentum", low=0, high=1, when={"optimizer": "sgd"})
    weight_decay: float = option(5e-4, "their weight decay", low=0)


@method(
    "dfa", title="DFA (re-derived)", data=Data.TRAIN, access=Access.FEATURES, layers=True,
    paper="Guan et al., Differentiable Feature Aggregation Search for Knowledge Distillation, ECCV 2020 "
    "(no code published, constants inferred)",
    presets={
        "digits": {
            "batch": 256, "optimizer": "adam", "lr_student": 1e-3, "schedule": "constant", "weight_decay": 0.0
        },
        "mnist": {
            "batch": 256, "optimizer": "adam", "lr_student": 1e-3, "schedule": "constant", "weight_decay": 0.0
        },
        "fashion_mnist": {
            "batch": 256, "optimizer": "adam", "lr_student": 1e-3, "schedule": "constant", "weight_decay": 0.0
        },
    },
    quick={"batch": 32, "share": 0.5},
)  # fmt: skip
def dfa(s: Session, o: Options) -> None:
    """A mixture of the teacher's layers is searched in each group; the student learns to make the same maps."""
    layers, ends = s.teacher.layer_shapes, [group[-1] for group in s.student_layer_shapes]
    if [group[-1][1:] for group in layers] != [end[1:] for end in ends]:
        raise Unsupported("teacher and student have not the same number of layer groups with maps of the same sizes")
    searched = [index for index, group in enumerate(layers) if len(group) > 1]
    if not searched:
        raise Unsupported("each of the teacher's layer groups is one layer: there is nothing to aggregate")
    widths = [(group[-1][0], end[0]) for group, end in zip(layers, ends, strict=True)]
    to_teacher = [s.keep(f"to_teacher_{i}", nn.Conv2d(own, wanted, 1)) for i, (wanted, own) in enumerate(widths)]
    mixture = [s.keep(f"b_{i}", torch.zeros(len(group), requires_grad=True)) for i, group in enumerate(layers)]
    networks = [s.student, *to_teacher]
    start = s.keep("start", {str(place): deepcopy(each.state_dict()) for place, each in enumerate(networks)})
    learned = [parameter for network in networks for parameter in network.parameters()]

    def search() -> None:
        to_student = {i: s.keep(f"to_student_{i}", nn.Conv2d(*widths[i], 1)) for i in searched}
        inner = [*learned, *(parameter for each in to_student.values() for parameter in each.parameters())]
        opt_w = kept_optimizer(s, o, inner, "opt_w")
        outer, decay = [mixture[i] for i in searched], o.weight_decay_aggregation
        opt_b = s.keep("opt_b", Adam(outer, o.lr_aggregation, betas=(0.5, 0.999), weight_decay=decay))

        def bridge(images: Tensor, labels: Tensor, i: int, end: Tensor, target: Tensor) -> Tensor:
            """The bridge loss of group i but for the student's own cross-entropy."""
            learnable = F.mse_loss(to_teacher[i](end), target)
            telling = F.cross_entropy(s.student_from(images, i, to_student[i](target)), labels)
            s.log(student_to_teacher=learnable, teacher_to_student=telling)
            return o.student_to_teacher * learnable + o.teacher_to_student * telling

        for progress in s.steps("search", share=o.share):
            set_lr(opt_w, o.rate(progress))
            i = searched[min(int(progress * len(searched)), len(searched) - 1)]

            images, labels = s.images(o.batch, part=(1, 2))
            maps = s.teacher(images, layers=True).layers[i]
            with torch.no_grad():
                _, found = s.student_groups(images)
            s.update(opt_b, bridge(images, labels, i, found[i], aggregated(maps, mixture[i].softmax(0))))

            images, labels = s.images(o.batch, part=(0, 2))
            target = aggregated(s.teacher(images, layers=True).layers[i], mixture[i].detach().softmax(0))
            answer, found = s.student_groups(images)
            s.update(opt_w, F.cross_entropy(answer, labels) + bridge(images, labels, i, found[i], target))
            s.log(depth=depth(mixture[j].detach().softmax(0) for j in searched))

    if o.aggregation == "search":
        search()
        for place, network in enumerate(networks):
            network.load_state_dict(start[str(place)])
    weights = [weights_of(b.detach(), o.aggregation) for b in mixture]
    opt_s = kept_optimizer(s, o, learned)

    def imitation(batch: StudentBatch) -> Tensor:
        """The student's loss in stage 2; the rows are the labels and the mixture of each group."""
        labels, *targets = batch.rows
        ends = [group[-1] for group in batch.layers]
        apart = [F.mse_loss(adapt(own), wanted) for adapt, own, wanted in zip(to_teacher, ends, targets, strict=True)]
        soft = o.alpha * kl_divergence(batch.teacher, batch.student, o.temperature)
        return soft + F.cross_entropy(batch.student, labels) + o.feature * torch.stack(apart).sum()

    for _ in scheduled_steps(s, opt_s, o, "distil"):
        images, labels = s.images(o.batch)
        out = s.teacher(images, layers=True)
        targets = [aggregated(maps, each) for maps, each in zip(out.layers, weights, strict=True)]
        loss = s.student_step(opt_s, images, imitation, logits=out.logits, rows=(labels, *targets), layers=True)
        s.log(loss=loss, depth=depth(weights[j] for j in searched))


def weights_of(b: Tensor, aggregation: str) -> Tensor:
    """a_i of a group's b_i, both (J,): the softmax, or without a search 1 / J each, or 1 for the last layer alone."""
    if aggregation == "last":
        return F.pad(b.new_ones(1), (len(b) - 1, 0))
    return b.softmax(0) if aggregation == "search" else torch.full_like(b, 1 / len(b))


def aggregated(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """A_i (N, C, h, w): the sum of a group's J maps of this shape, each times its weight, (J,)."""
    return torch.stack([weight * each for weight, each in zip(weights.unbind(), maps, strict=True)]).sum(0)


def depth(weights: Iterable[Tensor]) -> Tensor:
    """Where mixtures (J,) lie, 0 all on the first layer and 1 all on the last, as a mean."""
    return torch.stack([each @ torch.linspace(0, 1, len(each), device=each.device) for each in weights]).mean()
