"""DFND: learning student networks in the wild.

Choice. Every image x of the pool is looked at once. Its score is the teacher's cross-entropy with its own prediction,

    CE(T(x), y),  y = argmax T(x),

and the ``kept`` share of the images with the lowest scores is chosen. The paper chooses 600,000 of ImageNet's
1,281,167; a share means the same in a pool of any size. If ``share`` of the budget is spent before all are seen, the
choice is among those that were.

Training, on the chosen images with the task's own augmentation, y the teacher's prediction of the augmented image:

    L    = tau^2 KL_tau(T || S) + adaptation * NLL(softmax(S) Q, y)
    Q    (K, K), rows sum to one: Q_ii = ``accuracy``, fixed; Q_ij = (1 - accuracy) * softmax_{j != i}(u_i)_j
    u    learned, starts at 0 (uniform); Adam at ``lr_matrix``

so Q_ij is the chance that an image of class i is called j by the teacher. The student's rate is a tenth after 40 % and
again after 80 % of the training. ``accuracy`` is the teacher's on its own test set: 0.9523 (CIFAR-10) and 0.7774
(CIFAR-100) in the reference code. A data-free user does not know it, so it is a setting and is not measured.

The reference code (read; it does not run as published) normalises the pool by ImageNet's mean and standard deviation,
and the test images by CIFAR's. ``normalisation: imagenet`` does so for choice and training, on grey images with the
means over the three channels. By default the pool has the task's, under which teacher and student are scored.

Differences: mini-batches cross the borders of passes, as everywhere in the suite; the paper has no LeNet and no grey
images, there the optimiser is that of DAFL's teacher, as for ``kd``. Logged are ``kept``, the chosen share of the pool;
``balance``, the entropy of the chosen images' classes over log K; ``certain``, their mean probability exp(-score).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam

from bench import Access, Data, Session, method, option
from methods.common.choosing import evenness, lowest
from methods.common.losses import kl_rows
from methods.common.optimizers import set_lr
from methods.common.options import SteppedOptions
from methods.common.pixels import PixelSpace
from methods.common.training import kept_optimizer

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Options(SteppedOptions):
    kept: float = option(
        0.468, "share of the pool that is chosen; the paper's is 600,000 of 1,281,167", above=0, high=1
    )
    share: float = option(0.5, "largest share of the budget for looking at the pool", above=0, high=0.99)
    normalisation: Literal["task", "imagenet"] = option("task", "of the pool's images; `imagenet` is the code's")
    batch: int = option(256, "images per step", unit="images", low=1)
    temperature: float = option(4.0, "softmax temperature tau of the distillation loss", above=0)
    adaptation: float = option(1.0, "weight of the noise adaptation; the paper's sum has 1", low=0)
    accuracy: float = option(
        0.9523, "diagonal of the noise matrix: the teacher's accuracy", above=0, high=0.9999, when={"adaptation": 1.0}
    )
    lr_matrix: float = option(1e-3, "Adam's learning rate on the noise matrix", above=0, when={"adaptation": 1.0})
    schedule: Literal["constant", "cosine", "milestones"] = "milestones"
    milestones: tuple[float, ...] = option(
        (0.4, 0.8),
        "shares of the training after which the student's rate is a tenth",
        above=0,
        high=1,
        when={"schedule": "milestones"},
    )
    weight_decay: float = 5e-4


@method(
    "dfnd", title="DFND", data=Data.POOL, pool="wild", access=Access.LOGITS,
    paper="Chen et al., Learning Student Networks in the Wild, CVPR 2021",
    presets={
        "cifar100": {"accuracy": 0.7774},
        "mnist": {"optimizer": "adam", "lr_student": 1e-3, "weight_decay": 0.0, "schedule": "constant"},
        "fashion_mnist": {"optimizer": "adam", "lr_student": 1e-3, "weight_decay": 0.0, "schedule": "constant"},
        "digits": {"optimizer": "adam", "lr_student": 1e-3, "weight_decay": 0.0, "schedule": "constant"},
    },
    quick={"batch": 32, "share": 0.3},
)  # fmt: skip
def dfnd(s: Session, o: Options) -> None:
    """The images on which the teacher is surest are chosen; the student learns with a noise layer over its answers."""
    scores = s.keep("scores", torch.full((s.pool_size,), math.inf, dtype=torch.float64))
    classes = s.keep("classes", torch.zeros(s.pool_size, dtype=torch.int64))
    free = s.keep("free", torch.zeros(s.task.classes, s.task.classes, requires_grad=True))
    opt_q = s.keep("opt_q", Adam([free], o.lr_matrix))
    opt_s = kept_optimizer(s, o)
    seen = s.keep("seen", {"images": 0})
    found: dict[str, float] = s.keep("found", {})
    space, imagenet = PixelSpace.of(s), _imagenet(s)

    def view(images: Tensor) -> Tensor:
        return images if o.normalisation == "task" else imagenet.normalise(space.pixels(images))

    for _ in s.steps("select", share=o.share):
        if seen["images"] == s.pool_size:
            break
        images, places = s.survey(o.batch)
        scores[places], classes[places] = judged(s.teacher(view(images)).logits)
        seen["images"] += len(places)

    for progress in s.steps("train"):
        if not found:
            places = lowest(scores, o.kept)
            s.choose(places)
            found["kept"] = len(places) / s.pool_size
            found["balance"] = float(evenness(classes[places], s.task.classes))
            found["certain"] = float((-scores[places]).exp().mean())
        answers: list[Tensor] = []

        def loss(teacher: Tensor, student: Tensor, answers: list[Tensor] = answers) -> Tensor:
            total = kl_rows(teacher, student, o.temperature).mean()
            if o.adaptation:
                answers += [student.detach(), teacher.argmax(1)]
                total = total + o.adaptation * adapted(student, teacher.argmax(1), noise_matrix(free, o.accuracy))
            return total

        images, _ = s.images(o.batch)
        set_lr(opt_s, o.rate(progress))
        s.log(distillation=s.distill(opt_s, view(images), criterion=loss), **found)
        if o.adaptation:  # on the answers before this step: one step on L for student and matrix together
            adaptation = adapted(answers[0], answers[1], noise_matrix(free, o.accuracy))
            s.update(opt_q, o.adaptation * adaptation)
            s.log(adaptation=adaptation)


def judged(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of logits (N, K) with their own prediction, float64 (N,), and the prediction, int64 (N,)."""
    confidence, classes = logits.double().log_softmax(1).max(1)
    return -confidence, classes


def noise_matrix(free: Tensor, accuracy: float) -> Tensor:
    """Q (K, K): ``accuracy`` on the diagonal, the rest of each row a softmax over the other entries of ``free``."""
    diagonal = torch.eye(len(free), dtype=torch.bool, device=free.device)
    others = free.masked_fill(diagonal, -math.inf).softmax(1)
    return torch.where(diagonal, accuracy, (1 - accuracy) * others)


def adapted(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """NLL(softmax(S) Q, y), the mean over the batch: the noisy label y is explained by S's classes through Q."""
    return -(logits.softmax(1) @ matrix).gather(1, labels[:, None]).log().mean()


def _imagenet(s: Session) -> PixelSpace:
    channels = s.task.image.channels
    mean, std = (tuple(sum(each) / 3 for _ in range(channels)) if channels != 3 else each for each in IMAGENET)
    return PixelSpace(mean, std, s.device)
