"""Pairs of sets of features (generated, real), float32, that reference packages and the suite are both given."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from bench.data import load


def network_like(count: int, dimension: int, seed: int, shift: float = 0.2) -> Tensor:
    """Like a network's last features: rectified, correlated, not centred."""
    mixing = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(0)) / dimension**0.5
    return torch.relu(torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed)) @ mixing + shift)


@functools.cache
def random_pair() -> tuple[Tensor, Tensor]:
    """Two samples of nearly the same distribution, full rank; a third of the generated ones lie far off."""
    generated = network_like(700, 128, seed=1, shift=0.25)
    generated[:230] *= 3
    return generated, network_like(600, 128, seed=2)


@functools.cache
def few_images_pair() -> tuple[Tensor, Tensor]:
    """Fewer images than dimensions."""
    return network_like(90, 256, seed=1, shift=0.3), network_like(150, 256, seed=2)


@functools.cache
def digits_pair() -> tuple[Tensor, Tensor]:
    """Pixels of real handwritten digits, some of them the same in all images, and of others with noise."""
    pixels = torch.from_numpy(load_digits().data).float() / 16
    noise = torch.randn(900, 64, generator=torch.Generator().manual_seed(0))
    return (pixels[:900] + 0.2 * noise).clamp(0, 1), pixels[900:]


@functools.cache
def mnist_pair() -> tuple[Tensor, Tensor]:
    """Pixels of MNIST's test images at 16x16: writers of the first half, with noise, against those of the second."""
    images = load("mnist", size=32).test.images
    pixels = F.avg_pool2d(images.float() / 255, 2).flatten(1)
    noise = torch.randn(1200, 256, generator=torch.Generator().manual_seed(0))
    return pixels[:1200] + 0.05 * noise, pixels[5000:6100]


PAIRS: list[object] = [
    pytest.param(random_pair, id="random"),
    pytest.param(few_images_pair, id="few images"),
    pytest.param(digits_pair, id="digits"),
    pytest.param(mnist_pair, id="mnist", marks=pytest.mark.data("mnist")),
]
Pair = Callable[[], tuple[Tensor, Tensor]]
