"""RCO: the student follows the teacher along the way of the teacher's own training, from anchor to anchor.

The teacher's training leaves anchors T_1, ..., T_m: its weights at evenly spaced points, T_m the trained teacher. The
student imitates T_1 first, then T_2 from where it is, ..., and T_m at last. In stage i, of all stages' equal shares of
the budget:

    L_i = alpha tau^2 KL(p_T_i || p_S) + beta CE(S(x), y),     p = softmax(logits / tau)

An early anchor is easier to imitate than the trained teacher, and the next one is near it. In the code: ``stages`` is
m, chosen evenly among the ten anchors that the harness keeps (``stages`` 1 is ordinary distillation); ``route`` are
their numbers. One optimiser and one schedule go through all stages; weights and moments are carried over.

Equal intervals are the variant of the code at hand, SforAiDl/KD_Lib's (an anchor every five epochs and the last).
Its temperature 20 and its equal weights 0.5 are the defaults; its softmax before the cross-entropy, and logarithms of
probabilities as the divergence's target, are mistakes and are not followed. The paper also chooses anchors greedily, by
the KL divergence between student and candidate; its rule is not known to us well enough, and is left out. The paper's
optimiser is not known to us either: it is that of ``kd``, so that both differ in the way alone. Held-out images carry
the classes of the anchor that was asked about them.
"""

from dataclasses import dataclass

import torch

from bench import Access, Data, Session, method, option
from methods.common.options import RealImageOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(RealImageOptions):
    stages: int = option(
        10, "m, how many anchors are followed, the trained teacher the last", unit="anchors", low=1, high=10
    )
    temperature: float = option(20.0, "softmax temperature tau of the distillation loss", above=0)
    alpha: float = option(0.5, "weight of the distillation loss", low=0)
    beta: float = option(0.5, "weight of the cross-entropy with the real labels", low=0)


@method(
    "rco", title="RCO", data=Data.TRAIN, access=Access.LOGITS, anchors=10,
    paper="Jin et al., Knowledge Distillation via Route Constrained Optimization, ICCV 2019",
    presets={
        "cifar10": {
            "batch": 128, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"
        },
        "cifar100": {
            "batch": 128, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"
        },
    },
    quick={"batch": 32},
)  # fmt: skip
def rco(s: Session, o: Options) -> None:
    """The student follows the teacher's own training, one anchor after the other, on the real images."""
    route = evenly_chosen(s.teacher.anchors, o.stages)
    opt_s = kept_optimizer(s, o)
    for progress in scheduled_steps(s, opt_s, o):
        stage = min(int(progress * o.stages), o.stages - 1)
        images, labels = s.images(o.batch)
        with torch.no_grad():
            logits = s.teacher(images, anchor=route[stage]).logits
        loss = s.distill(
            opt_s, images, logits=logits, temperature=o.temperature, alpha=o.alpha, labels=labels, beta=o.beta
        )
        s.log(anchor=route[stage], loss=loss)


def evenly_chosen(anchors: int, stages: int) -> list[int]:
    """The numbers (from 0) of ``stages`` of so many anchors, at equal intervals, the last one always among them.

    >>> evenly_chosen(10, 4)
    [2, 4, 7, 9]
    >>> evenly_chosen(10, 1)
    [9]
    """
    return [-(-anchors * stage // stages) - 1 for stage in range(1, stages + 1)]
