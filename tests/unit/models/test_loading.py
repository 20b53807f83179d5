"""Checkpoints of other people's making: what their tensors may be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.models.loading import classes_of_weights, fit, read_checkpoint


def saved(folder: Path, **weights: Tensor) -> Path:
    torch.save(weights, folder / "teacher.pth")
    return folder / "teacher.pth"


def test_the_sparse_weights_of_a_pruned_network_are_read(tmp_path: Path) -> None:
    dense = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    weights, done = read_checkpoint(saved(tmp_path, weight=dense.to_sparse(), bias=torch.ones(2)))
    network = nn.Linear(2, 2)
    fit(network, weights, "teacher.pth")
    assert torch.equal(network.weight, dense)
    assert done == []


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.ones(2, 2, dtype=torch.complex64), "weight is complex"),
        (torch.ones(2, 2, device="meta"), "weight is on the meta device"),
    ],
    ids=["complex", "meta"],
)
def test_tensors_without_plain_numbers_are_refused_by_name(tmp_path: Path, weight: Tensor, said: str) -> None:
    with pytest.raises(UserError, match=f"teacher.pth: {said}; needed are real numbers"):
        read_checkpoint(saved(tmp_path, weight=weight))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_tensors_are_refused_by_name(tmp_path: Path) -> None:
    weight = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    with pytest.raises(UserError, match=r"teacher.pth: weight is quantized"):
        read_checkpoint(saved(tmp_path, weight=weight))


def test_whole_numbers_are_no_weights_and_half_ones_are() -> None:
    network = nn.Linear(2, 2)
    with pytest.raises(UserError, match="weight is uint8, the network needs float32"):
        fit(network, {"weight": torch.ones(2, 2, dtype=torch.uint8), "bias": torch.ones(2)}, "teacher.pth")
    fit(network, {"weight": torch.full((2, 2), 0.5).half(), "bias": torch.ones(2).double()}, "teacher.pth")
    assert network.weight.dtype == torch.float32
    assert bool((network.weight == 0.5).all())


def test_the_shapes_of_weights_tell_how_many_classes_there_are() -> None:
    def make(classes: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, classes))

    state = torch.random.get_rng_state()
    weights = {count: make(count).state_dict() for count in (2, 7)}
    torch.random.set_rng_state(state)
    assert classes_of_weights(make, weights[7]) == 7
    assert classes_of_weights(make, {f"module.{name}": value for name, value in weights[2].items()}) == 2
    assert classes_of_weights(lambda classes: nn.Linear(4, 6), nn.Linear(4, 6).state_dict()) is None
    assert classes_of_weights(make, {"other": torch.zeros(7, 6)}) is None
    assert classes_of_weights(make, weights[7] | {"2.bias": torch.zeros(3)}) is None
    torch.random.set_rng_state(state)
    classes_of_weights(make, weights[7])
    assert torch.equal(torch.random.get_rng_state(), state)
