"""Somebody's own task, as small as one can be: dark and bright images, and a linear network that tells them apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NETWORK = """\
from torch import nn


def build(image, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image.channels * image.size**2, classes))
"""
TASK = """\
- name: mine
  data: {images: images}
  image: {channels: 1, size: 8, mean: [0.5], std: [0.25]}
  teacher: {network: net.py:build, recipe: quick}
  student: net.py:build
"""
STUDY = """\
name: own
tasks: [mine.yaml]
methods: [noise: {batch: 4}, scratch: {batch: 4}]
budget: {steps: 2}
points: 1
selection: [last, oracle]
"""
CLASSES = ("bright", "dark")


def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, now the current one, with a cache of its own beside it."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def write_images(folder: Path, count: int = 4, first: int = 0) -> Path:
    """``count`` noisy grey images of 8x8 pixels of each class, in folders named after the classes."""
    for number, name in enumerate(CLASSES):
        write_flat(folder / name, count, number, first)
    return folder


def write_flat(folder: Path, count: int, number: int, first: int = 0) -> Path:
    """``count`` images of the class ``number`` in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        random = np.random.default_rng(1000 * number + first + index)
        pixels = (random.integers(150, 250) if number == 0 else random.integers(5, 100)) + random.integers(
            -5, 6, (8, 8)
        )
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}-{first + index:03d}.png")
    return folder


def write_teacher(file: Path) -> Path:
    """The weights of a network that tells bright from dark, as a ``.pth``."""
    import torch

    weight = torch.linspace(0.9, 1.1, 64).repeat(2, 1) * torch.tensor([[1.0], [-1.0]])
    torch.save({"1.weight": weight, "1.bias": torch.zeros(2)}, file)
    return file


def write_own_task(folder: Path, train: bool = True) -> Path:
    """All files of the task and of a study of it in a folder: images, ``net.py``, ``teacher.pth``, two YAML files."""
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    (folder / "mine.yaml").write_text(TASK, encoding="utf-8")
    (folder / "own.yaml").write_text(STUDY, encoding="utf-8")
    write_images(folder / "images" / "test", first=100)
    if train:
        write_images(folder / "images" / "train")
    write_teacher(folder / "teacher.pth")
    return folder
