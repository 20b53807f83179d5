"""DeepInversion: images whose batch-norm statistics are those of the teacher's training, then distillation.

For a batch of images x with fixed labels y, seen as x' (one random circular shift for the batch), Adam on x minimises

    CE(T(x'), y) + a_tv TV(x') + a_l2 |x'|_2 + a_bn R_bn                a_tv: tv, a_l2: l2, a_bn: batch_norm_weight
    R_bn = sum over batch-norm layers of |mean - running mean|_2 + |var - running var|_2      of the layers' inputs

with TV the sum of the four Frobenius norms, over the whole batch, of first differences. Every batch starts from N(0, 1)
with a fresh optimiser. Images lie in normalised space and may leave the range of pixels (``clip``). The student then
minimises KL_tau(T || S) on random crops and mirror images of what was made, which the teacher labels again.

Defaults are the paper's for CIFAR-10. TV and the L2 norm grow with the root of the batch, R_bn is biased in small ones:
weights belong to a batch size. The norms of R_bn are unsquared, as in all codes; ``squared`` is there to compare with.
ImageNet's settings are options: ``beta1``, ``schedule_images``, ``warmup``, ``flip``, ``l2_form``,
``first_layer``, ``clip``; its beginning at half the resolution is not there. Balanced labels go on from batch to batch
(the code starts each batch at class 0).

Inferred, as the student's training was not published but for temperature 3, KL alone and 1,000 batches in all: SGD at
0.1 with a cosine, weight decay, crops and mirror images (crops alone for digits), batch and ``share``. From memory: the
weight of the L2 norm. A pool beyond ``pool_mib``, as that of the paper's 256,000 images is, lies on the host in half
precision; nothing is cut to the range of pixels but with ``clip``.
"""

from dataclasses import dataclass

from torch.nn import functional as F

from bench import Access, Data, Session, method
from methods.common.inversion import Inversion, filling, following, image_prior, kept_pool
from methods.common.losses import batch_norm_distance
from methods.common.options import InversionOptions, StatisticsOptions
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(StatisticsOptions, InversionOptions):
    """DeepDream's, and those of the statistics."""


@method(
    "deepinversion", title="DeepInversion", data=Data.NONE, access=Access.BATCH_NORM, batch_norm=True,
    paper="Yin et al., Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion, CVPR 2020",
    presets={
        "digits": {"augmentation": "crop"},
        "mnist": {"augmentation": "crop"},
        "svhn": {"augmentation": "crop"},
    },
    quick={"batch": 16, "iterations": 3, "images": 64, "pool_mib": 0.25, "batch_student": 32, "lr_student": 0.01},
)  # fmt: skip
def deepinversion(s: Session, o: Options) -> None:
    """Images are optimised until the teacher sees its class and its own statistics in them; the student follows."""
    batch, opt_s = Inversion.of(s, o), kept_optimizer(s, o)
    pool = kept_pool(s, o, batch)
    for x in filling(s, o, batch, pool):
        out = s.teacher(x, batch_norm=True)
        one_hot, prior = F.cross_entropy(out.logits, batch.labels), image_prior(x, o.tv, o.tv_form, o.l2, o.l2_form)
        statistics = batch_norm_distance(out.batch_norm, o.first_layer, o.squared)
        batch.update(one_hot + prior + o.batch_norm_weight * statistics, o.clip)
        s.log(one_hot=one_hot, prior=prior, statistics=statistics)
    following(s, o, batch, pool, opt_s)
