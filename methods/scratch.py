"""The student alone: trained on the real images and labels with its teacher's recipe, the teacher never asked.

LeNet-5: DAFL's recipe; CIFAR: CMI's (learning rate * 0.1 at epochs 120, 150 and 180 of 200); segmentation: the
optimiser of DFAD's student. The images come augmented as the task says (CIFAR: random crops and flips).
"""

from dataclasses import dataclass

from torch.nn import functional as F

from bench import Access, Data, Session, method
from methods.common.options import RealImageOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(RealImageOptions):
    """It needs only what all of them need."""


@method(
    "scratch", title="Scratch", data=Data.TRAIN, access=Access.NONE, segmentation=True,
    paper="The student on real labels; settings of Chen et al., ICCV 2019 (LeNet-5) and of CMI, IJCAI 2021 (CIFAR)",
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
    opt_s = kept_optimizer(s, o)
    for _ in scheduled_steps(s, opt_s, o):
        images, labels = s.images(o.batch)
        s.update(opt_s, F.cross_entropy(s.student(images), labels))
