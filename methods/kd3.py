"""KD^3 (re-derived): knowledge distillation between different distributions, on images collected from the web.

No code of the authors is known. Established are three parts: (1) training images are selected again and again by the
combined predictions of teacher and student; (2) weighted features and classifier parameters of both are aligned; (3)
MixDistribution, a contrastive block, makes perturbed images of another distribution for instance alignment. The
formulae below are inferred. f_T and f_S are the inputs of the networks' last linear layers, A a linear adapter to the
teacher's width, W and b the teacher's last layer, frozen.

Selection, before the first and then after every ``every`` passes over what is kept, among ``candidates``:

    p = a softmax(T(x)) + (1 - a) softmax(S(x)),  a from ``trust`` to ``trust_end`` along the budget

keeps x where max_k p_k is above ``threshold`` (at least a batch: the surest), or, ``rule: share``, the ``kept`` surest
share of each class argmax_k p_k. The images are seen without augmentation, the student in evaluation mode.

Training, on augmented images, x~ the perturbed ones:

    L       = tau^2 KL_tau(T || S) + feature * L_feat + contrast * L_con
    S(x)    = W A(f_S(x)) + b                                                                      (classifier sharing)
    L_feat  = mean_i w_i |f_T(x_i) - A(f_S(x_i))|^2 / D,  w_i = max_k p_k(x_i) of the step, over its mean in the batch
    L_con   = mean_i -log( exp(c_ii) / sum_j exp(c_ij) ),  c_ij = cos(f_S(x_i), f_S(x~_j)) / contrast_temperature
    x~_i    per channel (x_i - m_i) / d_i * (l d_i + (1 - l) d_j) + l m_i + (1 - l) m_j:  mean m and standard deviation
            d mixed with those of another image j of the batch, l ~ Beta(mixing, mixing) of each image

What is scored is the student alone. A is linear, so its own last layer can hold what the shared classifier computes:
after every step it is set to W A, W A(0) + b. It has no gradient of its own, and an averaged student's is that of the
step before. ``classifier: own`` trains that layer instead; A then serves L_feat alone.

Inferred, with an option each: rule, threshold, a's course and the period of (1); the weights of the terms, and that the
features are ``weighted`` by confidence; Beta(0.1, 0.1), temperatures, optimiser and schedule (cosine). Inferred without
one: that sharing is hard, and through a linear adapter; the 1 / D; w from the predictions of the step; mixing on images
rather than inner maps; gradients through both sides of L_con; no clipping of x~ to the range of pixels. The teacher's
answers of a selection are stored and not asked for again: it is frozen, and the pool is not augmented.
Logged are ``kept``, the share of the candidates; ``balance``, the entropy of the kept images' classes over log K.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

from bench import Access, Data, Session, StudentBatch, Unsupported, method, option
from methods.common.choosing import above, evenness, top_of_each_class
from methods.common.losses import kl_rows
from methods.common.optimizers import set_lr
from methods.common.options import CosineOptions
from methods.common.rounds import evaluating, turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(CosineOptions):
    rule: Literal["threshold", "share"] = option("threshold", "which candidates are kept")
    threshold: float = option(
        0.5, "combined probability above which an image is kept", low=0, high=1, when={"rule": "threshold"}
    )
    kept: float = option(0.5, "share of each class that is kept", above=0, high=1, when={"rule": "share"})
    every: int = option(10, "passes over what is kept between two selections", low=1)
    candidates: int | None = option(
        None, "images of the pool that a selection looks at, the next in turn; all where not given", low=1
    )
    trust: float = option(1.0, "weight a of the teacher's prediction at the start", low=0, high=1)
    trust_end: float = option(0.5, "weight a of the teacher's prediction at the end", low=0, high=1)
    classifier: Literal["shared", "own"] = option(
        "shared", "the student's last layer: the teacher's, or one of its own"
    )
    feature: float = option(1.0, "weight of the feature alignment", low=0)
    weighted: bool = option(True, "features are aligned by confidence", when={"feature": 1.0})
    contrast: float = option(0.1, "weight of the contrastive loss", low=0)
    contrast_temperature: float = option(0.2, "its temperature", above=0, when={"contrast": 0.1})
    mixing: float = option(0.1, "both parameters of the Beta distribution of l", above=0, when={"contrast": 0.1})
    temperature: float = option(4.0, "softmax temperature tau of the distillation loss", above=0)
    batch: int = option(256, "images per step", unit="images", low=2)
    weight_decay: float = 5e-4


@method(
    "kd3", title="KD^3 (re-derived)", data=Data.POOL, pool="wild", access=Access.PARAMETERS,
    paper="Tang et al., Distribution Shift Matters for Knowledge Distillation with Webly Collected Images, ICCV 2023 "
    "(no code published)",
    presets={
        "mnist": {"optimizer": "adam", "lr_student": 1e-3, "weight_decay": 0.0, "schedule": "constant"},
        "fashion_mnist": {"optimizer": "adam", "lr_student": 1e-3, "weight_decay": 0.0, "schedule": "constant"},
        "digits": {"optimizer": "adam", "lr_student": 1e-3, "weight_decay": 0.0, "schedule": "constant"},
    },
    quick={"batch": 32, "candidates": 128, "every": 1, "threshold": 0.7, "trust": 0.9},
)  # fmt: skip
def kd3(s: Session, o: Options) -> None:
    """Images on which teacher and student are sure are selected now and then; features and classifier are shared."""
    weight, bias = s.teacher.classifier_weight, s.teacher.classifier_bias
    own, shared = s.student_classifier, o.classifier == "shared"
    if shared and "bias" not in dict(own.named_parameters()):
        raise Unsupported("the student's last layer has no bias to take the teacher's: the classifier cannot be shared")
    adapter = s.keep("adapter", nn.Linear(own.in_features, weight.shape[1]))
    apart = {id(parameter) for parameter in own.parameters()} if shared else set()
    learned = [parameter for parameter in s.student.parameters() if id(parameter) not in apart]
    opt_s = kept_optimizer(s, o, [*learned, *adapter.parameters()])
    answers = s.keep("answers", torch.zeros(s.pool_size, s.task.classes))  # the teacher's softmax
    confidence = s.keep("confidence", torch.zeros(s.pool_size))
    classes = s.keep("classes", torch.zeros(s.pool_size, dtype=torch.int64))
    looked = s.keep("looked", torch.zeros(s.pool_size, dtype=torch.bool))
    state: dict[str, Any] = s.keep("state", {"seen": 0, "chosen": 0, "trust": 0.0, "kept": 0.0, "balance": 0.0})
    at: dict[str, Any] = s.keep("at", {})
    surveys = ceil(min(o.candidates or s.pool_size, s.pool_size) / o.batch)
    if shared:
        fold(adapter, weight, bias, own)

    def select(index: int) -> None:
        """One batch of a selection; the last one chooses."""
        images, places = s.survey(o.batch)
        if state["seen"] < s.pool_size:  # the first round through the pool
            answers[places] = s.teacher(images).logits.softmax(1)
            state["seen"] += len(places)
        combined = answers[places]
        if state["trust"] < 1:
            with evaluating(s.student), torch.no_grad():
                combined = torch.lerp(s.student(images).softmax(1), combined, state["trust"])
        if index == 0:
            looked.zero_()
        looked[places] = True
        confidence[places], classes[places] = combined.max(1)
        if index == surveys - 1:
            among = looked.nonzero()[:, 0]
            if o.rule == "share":
                picked = among[top_of_each_class(confidence[among], classes[among], o.kept)]
            else:
                picked = among[above(confidence[among], o.threshold, min(o.batch, len(among)))]
            s.choose(picked)
            balance = float(evenness(classes[picked], s.task.classes))
            state.update(chosen=len(picked), kept=len(picked) / len(among), balance=balance)

    for progress in s.steps("train"):
        trust = o.trust + (o.trust_end - o.trust) * progress
        part, index = turn(at, survey=surveys, student=ceil(o.every * state["chosen"] / o.batch))
        if part == "survey":
            if index == 0:
                state["trust"] = trust
            select(index)
            continue

        images, _ = s.images(o.batch)
        out = s.teacher(images, penultimate=o.feature > 0)

        def loss(batch: StudentBatch, trust: float = trust) -> Tensor:
            """L; the rows are the teacher's features."""
            mapped = adapter(batch.penultimate)
            logits = F.linear(mapped, weight, bias).to(batch.teacher.dtype) if shared else batch.student
            total = kl_rows(batch.teacher, logits, o.temperature).mean()
            if o.feature:
                sure = torch.lerp(logits.detach().softmax(1), batch.teacher.softmax(1), trust).amax(1)
                alignment = aligned(batch.rows, mapped, sure if o.weighted else torch.ones_like(sure))
                total = total + o.feature * alignment
                s.log(alignment=alignment)
            if o.contrast:
                count = len(batch.images)
                share = Beta(o.mixing, o.mixing).sample((count,)).to(s.device)
                partners = torch.randperm(count, generator=s.generator("partners"), device=s.device)
                _, other = s.student_features(mixed(batch.images, partners, share), penultimate=True)
                contrast = info_nce(batch.penultimate, other, o.contrast_temperature)
                total = total + o.contrast * contrast
                s.log(contrast=contrast)
            return total

        set_lr(opt_s, o.rate(progress))
        targets = out.penultimate if o.feature else None
        distance = s.student_step(opt_s, images, loss, logits=out.logits, rows=targets, penultimate=True)
        if shared:
            fold(adapter, weight, bias, own)
        s.log(distillation=distance, kept=state["kept"], balance=state["balance"])


