"""SD-Dropout: two views of one feature by dropout teach each other; there is no teacher.

h: the input of the student's head; h1, h2: h under two independent dropout masks; li = head(hi), l0 = head(h)
L = CE(l0, y) + weight * ( KL_tau(l1 || l2) + KL_tau(l2 || l1) ),  KL_tau with the factor tau^2, averaged over the batch

One pass through the network serves all three heads. Of the two forms of the authors' code the later one is the default
(weight 0.1, gradients through both sides of each divergence); ``detach`` is the earlier one's, whose weight was 1. The
batch size and the optimiser for LeNet-5 are not the paper's: they are those of ``scratch``.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from bench import Access, Data, Session, kl_divergence, method, option
from methods.common.options import RealImageOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(RealImageOptions):
    dropout: float = option(0.5, "the chance of a feature to be dropped", above=0, high=0.99)
    weight: float = option(0.1, "weight of the two divergences", low=0)
    temperature: float = option(3.0, "softmax temperature tau of the divergences", above=0)
    detach: bool = option(False, "the first side of each divergence is a fixed target")
    milestones: tuple[float, ...] = (0.5, 0.75)


@method(
    "sd_dropout", title="SD-Dropout", data=Data.TRAIN, access=Access.NONE,
    paper="Lee et al., Self-Knowledge Distillation via Dropout, 2022",
    presets={
        "cifar10": {"optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"},
        "cifar100": {"optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"},
    },
    quick={"batch": 32},
)  # fmt: skip
def sd_dropout(s: Session, o: Options) -> None:
    """The student agrees with itself under another dropout mask."""
    opt_s = kept_optimizer(s, o)
    for _ in scheduled_steps(s, opt_s, o):
        images, labels = s.images(o.batch)
        logits, features = s.student_features(images)
        first, second = (s.student_head(_dropped(s, features, o.dropout)) for _ in range(2))
        divergence = agreement(first, second, o.temperature, o.detach)
        s.log(divergence=divergence.detach())
        s.update(opt_s, F.cross_entropy(logits, labels) + o.weight * divergence)


def agreement(first: Tensor, second: Tensor, temperature: float, detach: bool) -> Tensor:
    """KL_tau(first || second) + KL_tau(second || first) of logits (N, K): a scalar, at least 0."""
    targets = (first.detach(), second.detach()) if detach else (first, second)
    there = kl_divergence(targets[0], second, temperature)
    return there + kl_divergence(targets[1], first, temperature)


def _dropped(s: Session, features: Tensor, share: float) -> Tensor:
    """Inverted dropout, from its own stream."""
    kept = s.uniform(*features.shape, stream="dropout") >= share
    return features * kept / (1 - share)
