"""KD-ORI: Hinton's distillation on the real training images. The ceiling against which scores are normalised.

L = alpha * KL_tau(T || S) + beta * CE(S(x), y),  KL_tau with the factor tau^2, averaged over the batch

Weights, temperature and the CIFAR optimiser are those of CMI's ``vanilla_kd`` on original data (learning rate * 0.1 at
epochs 120, 150 and 180 of 200). It has no LeNet: there the optimiser is that of DAFL's teacher, as for ``scratch``. The
images come augmented as the task says (CIFAR: random crops and flips). For segmentation the mean is over all pixels,
and optimiser and schedule are those of DFAD's student: its paper does not state KD-ORI's.
"""

from dataclasses import dataclass

from bench import Access, Data, Session, method, option
from methods.common.options import RealImageOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(RealImageOptions):
    temperature: float = option(1.0, "softmax temperature tau of the distillation loss", above=0)
    alpha: float = option(1.0, "weight of the distillation loss", low=0)
    beta: float = option(0.1, "weight of the cross-entropy with the real labels", low=0)


@method(
    "kd", title="KD with data", data=Data.TRAIN, access=Access.LOGITS, segmentation=True,
    paper="Hinton et al., Distilling the Knowledge in a Neural Network, 2015; settings of CMI (IJCAI 2021)",
    presets={
        "cifar10": {
            "batch": 128, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"
        },
        "cifar100": {
            "batch": 128, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"
        },
        "camvid": {
            "batch": 64, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 5e-4, "schedule": "milestones",
            "milestones": (0.333, 0.667),
        },
        "nyuv2": {
            "batch": 64, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 5e-5, "schedule": "milestones",
            "milestones": (0.333, 0.667),
        },
        "caltech101": {
            "batch": 64, "optimizer": "sgd", "lr_student": 0.05, "weight_decay": 5e-4, "schedule": "milestones",
            "milestones": (0.333, 0.667),
        },
    },
    quick={"batch": 32},
)  # fmt: skip
def kd(s: Session, o: Options) -> None:
    """The student follows the teacher on the real images, and the labels a little."""
    opt_s = kept_optimizer(s, o)
    for _ in scheduled_steps(s, opt_s, o):
        images, labels = s.images(o.batch)
        s.distill(opt_s, images, temperature=o.temperature, alpha=o.alpha, labels=labels, beta=o.beta)
