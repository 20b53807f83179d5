"""ZSKD: zero-shot knowledge distillation with Data Impressions.

1. Class templates: the rows w_k of the teacher's last linear layer. C(i, j) = cos(w_i, w_j), each row of C scaled to
   [0, 1] by its own minimum and maximum: C'.
2. For class k and scale beta, a target y ~ Dirichlet(beta * C'(k, :) + 1e-4). Half of the impressions take the first
   scale, half the second, with as many for each class.
3. A Data Impression for y: from uniform noise in [0, 1], Adam on the pixels minimises the soft cross-entropy
   - sum_c y_c log softmax(T(x) / tau)_c. After every update the batch is rescaled to [0, 1] by its common minimum and
   maximum, as the reference code does. The teacher sees normalised pixels (the reference's is trained on raw ones).
4. The student minimises KL_tau(T || S), whose gradient is that of the paper's soft cross-entropy, with the factor tau^2
   on augmented impressions, which the teacher labels again. No hard labels.

The size of the transfer set is ``impressions``, where the budget allows it: ``share`` of it goes into making them, and
an unfinished batch is used as it is. ``families`` says which of the code's geometric augmentations are applied, and
``augmentation`` whether those with noise are. A pool beyond ``pool_mib`` is stored in 8 bits.

Differences from paper and code: the impressions of a batch are of all classes and scales in turn, not of one
(``one_class``; the next batch then takes the next class and scale, so that a budget cuts all of them alike). The
student draws impressions with replacement, and sees one random variant of each; with ``expand`` all variants at once,
as in the code, which is for CIFAR-10 (preset: 64 x 106 images a step). The soft labels that the code stores with the
impressions have no part in training there, nor here.
MNIST's and Fashion-MNIST's settings are not in the released code: they are those of a re-implementation, and best
knowledge where it says nothing. ``target_entropy`` in the log is that of the targets y, in nats (0: one-hot).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Dirichlet
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, method, option
from methods.common.augment import augment
from methods.common.losses import soft_cross_entropy
from methods.common.pixels import PixelSpace
from methods.common.pools import ImagePool


@dataclass(frozen=True)
class Options:
    temperature: float = option(20.0, "softmax temperature tau, for the impressions and for the student", above=0)
    betas: tuple[float, ...] = option((1.0, 0.1), "scales of the Dirichlet's concentration, in equal parts", above=0)
    beta: float | None = option(None, "one scale instead of the list", above=0)
    impressions: int = option(
        24_000, "size of the transfer set: the most Data Impressions to make", unit="images", low=1
    )
    pool_mib: float = option(1024.0, "a larger pool of impressions lies on the host in 8 bits", unit="MiB", above=0)
    iterations: int = option(1500, "updates of a batch of impressions", low=1)
    batch: int = option(100, "impressions made at a time", unit="images", low=1)
    lr_images: float = option(
        1e-3, "Adam's learning rate on pixels in [0, 1]; best of a sweep at 1,500 updates", above=0
    )
    rescale: bool = option(True, "rescale the batch to [0, 1] after every update")
    warm_start: bool = option(False, "start from the last batch's images and moments, as the reference code does")
    scale_cancels: bool = option(False, "min-max rescaling after beta, which cancels it, as the reference code does")
    one_class: bool = option(False, "a batch is of one class and scale, as in the reference code; else of all in turn")
    share: float = option(0.5, "share of the budget spent on impressions", above=0, high=0.99)
    augmentation: Literal["geometry", "geometry+noise", "none"] = option(
        "geometry", "the 103 geometric variants, the 3 noisy ones too (in the paper for CIFAR-10 only), or none"
    )
    families: tuple[
        Literal["zoom", "shift", "rotation", "flip", "zoom+shift", "shift+rotation", "zoom+rotation"], ...
    ] = option(
        ("zoom", "shift", "rotation", "flip", "zoom+shift", "shift+rotation", "zoom+rotation"),
        "kinds of geometric variants, beside the original",
    )
    expand: bool = option(False, "train on all variants of each impression, not on one drawn at random")
    batch_student: int = option(512, "impressions per student step", unit="images", low=1)
    lr_student: float = option(0.01, "the student's learning rate (Adam)", above=0)


@method(
    "zskd", title="ZSKD", data=Data.NONE, access=Access.PARAMETERS,
    paper="Nayak et al., Zero-Shot Knowledge Distillation in Deep Networks, ICML 2019",
    presets={
        "fashion_mnist": {"impressions": 48_000},
        "cifar10": {
            "impressions": 40_000, "augmentation": "geometry+noise", "expand": True,
            "batch_student": 64, "lr_student": 1e-3,
        },
    },
    quick={"iterations": 3, "batch": 16, "batch_student": 32, "impressions": 64, "pool_mib": 0.25},
)  # fmt: skip
def zskd(s: Session, o: Options) -> None:
    """Images are optimised until the teacher answers with class mixtures drawn from its own similarities."""
    space = PixelSpace.of(s)
    concentration = concentrations(s.teacher.classifier_weight, o)
    as_it_is = PixelSpace([0.0] * s.task.image.channels, [1.0] * s.task.image.channels, s.device)  # holds pixels
    pool = s.keep("pool", ImagePool(o.impressions, as_it_is, limit_mib=o.pool_mib))
    pixels = s.keep("pixels", torch.zeros(o.batch, *s.task.image.shape, requires_grad=True))
    targets = s.keep("targets", torch.zeros(o.batch, s.task.classes))
    opt_x = s.keep("opt_x", Adam([pixels], o.lr_images))
    opt_s = s.keep("opt_s", Adam(s.student.parameters(), o.lr_student))
    at = s.keep("at", {"iteration": 0, "made": 0})

    for _ in s.steps("synthesise", share=o.share):
        if at["iteration"] == 0:
            if pool.full:
                break
            first, step = (at["made"] // o.batch, 0) if o.one_class else (at["made"], 1)
            rows = (torch.arange(o.batch, device=s.device) * step + first) % len(concentration)
            targets.copy_(Dirichlet(concentration[rows]).sample())
            s.log(target_entropy=torch.special.entr(targets).sum(1).mean())
            if not (o.warm_start and at["made"]):
                pixels.data.copy_(s.uniform(*pixels.shape))
                opt_x.state.clear()
        loss = soft_cross_entropy(s.teacher(space.normalise(pixels)).logits, targets, o.temperature)
        s.update(opt_x, loss)
        if o.rescale:
            low, high = pixels.data.aminmax()
            pixels.data.sub_(low).div_((high - low).clamp_min(1e-8))
        s.log(impression=loss)
        at["iteration"] += 1
        if at["iteration"] == o.iterations:
            pool.add(pixels)
            at["made"] += o.batch
            at["iteration"] = 0
    if at["iteration"]:  # the share ended in the middle of a batch
        pool.add(pixels)
        at["iteration"] = 0

    for _ in s.steps("distil"):
        images = pool.sample(o.batch_student, s.generator("pool", host=True))
        if o.augmentation != "none":
            noise = "noise" in o.augmentation
            stream = s.generator("augment", host=True)
            images = augment(images, stream, noise=noise, expand=o.expand, families=o.families)
        s.log(distillation=s.distill(opt_s, space.normalise(images), temperature=o.temperature))


def concentrations(weight: Tensor, o: Options) -> Tensor:
    """Dirichlet concentrations (classes * scales, classes), float64: the classes in turn, each under every scale."""
    templates = F.normalize(weight.double(), dim=1)
    similarity = templates @ templates.T
    scales = o.betas if o.beta is None else (o.beta,)
    if o.scale_cancels:  # the released files are scaled first, and each row is rescaled after they are read
        low, high = similarity.aminmax()
        rows = [unit_rows(scale * (similarity - low) / (high - low)) for scale in scales]
    else:
        rows = [scale * unit_rows(similarity) for scale in scales]
    return torch.stack(rows, 1).flatten(0, 1) + 1e-4


def unit_rows(values: Tensor) -> Tensor:
    """Each row shifted and scaled to [0, 1]."""
    low, high = values.aminmax(dim=1, keepdim=True)
    return (values - low) / (high - low)
