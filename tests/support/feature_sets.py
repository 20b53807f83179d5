"""Features for tests of image metrics, and a look at how much memory a function asks for at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.metrics import blocks

BAD = {
    "one row": torch.ones(1, 3),
    "no rows": torch.ones(0, 3),
    "no columns": torch.ones(4, 0),
    "not a matrix": torch.ones(4, 3, 2),
    "NaN": torch.tensor([[1.0, 2, 3], [1, float("nan"), 3], [1, 2, 4]]),
    "infinity": torch.tensor([[1.0, 2, 3], [1, 2, float("-inf")], [1, 2, 4]]),
}


def normal(count: int, dimension: int, seed: int = 0, mixed: bool = False) -> Tensor:
    """Independent normal values, float64; ``mixed`` gives them a covariance that is far from a multiple of one."""
    stream = torch.Generator().manual_seed(seed)
    values = torch.randn(count, dimension, generator=stream, dtype=torch.float64)
    if mixed:
        mixing = torch.randn(dimension, dimension, generator=stream, dtype=torch.float64)
        values = values @ mixing * torch.linspace(2, 0.2, dimension, dtype=torch.float64)
    return values


def shuffled(features: Tensor, seed: int = 0) -> Tensor:
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))]


@contextmanager
def blocks_of(rows: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", rows)
        yield


def largest_tensor(function: Callable[[], Any]) -> int:
    """The number of bytes of the largest tensor that any operation inside ``function`` made, views left out."""
    return _Sizes.of(function)


class _Sizes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    @classmethod
    def of(cls, function: Callable[[], Any]) -> int:
        with cls() as sizes:
            function()
        return sizes.largest

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, each.untyped_storage().nbytes())
        return made
