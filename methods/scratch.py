"""The student alone: trained on the real images and labels with its teacher's recipe, the teacher never asked.

LeNet-5: DAFL's recipe; CIFAR: CMI's (learning rate * 0.1 at epochs 120, 150 and 180 of 200); segmentation: the
optimiser of DFAD's student. The images come augmented as the task says (CIFAR: random crops and flips).
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn import functional as F

from bench import Access, Data, Session, method, option
from methods.optimizers import scheduled, set_lr, student_optimizer


@dataclass(frozen=True)
class Options:
    batch: int = option(256, "images a step", unit="images", low=1)
    optimizer: Literal["adam", "sgd"] = option("adam", "the student's optimiser")
    lr_student: float = option(1e-3, "the student's learning rate", above=0)
    schedule: Literal["constant", "cosine", "milestones"] = option("constant", "how the learning rate falls")
    milestones: tuple[float, ...] = option(
        (0.6, 0.75, 0.9),
        "shares of the budget after which the learning rate is a tenth",
        above=0,
        high=1,
        when={"schedule": "milestones"},
    )
    momentum: float = option(0.9, "the student's momentum", low=0, high=1, when={"optimizer": "sgd"})
    weight_decay: float = option(0.0, "the student's weight decay", low=0)


@method(
    "scratch",
    title="Scratch",
    paper="The student on real labels; settings of Chen et al., ICCV 2019 (LeNet-5) and of CMI, IJCAI 2021 (CIFAR)",
    data=Data.TRAIN,
    access=Access.NONE,
    segmentation=True,
    presets={
        "cifar10": {"optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"},
        "cifar100": {"optimizer": "sgd", "lr_student": 0.1, "weight_decay": 1e-4, "schedule": "milestones"},
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
def scratch(s: Session, o: Options) -> None:
    """Cross-entropy with the real labels: what the student reaches without a teacher."""
    opt_s = s.keep(
        "opt_s", student_optimizer(s.student.parameters(), o.optimizer, o.lr_student, o.momentum, o.weight_decay)
    )
    for progress in s.steps("train"):
        set_lr(opt_s, scheduled(o.lr_student, o.schedule, progress, o.milestones))
        images, labels = s.images(o.batch)
        s.update(opt_s, F.cross_entropy(s.student(images), labels))
