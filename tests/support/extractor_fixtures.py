"""Images, and a trial of a task with an untrained teacher, for tests of extractors."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import Unavailable
from bench.metrics.extractors import MetricContext, get_extractor
from bench.models import build
from bench.spec.task import get_task

CPU = torch.device("cpu")


def pictures(count: int = 5, channels: int = 1, size: int = 32, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=stream)


def metric_context(name: str = "digits/lenet5-half", **changes: Any) -> MetricContext:
    """A trial of a task with an untrained teacher."""
    spec = get_task(name)
    torch.manual_seed(0)
    teacher = build(spec.teacher.network, spec.image, 10).eval().requires_grad_(False)
    return dataclasses.replace(MetricContext(spec, teacher, "abc", 10, CPU), **changes)


def complaint(name: str, around: MetricContext | None = None) -> str:
    with pytest.raises(Unavailable) as raised:
        get_extractor(name, around or metric_context())
    return str(raised.value)
