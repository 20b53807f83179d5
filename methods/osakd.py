"""OSAKD: a sample's soft label is the classes of its nearest neighbours in the network's own output space; no teacher.

z_n = S(x_n);  q_n[c] = share of class c among the k nearest neighbours of z_n (the k-nearest-neighbour estimate of the
posterior: class density k_c / (N_c V), prior N_c / N, divided by their sum, is k_c / k)
L = CE(z, y) + alpha * KL(q || softmax(z)), q a fixed target, averaged over the batch

Stated by the paper: one network, the k-nearest-neighbour density in the output space, the posterior as soft label,
again at every step. Inferred: neighbours come from the current batch, by Euclidean distance of logits, itself
left out; k = 10; the form of the loss and alpha = 1; the optimiser and the batch, which are those of ``scratch``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import Access, Data, Session, method, option
from methods.common.options import RealImageOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(RealImageOptions):
    batch: int = option(256, "images per step, neighbours included", unit="images", low=2)
    neighbours: int = option(10, "k, the neighbours of a sample; at most the batch without it", low=1)
    alpha: float = option(1.0, "weight of the divergence from the soft labels", low=0)


@method(
    "osakd", title="OSAKD (re-derived)", data=Data.TRAIN, access=Access.NONE,
    paper="Tzelepi et al., Online Self-Acquired Knowledge Distillation, 2021 (constants inferred)",
    presets={
        "cifar10": {"optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"},
        "cifar100": {"optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"},
    },
    quick={"batch": 32},
)  # fmt: skip
def osakd(s: Session, o: Options) -> None:
    """The student learns from the labels and from what its outputs' neighbourhoods say."""
    opt_s = kept_optimizer(s, o)
    for _ in scheduled_steps(s, opt_s, o):
        images, labels = s.images(o.batch)
        logits = s.student(images)
        soft = posterior(logits.detach(), labels, o.neighbours)
        s.log(own_class=soft.gather(1, labels[:, None]).mean())  # 1: every neighbourhood agrees with the label
        divergence = F.kl_div(F.log_softmax(logits, 1), soft, reduction="batchmean")
        s.update(opt_s, F.cross_entropy(logits, labels) + o.alpha * divergence)


def posterior(outputs: Tensor, labels: Tensor, neighbours: int) -> Tensor:
    """The classes' shares among each output's nearest neighbours in the batch, itself left out: (N, K), rows sum to 1.

    ``outputs`` (N, K), ``labels`` int64 (N,); of a batch with fewer others all of them are neighbours.
    """
    distances = torch.cdist(outputs, outputs).fill_diagonal_(torch.inf)
    nearest = distances.topk(min(neighbours, len(outputs) - 1), largest=False).indices
    return F.one_hot(labels[nearest], outputs.shape[1]).to(outputs.dtype).mean(1)
