"""The distillation loss that most methods share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """tau^2 / N * sum_n sum_k p_T log(p_T / p_S), with p = softmax(logits / tau): Hinton's loss, batch mean.

    Args:
        teacher_logits: (N, K); no gradient is stopped here.
        student_logits: (N, K).
        temperature: tau, above 0.

    Returns:
        A scalar, at least 0.
    """
    teacher_log = F.log_softmax(teacher_logits / temperature, dim=1)
    student_log = F.log_softmax(student_logits / temperature, dim=1)
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True) * temperature**2
