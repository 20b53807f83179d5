"""ZSKT: zero-shot knowledge transfer by adversarial belief matching.

The gap of teacher T and student S is D(x) = KL(T(x) || S(x)) as the mean over all N * K elements, 1/K of the usual mean
over images. For every code z ~ N(0, I), and x = G(z):

    ``generator_steps`` times    the generator minimises -D(x)
    ``student_steps`` times      the student minimises D(x) + attention * sum_l A_l(x), on one x, made again before

    A_l = mean over images and positions of (q(S_l) - q(T_l))^2,  q(F) = mean over channels of F^2, then unit L2 norm

with l over the networks' stages. ``attention`` of 250 is the reference code's, for its D; the generator does not see
the term. Gradients are clipped to a norm of ``clip``. Both networks are in training mode throughout, and both learning
rates fall to 0 along a cosine.

Attention needs networks whose stages agree in number and in the sizes of their maps, whatever their channels. Where
they do not, the trial is ``unsupported``: set ``attention: 0``, which the paper allows (about 2 points on CIFAR-10).

Differences: the reference code makes x again in each of the student's steps, which changes only the running statistics
of the generator's batch norms; nothing reads these. ``temperature`` tau (1 in the paper) brings a factor tau^2. The
paper's 80,000 codes (SVHN: 50,000, from memory) are the budget's. The paper has no grey images.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam

from bench import Access, Data, Session, StudentBatch, Unsupported, method, option, zskt_generator
from methods.common.losses import attention_distance, kl_rows
from methods.common.optimizers import scheduled, set_lr
from methods.common.options import GeneratorOptions


@dataclass(frozen=True)
class Options(GeneratorOptions):
    batch: int = 128
    generator_steps: int = option(1, "generator steps for each batch of codes", low=1)
    student_steps: int = option(10, "student steps for each batch of codes, all on the same images", low=1)
    attention: float = option(250.0, "weight of the attention term; 0 for networks with other stages", low=0)
    temperature: float = option(1.0, "softmax temperature of the gap between teacher and student", above=0)
    clip: float = option(5.0, "largest norm of the generator's and of the student's gradient", above=0)
    lr_student: float = option(2e-3, "the student's learning rate (Adam)", above=0)
    schedule: Literal["cosine", "constant"] = option("cosine", "how both learning rates fall")


@method(
    "zskt", title="ZSKT", data=Data.NONE, access=Access.FEATURES,
    paper="Micaelli and Storkey, Zero-shot Knowledge Transfer via Adversarial Belief Matching, NeurIPS 2019",
    quick={"batch": 32, "latent": 16, "width": 8, "student_steps": 2},
)  # fmt: skip
def zskt(s: Session, o: Options) -> None:
    """A generator looks for images on which the student's beliefs are far from the teacher's; the student follows."""
    generator = s.keep("generator", zskt_generator(o.latent, s.task.image, o.width))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_s = s.keep("opt_s", Adam(s.student.parameters(), o.lr_student))
    attends = o.attention > 0

    def gap(teacher: Tensor, student: Tensor) -> Tensor:
        return belief_gap(teacher, student, o.temperature)

    def imitation(batch: StudentBatch) -> Tensor:
        """The student's loss; the rows are the teacher's groups."""
        loss = gap(batch.teacher, batch.student)
        if not attends:
            return loss
        try:
            return loss + o.attention * attention_distance(batch.rows, batch.groups)
        except ValueError as error:
            raise Unsupported(f"{error}; set zskt's option attention to 0") from None

    for progress in s.steps("train"):
        set_lr(opt_g, scheduled(o.lr_generator, o.schedule, progress))
        set_lr(opt_s, scheduled(o.lr_student, o.schedule, progress))
        codes = s.noise(o.batch, o.latent)
        for _ in range(o.generator_steps):
            images = generator(codes)
            difference = gap(s.teacher(images).logits, s.student(images))
            s.update(opt_g, -difference, clip=o.clip)
        with torch.no_grad():
            images = generator(codes)
            out = s.teacher(images, groups=attends)
        groups = out.groups if attends else None
        for _ in range(o.student_steps):
            matching = s.student_step(
                opt_s, images, imitation, logits=out.logits, rows=groups, groups=attends, clip=o.clip
            )
        s.log(difference=difference, matching=matching)


def belief_gap(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """D: tau^2 KL(teacher || student) of logits (N, K), as the mean over all N * K elements."""
    return kl_rows(teacher, student, temperature).mean() / teacher.shape[1]
