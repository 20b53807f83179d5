"""What the golden losses share: double precision, asked for by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def _double() -> Iterator[None]:
    """Adam divides by a gradient's size: in single precision, rounding turns the sign of the smallest ones."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
