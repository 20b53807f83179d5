"""Losses that several methods share. Every function returns a scalar, but for :func:`kl_rows`.

Logits are (N, K), or (N, K, H, W) for segmentation, where every pixel counts as an image would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import BatchNormStatistics

# ---- of the teacher's answer -----------------------------------------------------------------------------------------


def one_hot_loss(logits: Tensor) -> Tensor:
    """Mean cross-entropy with the network's own prediction: small when it is confident (DAFL's L_oh)."""
    return F.cross_entropy(logits, logits.detach().argmax(1))


def imbalance(logits: Tensor, base: float = 10.0) -> Tensor:
    """sum_k p_k log p_k of the batch's mean prediction p: lowest, -log(K), when all classes are equally frequent.

    DAFL's L_ie takes the logarithm to base 10; others take the natural one (``base=math.e``).
    """
    logits = rows(logits)
    mean_log = torch.logsumexp(F.log_softmax(logits, dim=1), dim=0) - math.log(len(logits))
    return (mean_log.exp() * mean_log).sum() / math.log(base)


def rows(logits: Tensor) -> Tensor:
    """(N, K) as it is, (N, K, H, W) as (N * H * W, K)."""
    return logits if logits.ndim == 2 else logits.movedim(1, -1).flatten(0, 2)


def soft_cross_entropy(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """-1/N sum_n sum_c y_c log softmax(logits / tau)_c for target distributions (N, K)."""
    return -(targets * F.log_softmax(logits / temperature, dim=1)).sum(1).mean()


def batch_norm_distance(
    statistics: Sequence[BatchNormStatistics], first_weight: float = 1.0, squared: bool = False
) -> Tensor:
    """R_bn = sum over layers of |mean - running mean|_2 + |var - running var|_2, biased variances.

    Args:
        statistics: ``s.teacher(images, batch_norm=True).batch_norm``; at least one layer.
        first_weight: factor of the first layer's term (10 in DeepInversion on ImageNet).
        squared: squared norms, as DeepInversion's paper writes; all reference codes leave the square out.
    """
    terms = []
    for entry in statistics:
        norms = (
            torch.linalg.vector_norm(entry.mean - entry.running_mean),
            torch.linalg.vector_norm(entry.var - entry.running_var),
        )
        terms.append(norms[0].square() + norms[1].square() if squared else norms[0] + norms[1])
    terms[0] = first_weight * terms[0]
    return torch.stack(terms).sum()


# ---- of teacher and student: how far apart they are ------------------------------------------------------------------


DISCREPANCIES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"mae": F.l1_loss, "mse": F.mse_loss}
"""Mean absolute or squared difference of raw logits, over images, classes and pixels (DFAD, DDAD, PRE-DFKD)."""


def discrepancy(kind: str, temperature: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    """How far apart two networks' logits are: ``mae``, ``mse``, or ``kl``, tau^2 KL(teacher || student)."""
    if kind == "kl":
        return lambda teacher, student: kl_rows(teacher, student, temperature).mean()
    return DISCREPANCIES[kind]


