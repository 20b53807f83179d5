"""ProKT: teacher and student walk together, the teacher never further ahead than the student can follow.

For every batch (x, y), one step each:

    teacher:  (1 - lambda) CE(T(x), y) + lambda tau^2 KL(S(x) || T(x))       S(x) fixed, before its step
    student:  tau^2 KL(T(x) || S(x))                                         T(x) fixed, after its step

It approximates mirror descent on the student's loss: the teacher's step, free of the student's architecture, lowers the
loss without leaving the student's neighbourhood; the student's step projects it into the student's parameter space. The
labels reach the student through the teacher alone. With ``variant`` "adaptive" the neighbourhood is a constraint
KL <= epsilon, whose multiplier beta follows the violation:

    teacher:  CE(T(x), y) + beta (tau^2 KL(S(x) || T(x)) - epsilon)
    beta   := max(0, beta + lr_beta (tau^2 KL(S(x) || T(x)) - epsilon)),  from ``beta`` on

In the code: ``pull`` is lambda. By default the teacher starts with fresh weights and both classifiers start at zero, as
in the authors' code (whose networks are BERTs with pretrained bodies); ``start`` "trained" takes the task's trained
teacher, with its own classifier. The teacher here is a copy, trained in this trial: its images are counted as teacher
images, two passes a step, and the teacher of the task stays as it is. The fixed S(x) and T(x) are answers in evaluation
mode, as in the code: without dropout, and batch norms neither use the batch's statistics nor take them in. Each network
is in training mode for its own step alone. Both pass twice a step. The teacher's classes on held-out images are those
of the copy when they were seen, hence poor at the beginning.

lambda 0.4 is the published one for a six-layer BERT, and the temperature is 1 there. Settings for images are not
known to us. Inferred: DAFL's LeNet-5 optimiser for both networks; on CIFAR that of the usual benchmark (Tian et al.,
Contrastive Representation Distillation, ICLR 2020: 240 epochs, rate * 0.1 at 150, 180 and 210). epsilon, lr_beta and
beta's start are the code's. The distances of hidden states, embeddings and attention that the code can add are for
transformers and are left out, as in the plain method.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from bench import Access, Data, Session, kl_divergence, method, option
from methods.common.optimizers import scheduled, set_lr
from methods.common.options import SteppedOptions
from methods.common.rounds import evaluating
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(SteppedOptions):
    batch: int = option(256, "images per step", unit="images", low=1)
    temperature: float = option(1.0, "softmax temperature tau of both divergences", above=0)
    variant: Literal["weighted", "adaptive"] = option(
        "weighted", "the student's neighbourhood: a weight, or a constraint"
    )
    pull: float = option(
        0.4, "lambda, weight of the teacher's distance from the student", low=0, high=1, when={"variant": "weighted"}
    )
    epsilon: float = option(
        1.0, "the largest wanted distance from the student", unit="nats", low=0, when={"variant": "adaptive"}
    )
    beta: float = option(1.0, "first value of the multiplier beta", low=0, when={"variant": "adaptive"})
    lr_beta: float = option(0.001, "learning rate of the multiplier beta", above=0, when={"variant": "adaptive"})
    start: Literal["fresh", "trained"] = option("fresh", "the teacher's first weights: fresh, or the trained teacher's")
    zero_classifiers: bool = option(True, "whether the classifiers of networks with fresh weights start at zero")
    optimizer: Literal["adam", "sgd"] = option("adam", "the optimiser of both networks")
    lr_student: float = 1e-3
    lr_teacher: float = option(1e-3, "the teacher's learning rate", above=0)
    schedule: Literal["constant", "cosine", "milestones"] = option("constant", "how both learning rates fall")
    milestones: tuple[float, ...] = option(
        (0.625, 0.75, 0.875),
        "shares of the budget after which the learning rates are a tenth",
        above=0,
        high=1,
        when={"schedule": "milestones"},
    )
    momentum: float = option(0.9, "momentum of both networks", low=0, high=1, when={"optimizer": "sgd"})
    weight_decay: float = option(0.0, "weight decay of both networks", low=0)


@method(
    "prokt", title="ProKT", data=Data.TRAIN, access=Access.PARAMETERS,
    paper="Shi et al., Follow Your Path: A Progressive Method for Knowledge Distillation, ECML PKDD 2021",
    presets={
        "cifar10": {
            "batch": 64, "optimizer": "sgd", "lr_student": 0.05, "lr_teacher": 0.05, "weight_decay": 5e-4,
            "schedule": "milestones",
        },
        "cifar100": {
            "batch": 64, "optimizer": "sgd", "lr_student": 0.05, "lr_teacher": 0.05, "weight_decay": 5e-4,
            "schedule": "milestones",
        },
    },
    quick={"batch": 32},
)  # fmt: skip
def prokt(s: Session, o: Options) -> None:
    """The teacher learns beside the student and is held back to where the student can follow."""
    copy = s.teacher.copy(fresh=o.start == "fresh")
    if o.zero_classifiers:
        for network in (s.student, copy) if o.start == "fresh" else (s.student,):
            zero_classifier(network)
    teacher = s.keep("teacher", copy)
    opt_t, opt_s = kept_optimizer(s, o, teacher.parameters(), "opt_t"), kept_optimizer(s, o)
    beta = s.keep("beta", torch.tensor(o.beta))
    for progress in s.steps("train"):
        for optimizer, lr in ((opt_t, o.lr_teacher), (opt_s, o.lr_student)):
            set_lr(optimizer, scheduled(lr, o.schedule, progress, o.milestones))
        images, labels = s.images(o.batch)
        with torch.no_grad(), evaluating(s.student):
            followed = s.student(images)
        logits = teacher(images)
        error, distance = F.cross_entropy(logits, labels), kl_divergence(followed, logits, o.temperature)
        if o.variant == "weighted":
            s.update(opt_t, (1 - o.pull) * error + o.pull * distance)
        else:
            excess = distance - o.epsilon
            s.update(opt_t, error + beta * excess)
            beta.add_(o.lr_beta * excess.detach()).clamp_(min=0)
            s.log(beta=beta)
        with torch.no_grad(), evaluating(teacher):
            target = teacher(images)
        s.log(error=error, distance=distance)
        s.log(distillation=s.distill(opt_s, images, logits=target, temperature=o.temperature))


@torch.no_grad()
def zero_classifier(network: nn.Module) -> None:
    """Set the last linear layer's weight and bias to zero, so that all classes are equally likely.

    Raises:
        ValueError: the network has no linear layer.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no linear layer to set to zero")
    for parameter in layers[-1].parameters():
        parameter.zero_()
