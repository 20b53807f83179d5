"""Images, and a trial of a task with an untrained teacher, for tests of extractors."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import Unavailable
from bench.metrics.extractors import Surroundings, get_extractor
from bench.models import build
from bench.task import get_task

CPU = torch.device("cpu")


def pictures(count: int = 5, channels: int = 1, size: int = 32, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=stream)


def surroundings(name: str = "digits/lenet5-half", **changes: Any) -> Surroundings:
    """A trial of a task with an untrained teacher."""
    spec = get_task(name)
    torch.manual_seed(0)
    teacher = build(spec.teacher.network, spec.image, 10).eval().requires_grad_(False)
    return dataclasses.replace(Surroundings(spec, teacher, "abc", 10, CPU), **changes)


def complaint(name: str, around: Surroundings | None = None) -> str:
    with pytest.raises(Unavailable) as raised:
        get_extractor(name, around or surroundings())
    return str(raised.value)