def kl_rows(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """tau^2 sum_k p_T log(p_T / p_S) of each image, (N,); for segmentation the mean over its pixels."""
    teacher_log = F.log_softmax(teacher_logits / temperature, dim=1)
    student_log = F.log_softmax(student_logits / temperature, dim=1)
    divergence = (teacher_log.exp() * (teacher_log - student_log)).sum(1) * temperature**2
    return divergence if divergence.ndim == 1 else divergence.flatten(1).mean(1)


def adversarial_agreement(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """L_adv = -1/N sum_i m_i KL(T_i || S_i), temperature 1, m_i = 1 where both predict one class and 0 elsewhere.

    CMI's and Fast-DFKD's: images on which the student is less sure than the teacher, but not wrong. The mask carries
    no gradient.
    """
    teacher_logits, student_logits = rows(teacher_logits), rows(student_logits)
    agree = teacher_logits.argmax(1) == student_logits.argmax(1)
    return -(kl_rows(teacher_logits, student_logits) * agree).mean()


def clamped_js(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 3.0, elements: bool = False
) -> Tensor:
    """J = (KL(M || P) + KL(M || Q)) / 2 of P = softmax(S / tau), Q = softmax(T / tau), M = (P + Q) / 2.

    M is formed first; then all three are clamped to [0.01, 0.99] and do not sum to one any more. The mixture is the
    target, so it is not the textbook Jensen-Shannon divergence. As in the codes of DeepInversion (mean over the batch)
    and of PRE-DFKD (``elements``: mean over all N * K elements).
    """
    p = rows(student_logits / temperature).softmax(1)
    q = rows(teacher_logits / temperature).softmax(1)
    mixture = ((p + q) / 2).clamp(0.01, 0.99)
    p, q = p.clamp(0.01, 0.99), q.clamp(0.01, 0.99)
    total = (mixture * (2 * mixture.log() - p.log() - q.log())).sum() / 2
    return total / (p.numel() if elements else len(p))


def competition(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 3.0, elements: bool = False
) -> Tensor:
    """1 - J, J of :func:`clamped_js` clipped to [0, 1]: DeepInversion's R_adi, PRE-DFKD's L_dis (``elements``)."""
    return 1 - clamped_js(teacher_logits, student_logits, temperature, elements).clamp(0, 1)


def likeness(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 3.0) -> Tensor:
    """1 - clip(JS, 0, 1), JS the Jensen-Shannon divergence in natural units, at most log 2, mean over the batch."""
    logs = [F.log_softmax(logits / temperature, dim=1) for logits in (teacher_logits, student_logits)]
    mixture = torch.logaddexp(*logs) - math.log(2)
    parts = [F.kl_div(mixture, each, reduction="batchmean", log_target=True) for each in logs]
    return 1 - torch.stack(parts).mean().clamp(0, 1)


def attention_distance(teacher_groups: Sequence[Tensor], student_groups: Sequence[Tensor]) -> Tensor:
    """ZSKT's attention term: sum over groups of the mean over images and positions of (q(S) - q(T))^2.

    q(F) is the mean over channels of F^2, as a vector over positions with unit L2 norm. Groups are (N, C, h, w); the
    numbers of channels may differ.

    Raises:
        ValueError: the networks have other numbers of groups, or maps of other sizes.
    """
    shapes = [[tuple(group.shape[2:]) for group in groups] for groups in (teacher_groups, student_groups)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"attention needs groups of equal sizes, not {shapes[0]} (teacher) and {shapes[1]} (student)")
    terms = [F.mse_loss(_attention(s), _attention(t)) for t, s in zip(teacher_groups, student_groups, strict=True)]
    return torch.stack(terms).sum()


def _attention(group: Tensor) -> Tensor:
    return F.normalize(group.square().mean(1).flatten(1), dim=1)


# ---- RDSKD's ---------------------------------------------------------------------------------------------------------


def exponential(loss: Tensor, previous: Tensor | float, largest: float = 20.0) -> Tensor:
    """exp(L - L_prev); the exponent is clamped at ``largest``, beyond which there is no gradient."""
    return (loss - previous).clamp(max=largest).exp()


def diversity_ratio(images: Tensor, logits: Tensor) -> Tensor:
    """L_ds = |P2 - P1|_F / |X2 - X1|_F of the two halves of a batch of images X and the teacher's softmax P of them.

    Raises:
        ValueError: the number of images is odd.
    """
    if len(images) % 2:
        raise ValueError(f"the batch's two halves must be equal: take an even number of images, not {len(images)}")
    (x1, x2), (p1, p2) = images.chunk(2), logits.softmax(1).chunk(2)
    ratio: Tensor = torch.linalg.vector_norm(p2 - p1) / (torch.linalg.vector_norm(x2 - x1) + 1e-20)
    return ratio
