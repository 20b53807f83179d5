"""Devices by name, and cores that can really be used."""

from __future__ import annotations

import os

import psutil
import pytest

from bench.errors import UserError
from bench.utils import hardware
from bench.utils.hardware import choose_device, usable_cores


@pytest.mark.parametrize(
    ("wanted", "names", "found"),
    [
        ("auto", [], ("cpu", None)),
        ("auto", ["A"], ("cuda", None)),
        ("cpu", ["A"], ("cpu", None)),
        ("cuda", ["A"], ("cuda", None)),
        ("cuda:1", ["A", "B"], ("cuda", 1)),
    ],
)
def test_a_device_by_name(
    wanted: str, names: list[str], found: tuple[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: names)
    assert choose_device(wanted) == found


@pytest.mark.parametrize("wanted", ["tpu", "cuda:", "cuda:x", "", "CPU", "mps"])
def test_an_unknown_device_is_told_with_those_that_are_there(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: ["H200"])
    with pytest.raises(UserError, match=rf"unknown device '{wanted}'; this machine has: cpu, cuda:0 \(H200\)"):
        choose_device(wanted)


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpus", list)
    with pytest.raises(UserError, match=f"there is no device '{wanted}'; this machine has: cpu"):
        choose_device(wanted)


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64 if logical else 32)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {pid, 7, 9}, raising=False)
    assert usable_cores() == 3
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    assert usable_cores() == 3
