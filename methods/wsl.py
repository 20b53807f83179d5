"""WSL: soft labels weighted image by image, less where the student already knows better than the teacher.

w_n = 1 - exp(-CE(S(x_n), y_n) / (CE(T(x_n), y_n) + 1e-7))                                  both at temperature 1
L   = alpha * tau^2 / N * sum_n w_n H_tau(T(x_n), S(x_n)) + beta / N * sum_n CE(S(x_n), y_n)

H_tau(T, S) = -sum_k p_T,k log p_S,k, with p = softmax(logits / tau): the cross-entropy with the soft label. For a fixed
w_n its gradient is that of the KL divergence. w_n carries no gradient. It is near 0 where the student's error is small
beside the teacher's (there the soft label would add more variance than it removes bias), and near 1 where the student
is far behind. In the code: ``weights`` is w, ``temperature`` tau. ``weighted`` off sets every w_n to 1, which is
ordinary distillation; beta is 1 in the paper.

Settings are those of the authors' code for ImageNet (batch 256, learning rate * 0.1 every 30 of 100 epochs). CIFAR-100:
tau 4 and alpha 2.25 are the paper's as commonly quoted; the optimiser is the one of the usual benchmark there (Tian et
al., Contrastive Representation Distillation, ICLR 2020: 240 epochs, rate * 0.1 at 150, 180 and 210), which we assume.
CIFAR-10 is treated like it. LeNet-5 is not in the paper: its optimiser is that of ``kd``, tau and alpha are ImageNet's.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import Access, Data, Session, StudentBatch, method, option
from methods.common.options import RealImageOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(RealImageOptions):
    temperature: float = option(2.0, "softmax temperature tau of the soft labels", above=0)
    alpha: float = option(2.5, "weight of the soft labels' loss", above=0)
    beta: float = option(1.0, "weight of the cross-entropy with the real labels", low=0)
    weighted: bool = option(True, "whether each image's soft label is weighted by w_n")
    optimizer: Literal["adam", "sgd"] = "sgd"
    lr_student: float = 0.1
    schedule: Literal["constant", "cosine", "milestones"] = "milestones"
    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)
    weight_decay: float = 1e-4


@method(
    "wsl", title="WSL", data=Data.TRAIN, access=Access.LOGITS,
    paper="Zhou et al., Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff, ICLR 2021",
    presets={
        "digits": {"optimizer": "adam", "lr_student": 1e-3, "schedule": "constant", "weight_decay": 0.0},
        "mnist": {"optimizer": "adam", "lr_student": 1e-3, "schedule": "constant", "weight_decay": 0.0},
        "fashion_mnist": {"optimizer": "adam", "lr_student": 1e-3, "schedule": "constant", "weight_decay": 0.0},
        "cifar10": {
            "batch": 64, "temperature": 4.0, "alpha": 2.25, "lr_student": 0.05, "weight_decay": 5e-4,
            "milestones": (0.625, 0.75, 0.875),
        },
        "cifar100": {
            "batch": 64, "temperature": 4.0, "alpha": 2.25, "lr_student": 0.05, "weight_decay": 5e-4,
            "milestones": (0.625, 0.75, 0.875),
        },
    },
    quick={"batch": 32, "lr_student": 0.01},
)  # fmt: skip
def wsl(s: Session, o: Options) -> None:
    """Distillation on the real images, each soft label weighted by how far the student is behind the teacher."""
    opt_s = kept_optimizer(s, o)

    def loss(batch: StudentBatch) -> Tensor:
        """L; the rows are the labels."""
        soft = F.softmax(batch.teacher / o.temperature, dim=1)
        losses = F.cross_entropy(batch.student / o.temperature, soft, reduction="none")
        if o.weighted:
            weights = soft_label_weights(batch.teacher, batch.student, batch.rows)
            s.log(weight=weights)
            losses = weights * losses
        total = o.alpha * (o.temperature**2 * losses.mean())
        return total + o.beta * F.cross_entropy(batch.student, batch.rows) if o.beta else total

    for _ in scheduled_steps(s, opt_s, o):
        images, labels = s.images(o.batch)
        s.student_step(opt_s, images, loss, rows=labels)


@torch.no_grad()
def soft_label_weights(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> Tensor:
    """w_n = 1 - exp(-CE(S_n, y_n) / (CE(T_n, y_n) + 1e-7)), (N,), in [0, 1), without gradient.

    Args:
        teacher_logits: (N, K).
        student_logits: (N, K).
        labels: the true classes, int64 (N,).
    """
    student = F.cross_entropy(student_logits, labels, reduction="none")
    teacher = F.cross_entropy(teacher_logits, labels, reduction="none")
    return -torch.expm1(-student / (teacher + 1e-7))
