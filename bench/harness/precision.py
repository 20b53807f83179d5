"""The precision in which a method's networks compute: a trial's ``precision``, for as long as its method runs."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def computing(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Inside, networks compute in this type: float32, or by torch's autocast bfloat16 or float16.

    Autocast remembers the weights that it has converted until its outermost block ends, which here is the end of the
    trial: every forward pass would be that of the first weights. So it remembers none.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision), cache_enabled=False)
