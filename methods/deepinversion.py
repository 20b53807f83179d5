"""DeepInversion: images whose batch-norm statistics are those of the teacher's training, then distillation.

For a batch of images x with fixed labels y, seen as x' (one random circular shift for the batch), Adam on x minimises

    CE(T(x'), y) + a_tv TV(x') + a_l2 |x'|_2 + a_bn R_bn                a_tv: tv, a_l2: l2, a_bn: batch_norm_weight
    R_bn = sum over batch-norm layers of |mean - running mean|_2 + |var - running var|_2      of the layers' inputs

with TV the sum of the four Frobenius norms, over the whole batch, of first differences. Every batch starts from N(0, 1)
with a fresh optimiser. Images lie in normalised space and may leave the range of pixels (``clip``). The student then
minimises KL_tau(T || S) on random crops and mirror images of what was made, which the teacher labels anew.

Defaults are the paper's for CIFAR-10. TV and the L2 norm grow with the root of the batch, R_bn is biased in small ones:
weights belong to a batch size. The norms of R_bn are unsquared, as in all codes; ``squared`` is there to compare with.
ImageNet's settings are options: ``beta1``, ``schedule_images``, ``warmup``, ``flip``, ``l2_form``,
``first_layer``, ``clip``; its beginning at half the resolution is not there. Balanced labels go on from batch to batch
(the code starts each batch at class 0).

Inferred, as the student's training was not published but for temperature 3, KL alone and 1,000 batches in all: SGD at
0.1 with a cosine, weight decay, crops and mirror images (crops alone for digits), batch and ``share``. From memory: the
weight of the L2 norm. A pool beyond ``pool_mib`` is stored in 8 bits, clipped to the range of pixels.
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn import functional as F

from bench import Access, Data, Session, method, option
from methods.inversion import Inversion, image_prior, student_view
from methods.losses import batch_norm_distance
from methods.optimizers import scheduled, set_lr, student_optimizer
from methods.pixels import PixelSpace
from methods.pools import ImagePool


@dataclass(frozen=True)
class Options:
    batch: int = option(256, "images made at a time", unit="images", low=2)
    iterations: int = option(2000, "updates of a batch of images", low=1)
    images: int = option(256_000, "the most images to make", unit="images", low=1)
    pool_mib: float = option(1024.0, "a larger pool of images lies on the host in 8 bits", unit="MiB", above=0)
    lr_images: float = option(0.05, "Adam's learning rate on normalised images", above=0)
    beta1: float = option(0.9, "Adam's first decay on images", low=0, high=0.999)
    beta2: float = option(0.999, "Adam's second decay on images", low=0, high=0.99999)
    schedule_images: Literal["constant", "cosine"] = option("constant", "how the images' rate falls within a batch")
    warmup: int = option(
        0, "updates over which the images' rate rises", low=0, high=1000, when={"schedule_images": "cosine"}
    )
    labels: Literal["balanced", "random"] = option("balanced", "the wanted classes: all in turn, or drawn")
    jitter: int = option(2, "largest random shift, each way", unit="pixels", low=0)
    flip: bool = option(False, "mirror the whole batch in every second update, by chance")
    tv: float = option(2.5e-5, "weight of the total variation", low=0)
    tv_form: Literal["l2", "l1"] = option("l2", "total variation by norms over the batch, or by mean absolute values")
    l2: float = option(3e-8, "weight of the images' L2 norm; 0 in the code", low=0)
    l2_form: Literal["batch", "image"] = option("batch", "one norm over the batch, or the mean of each image's")
    batch_norm_weight: float = option(10.0, "weight of the batch-norm statistics", above=0)
    first_layer: float = option(1.0, "factor of the first batch-norm layer's term; 10 for ImageNet", low=0)
    squared: bool = option(False, "squared norms of the statistics, for comparison")
    clip: bool = option(False, "cut images to the range of pixels after every update")
    share: float = option(0.5, "share of the budget spent on images", above=0, high=0.99)
    temperature: float = option(3.0, "softmax temperature of the distillation loss", above=0)
    batch_student: int = option(256, "images a student step", unit="images", low=2)
    augmentation: Literal["crop+flip", "crop", "none"] = option("crop+flip", "what the student's images go through")
    optimizer: Literal["sgd", "adam"] = option("sgd", "the student's optimiser")
    lr_student: float = option(0.1, "the student's learning rate", above=0)
    momentum: float = option(0.9, "the student's momentum", low=0, high=1, when={"optimizer": "sgd"})
    weight_decay: float = option(1e-4, "the student's weight decay", low=0)
    schedule: Literal["cosine", "constant"] = option("cosine", "how the student's rate falls")


@method(
    "deepinversion",
    title="DeepInversion",
    paper="Yin et al., Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion, CVPR 2020",
    data=Data.NONE,
    access=Access.BATCH_NORM,
    batch_norm=True,
    presets={
        "digits": {"augmentation": "crop"},
        "mnist": {"augmentation": "crop"},
        "svhn": {"augmentation": "crop"},
    },
    quick={"batch": 16, "iterations": 3, "images": 64, "pool_mib": 0.25, "batch_student": 32, "lr_student": 0.01},
)
def deepinversion(s: Session, o: Options) -> None:
    """Images are optimised until the teacher sees its class and its own statistics in them; the student follows."""
    space = PixelSpace.of(s)
    batch = Inversion(
        s, o.batch, o.iterations, o.lr_images, betas=(o.beta1, o.beta2), schedule=o.schedule_images, warmup=o.warmup,
        labels=o.labels,
    )  # fmt: skip
    pool = s.keep("pool", ImagePool(o.images, space, limit_mib=o.pool_mib))
    opt_s = s.keep(
        "opt_s", student_optimizer(s.student.parameters(), o.optimizer, o.lr_student, o.momentum, o.weight_decay)
    )
    for _ in s.steps("synthesise", share=o.share):
        if pool.full:
            break
        x = batch.view(o.jitter, o.flip)
        out = s.teacher(x, batch_norm=True)
        one_hot, prior = F.cross_entropy(out.logits, batch.labels), image_prior(x, o.tv, o.tv_form, o.l2, o.l2_form)
        statistics = batch_norm_distance(out.batch_norm, o.first_layer, o.squared)
        batch.update(one_hot + prior + o.batch_norm_weight * statistics, o.clip)
        s.log(one_hot=one_hot, prior=prior, statistics=statistics)
        if batch.finished:
            pool.add(batch.take())
    if batch.started:  # the share ended in the middle of a batch: it is used as it is
        pool.add(batch.take())

    for progress in s.steps("distil"):
        set_lr(opt_s, scheduled(o.lr_student, o.schedule, progress))
        images = pool.sample(o.batch_student, s.generator("pool", host=True))
        images = student_view(images, o.augmentation, space, s.generator("views"))
        s.log(distillation=s.distill(opt_s, images, temperature=o.temperature))
