"""The class of an answer is that of argmax, ties and NaN included."""

from __future__ import annotations

import pytest
import torch

from bench.harness.classes import classes_of


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 10), (5, 11, 9, 13), (3, 1, 4, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_same_as_argmax(kind: torch.dtype, shape: tuple[int, ...], layout: torch.memory_format) -> None:
    stream = torch.Generator().manual_seed(0)
    logits = torch.randint(-3, 4, shape, generator=stream).to(kind)  # ties everywhere
    logits[0] = 0
    logits[1][torch.rand(shape[1:], generator=stream) < 0.2] = float("nan")
    logits[2][torch.rand(shape[1:], generator=stream) < 0.4] = float("inf")
    if logits.ndim == 4:
        logits = logits.to(memory_format=layout)
    assert torch.equal(classes_of(logits), logits.argmax(1))
