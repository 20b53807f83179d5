"""How fast real images get into memory and into batches; ratios and times belong in docs/performance.md."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data import load
from bench.data.batches import RealImages
from bench.data.source import Split
from bench.spec.task import get_task

LOAD = "from bench.data import load; load('cifar10', size=32, allow_altered=True)"


@pytest.mark.data("cifar10", altered=True)
def test_cifar10_from_a_warm_start(benchmark: BenchmarkFixture) -> None:
    """A fresh process: imports, checksums, fingerprint; the files are in the system's cache (aim: 3 s)."""
    load("cifar10", size=32, allow_altered=True)
    benchmark.pedantic(lambda: subprocess.run([sys.executable, "-c", LOAD], check=True), rounds=3)


@pytest.mark.parametrize("augmented", [False, True], ids=["plain", "crop and flip"])
def test_batches_of_real_images(benchmark: BenchmarkFixture, augmented: bool) -> None:
    """A thousand images of 3x32x32, normalised on the device."""
    task = get_task("cifar10/wrn16-1")
    images = torch.randint(256, (10_000, 3, 32, 32), dtype=torch.uint8)
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    real = RealImages(split, task.image, 0, torch.device("cpu"), task.augment if augmented else None)
    batch, labels = benchmark(lambda: real.take(1000))
    assert batch.shape == (1000, 3, 32, 32)
    assert len(labels) == 1000