@torch.no_grad()
def fold(adapter: nn.Linear, weight: Tensor, bias: Tensor | None, into: nn.Linear) -> None:
    """Write W A and W A(0) + b into a linear layer, whose answers are then those of W A(f) + b."""
    into.weight.copy_(weight @ adapter.weight)
    into.bias.copy_(weight @ adapter.bias + (0 if bias is None else bias))


def aligned(teacher: Tensor, student: Tensor, confidence: Tensor) -> Tensor:
    """L_feat: mean_i w_i |f_T - A(f_S)|^2 / D of features (N, D), w the confidence (N,) over its mean."""
    return (confidence / confidence.mean() * (teacher - student).square().mean(1)).mean()


def mixed(images: Tensor, partners: Tensor, share: Tensor, eps: float = 1e-6) -> Tensor:
    """Images (N, C, H, W) with ``share`` (N,) of their own channels' mean and deviation, the rest their partners'.

    ``partners`` are places in the batch, int64 (N,). A channel of one value stays of one value.
    """
    own = share.view(-1, 1, 1, 1).to(images.dtype)
    deviation, mean = torch.std_mean(images, dim=(2, 3), correction=0, keepdim=True)
    level, spread = (own * each + (1 - own) * each[partners] for each in (mean, deviation))
    return (images - mean) / (deviation + eps) * spread + level


def info_nce(features: Tensor, others: Tensor, temperature: float) -> Tensor:
    """L_con (InfoNCE): each row of features (N, D) is to find its own row among the others, by cosine."""
    similar = F.normalize(features, dim=1) @ F.normalize(others, dim=1).T / temperature
    return F.cross_entropy(similar, torch.arange(len(similar), device=similar.device))
