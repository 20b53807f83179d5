"""Deterministic mode: what torch has no repeatable operation for on a GPU is done with those that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from bench.utils.determinism import as_list, cross_entropy, only_deterministic


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    only_deterministic(before)


class Operations(TorchDispatchMode):
    """The names of all operations that run under it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def operations(device: str, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], *shape: int) -> set[str]:
    """What a loss of logits of this shape runs there; no such device is needed, since nothing is computed."""
    with FakeTensorMode(), Operations() as seen:
        logits = torch.zeros(shape, device=device)
        loss(logits, torch.zeros(shape[:1] + shape[2:], dtype=torch.long, device=device))
    return seen.names


MAP = "aten::nll_loss2d_forward"  # raises in torch's deterministic mode on a GPU, unless its reduction is "none"


def test_a_map_of_labels_is_summed_as_a_list_on_a_gpu_in_deterministic_mode() -> None:
    only_deterministic(True)
    assert MAP not in operations("cuda", nn.CrossEntropyLoss(), 2, 5, 4, 4)
    only_deterministic(False)
    assert MAP in operations("cuda", nn.CrossEntropyLoss(), 2, 5, 4, 4)


@pytest.mark.parametrize(
    ("device", "reduction", "shape"),
    [("cpu", "mean", (2, 5, 4, 4)), ("cuda", "mean", (2, 5)), ("cuda", "none", (2, 5, 4, 4))],
)
def test_what_repeats_anyway_stays_torchs(device: str, reduction: str, shape: tuple[int, ...]) -> None:
    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, labels, reduction=reduction).sum()

    only_deterministic(False)
    before = operations(device, loss, *shape)
    only_deterministic(True)
    assert operations(device, loss, *shape) == before


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_list_gives_the_number_of_the_map(reduction: str) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 4, 6, dtype=torch.float64), torch.randint(0, 5, (3, 4, 6))
    labels[0, 0, :3] = -100
    options: dict[str, Any] = {
        "weight": torch.rand(5, dtype=torch.float64),
        "reduction": reduction,
        "label_smoothing": 0.1,
    }
    expected = functional.cross_entropy(logits, labels, **options)
    torch.testing.assert_close(cross_entropy(*as_list(logits, labels), **options), expected)
