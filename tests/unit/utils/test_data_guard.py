"""While a method runs, real data and stored teachers cannot be opened."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import protected_paths
from bench.errors import AccessDenied, DataLeak
from bench.utils import data_guard


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "array.npy", np.zeros(3))
    Image.new("L", (4, 4)).save(folder / "image.png")
    torch.save(torch.zeros(3), folder / "tensor.pt")
    (folder / "code.py").write_text("x = 1\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "open_it",
    [
        lambda folder: (folder / "array.npy").read_bytes(),
        lambda folder: np.load(folder / "array.npy"),
        lambda folder: Image.open(folder / "image.png"),
        lambda folder: torch.load(folder / "tensor.pt", weights_only=True),
        lambda folder: (folder / "new.bin").write_bytes(b"x"),
    ],
)
def test_every_way_of_opening_is_seen(data: Path, open_it: object) -> None:
    with pytest.raises(DataLeak, match="real data"), data_guard.fenced([data], []):
        open_it(data)  # type: ignore[operator]


def test_a_link_does_not_help(data: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere.npy"
    link.symlink_to(data / "array.npy")
    with pytest.raises(DataLeak), data_guard.fenced([data], []):
        link.read_bytes()


def test_swallowing_does_not_help(data: Path) -> None:
    def careless() -> None:
        try:
            (data / "array.npy").read_bytes()
        except BaseException:
            print("nothing to see here")

    with pytest.raises(DataLeak), data_guard.fenced([data], []):
        careless()


@pytest.mark.parametrize("way", ["load_file", "safe_open"])
def test_safetensors_own_reader_is_watched(data: Path, way: str) -> None:
    import safetensors.torch

    file = data / "weights.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(2)}, file)
    with pytest.raises(AccessDenied), data_guard.fenced([], [data]):
        if way == "load_file":
            safetensors.torch.load_file(file)
        else:
            safetensors.safe_open(str(file), framework="pt")
    assert safetensors.torch.load_file(file)["x"].tolist() == [0, 0]


def test_teachers_are_fenced_too(data: Path) -> None:
    with pytest.raises(AccessDenied, match="stored teacher"), data_guard.fenced([], [data]):
        (data / "array.npy").read_bytes()


def test_network_is_refused() -> None:
    with socket.socket() as connection, pytest.raises(DataLeak, match="network"), data_guard.fenced([], []):
        connection.connect(("127.0.0.1", 9))


def test_other_files_and_code_stay_open(data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with data_guard.fenced([data], []):
        assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "x"
        assert (data / "code.py").read_text(encoding="utf-8")


def test_the_harness_itself_may(data: Path) -> None:
    with data_guard.fenced([data], []):
        with data_guard.lifted(data / "array.npy"):
            (data / "array.npy").read_bytes()
        with pytest.raises(DataLeak):
            (data / "array.npy").read_bytes()
        data_guard._fence.caught = None
    (data / "array.npy").read_bytes()


def test_scikit_learns_digits_are_protected() -> None:
    from sklearn.datasets import load_digits

    with pytest.raises(DataLeak, match=r"digits\.csv"), data_guard.fenced(protected_paths(), []):
        load_digits()
