"""The distillation loss that most methods share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bench.errors import MethodError


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Hinton's loss: the KL divergence of softened outputs, with the factor tau^2, averaged over the batch.

    It is ``tau^2 / N * sum_n sum_k p_T log(p_T / p_S)`` with ``p = softmax(logits / tau)``. For segmentation it is the
    mean over all pixels of all images.

    Args:
        teacher_logits: (N, K), or (N, K, H, W) for segmentation. Detach them to keep gradients from the teacher.
        student_logits: of the same shape.
        temperature: tau, above 0.

    Returns:
        A scalar, at least 0.

    Raises:
        MethodError: the temperature is not above 0.
    """
    if isinstance(temperature, float | int) and not temperature > 0:
        raise MethodError(f"a temperature must be above 0, not {temperature:g}")
    teacher_log = F.log_softmax(teacher_logits / temperature, dim=1)
    student_log = F.log_softmax(student_logits / temperature, dim=1)
    if teacher_log.ndim == 4:
        teacher_log, student_log = (each.movedim(1, -1).flatten(0, 2) for each in (teacher_log, student_log))
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True) * temperature**2
