"""DeepDream as a baseline of data-free distillation: class images from noise, without knowledge of the training data.

For a batch of images x with fixed labels y, seen as x' (one random circular shift for the batch), Adam on x minimises

    CE(T(x'), y) + a_tv TV(x') + a_l2 |x'|_2                              a_tv: tv, a_l2: l2

and the student minimises KL_tau(T || S) on random crops and mirror images of what was made. This is DeepInversion
without batch-norm statistics, as its paper compares with it (:mod:`methods.deepinversion`, where settings and
inferences are explained); hence it needs no batch norm.
"""

from dataclasses import dataclass

from torch.nn import functional as F

from bench import Access, Data, Session, method
from methods.common.inversion import Inversion, filling, following, image_prior, kept_pool
from methods.common.options import InversionOptions
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(InversionOptions):
    """It needs only what all inversions need."""


@method(
    "deepdream", title="DeepDream", data=Data.NONE, access=Access.GRADIENTS,
    paper="Yin et al., Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion, CVPR 2020",
    presets={
        "digits": {"augmentation": "crop"},
        "mnist": {"augmentation": "crop"},
        "svhn": {"augmentation": "crop"},
    },
    quick={"batch": 16, "iterations": 3, "images": 64, "pool_mib": 0.25, "batch_student": 32, "lr_student": 0.01},
)  # fmt: skip
def deepdream(s: Session, o: Options) -> None:
    """Images are optimised until the teacher sees a wanted class in each; the student follows."""
    batch, opt_s = Inversion.of(s, o), kept_optimizer(s, o)
    pool = kept_pool(s, o, batch)
    for x in filling(s, o, batch, pool):
        one_hot = F.cross_entropy(s.teacher(x).logits, batch.labels)
        prior = image_prior(x, o.tv, o.tv_form, o.l2, o.l2_form)
        batch.update(one_hot + prior, o.clip)
        s.log(one_hot=one_hot, prior=prior)
    following(s, o, batch, pool, opt_s)
