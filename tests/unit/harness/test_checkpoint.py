"""Saving and restoring what a method keeps."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from bench.errors import UserError
from bench.harness import checkpoint
from bench.harness.checkpoint import load_checkpoint, save_checkpoint
from bench.utils.rng import Streams, derive, seed_everything


def through_disk(state: Any, folder: Path) -> Any:
    save_checkpoint(folder, "id", {"state": state})
    found = load_checkpoint(folder, "id")
    assert found is not None
    return found["state"]


def test_modules_optimisers_tensors_and_dictionaries_come_back(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = Adam(network.parameters(), 0.1)
    tensor = torch.zeros(2, requires_grad=True)
    notes: dict[str, Any] = {"step": 3, "name": "x", "best": torch.ones(2)}

    def work() -> None:
        optimizer.zero_grad()
        network(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()

    torch.manual_seed(0)
    work()
    things = {"network": network, "optimizer": optimizer, "tensor": tensor, "notes": notes}
    states = through_disk({name: checkpoint.state_of(thing) for name, thing in things.items()}, tmp_path)
    before = copy.deepcopy(network.state_dict())
    work()
    tensor.data.add_(1)
    notes["step"] = 9
    notes["new"] = 1
    for name, thing in things.items():
        checkpoint.restore_into(thing, states[name])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(tensor, torch.zeros(2))
    assert tensor.requires_grad
    assert notes["step"] == 3
    assert "new" not in notes
    assert float(optimizer.state[next(network.parameters())]["step"]) == 1


def test_a_saved_state_does_not_follow_later_changes() -> None:
    network = nn.Linear(2, 2)
    state = checkpoint.state_of(network)
    network.weight.data.zero_()
    assert bool(state["weight"].any())


def test_restoring_twice_gives_the_same(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    optimizer = SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = through_disk(checkpoint.state_of(optimizer), tmp_path)
    momentum = optimizer.state[network.weight]["momentum_buffer"].clone()
    checkpoint.restore_into(optimizer, state)
    optimizer.step()
    checkpoint.restore_into(optimizer, state)
    assert torch.equal(optimizer.state[network.weight]["momentum_buffer"], momentum)


def test_random_states_come_back(tmp_path: Path) -> None:
    seed_everything(5)
    streams = Streams(5, torch.device("cpu"))

    def draw() -> list[float]:
        return [
            torch.rand((), generator=streams["a"]).item(),
            torch.rand((), generator=streams["b"]).item(),
            torch.rand(()).item(),
            float(np.random.normal()),
            random.random(),
        ]

    draw()
    state = through_disk(streams.state(), tmp_path)
    wanted = [draw(), draw()]
    streams.restore(state)
    assert [draw(), draw()] == wanted


def test_seeds_depend_on_every_part() -> None:
    seeds = {derive(0), derive(1), derive(0, "a"), derive(0, "b"), derive(0, "a", 1), derive(1, "a")}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "student") == derive(0, "student")


def test_a_checkpoint_of_another_trial_or_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "id") is None
    save_checkpoint(tmp_path, "other", {})
    assert load_checkpoint(tmp_path, "id") is None
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 half a file")
    assert load_checkpoint(tmp_path, "id") is None


def test_every_flipped_byte_of_a_checkpoint_is_noticed_and_told(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "id", {"weights": torch.ones(3)})
    file = tmp_path / "checkpoint.pt"
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        file.write_bytes(changed)
        said: list[str] = []
        assert load_checkpoint(tmp_path, "id", said.append) is None
        assert said == ["has changed since it was written: its checksum does not fit"]
    file.write_bytes(whole)
    assert load_checkpoint(tmp_path, "id") is not None


def test_a_checkpoint_that_is_a_link_or_of_another_trial_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    save_checkpoint(tmp_path, "other", {})
    assert load_checkpoint(tmp_path, "id", said.append) is None
    (tmp_path / "checkpoint.pt").rename(tmp_path / "elsewhere")
    (tmp_path / "checkpoint.pt").symlink_to(tmp_path / "elsewhere")
    assert load_checkpoint(tmp_path, "other", said.append) is None
    assert said[0] == "is that of another trial"
    assert "is a symbolic link" in said[1]


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, "id", {"number": 1})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_checkpoint(tmp_path, "id", {"number": 2})
    monkeypatch.undo()
    found = load_checkpoint(tmp_path, "id")
    assert found is not None
    assert found["number"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_stream_that_is_held_over_a_restore_goes_on_with_the_saved_numbers() -> None:
    streams = Streams(5, torch.device("cpu"))
    held = streams["views"]
    torch.rand(3, generator=held)
    saved = streams.state()
    wanted, fresh = torch.rand(4, generator=held), torch.rand(2, generator=streams["later"])
    streams.restore(saved)
    assert torch.equal(torch.rand(4, generator=held), wanted)
    assert streams["views"] is held
    assert torch.equal(torch.rand(2, generator=streams["later"]), fresh)  # unused when it was saved: from its start
