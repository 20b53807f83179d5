"""Generators against the numbers of their papers and reference code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from network_cost import macs
from torch import Tensor, nn
from torch.nn import functional as F

import bench
from bench import cmi_generator, dcgan_generator, zskt_generator
from bench.data.image_spec import ImageSpec
from bench.errors import UserError
from bench.models.generators import GENERATORS, Normalise

RGB = ImageSpec(channels=3, size=32, mean=(0.49, 0.48, 0.45), std=(0.2, 0.25, 0.3))
HALF = ImageSpec(channels=3, size=128, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def ghost(name: str, *args: Any, **options: Any) -> nn.Sequential:
    """A generator without storage: quick to build and to count."""
    with torch.device("meta"):
        return GENERATORS[name](*args, **options)


def train_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Batch norm in training mode, written out."""
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(var + 1e-5) * gain[:, None, None] + shift[:, None, None]


def double(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(
    ("name", "latent", "image", "options", "parameters", "million_macs"),
    [
        ("dafl", 1000, RGB, {}, 8_423_939, 123),
        ("dafl", 256, RGB, {}, 2_329_091, 117),
        ("dcgan", 256, HALF, {}, 11_243_203, 708),
        ("cmi", 256, RGB, {}, 2_328_899, 117),
        ("cmi", 256, RGB, {"large": True}, 4_581_955, 157),
        ("cmi", 512, RGB, {"large": True}, 8_776_259, 161),
        ("zskt", 100, RGB, {}, 1_051_145, 116),
    ],
)
def test_a_generator_has_the_papers_size(
    name: str, latent: int, image: ImageSpec, options: dict[str, bool], parameters: int, million_macs: int
) -> None:
    network = ghost(name, latent, image, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert round(macs(network, (latent,)) / 1e6) == million_macs


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_can_be_small_and_learn(name: str) -> None:
    torch.manual_seed(0)
    network = GENERATORS[name](6, RGB, 8)
    codes = torch.randn(4, 6, requires_grad=True)
    images = network(codes)
    assert images.shape == (4, 3, 32, 32)
    (images * torch.randn(4, 3, 32, 32)).sum().backward()
    assert codes.grad is not None
    assert bool((codes.grad != 0).any())
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(codes), network(codes))


@pytest.mark.parametrize("name", GENERATORS)
def test_methods_reach_the_generators_by_bench(name: str) -> None:
    assert GENERATORS[name] is getattr(bench, GENERATORS[name].__name__)
    assert GENERATORS[name].__name__ in bench.__all__


@pytest.mark.parametrize(("name", "factor"), [("dcgan", 16), ("cmi", 4), ("zskt", 4)])
def test_sizes_that_a_generator_cannot_make_are_refused(name: str, factor: int) -> None:
    with pytest.raises(UserError) as raised:
        GENERATORS[name](6, RGB.model_copy(update={"size": 34}), 8)
    assert str(raised.value) == f"this generator makes images whose size is a multiple of {factor}, not 34"


@pytest.mark.parametrize("make", [cmi_generator, dcgan_generator])
def test_images_of_bounded_generators_are_real_pixels_in_normalised_space(make: Any) -> None:
    torch.manual_seed(0)
    network = make(6, RGB, 8)
    with torch.no_grad():
        images = network(50 * torch.randn(32, 6))
        pixels = images * torch.tensor(RGB.std).view(3, 1, 1) + torch.tensor(RGB.mean).view(3, 1, 1)
    assert -1e-5 < pixels.min() < pixels.max() < 1 + 1e-5
    assert isinstance(network[-1], Normalise)


def test_dcgan_under_dfads_normalisation_ends_in_tanh() -> None:
    torch.manual_seed(0)
    network = dcgan_generator(6, HALF.model_copy(update={"size": 32}), 4)
    network[-2].register_forward_hook(lambda _, args, output: seen.append(output))
    seen: list[Tensor] = []
    images = network(torch.randn(4, 6))
    assert isinstance(network[-2], nn.Tanh)
    assert torch.equal(images, seen[0])


def test_dcgan_computes_what_the_reference_describes() -> None:
    torch.manual_seed(0)
    network = dcgan_generator(6, HALF.model_copy(update={"size": 32}), 4)
    w0, b0, g0, h0, *blocks, w5, b5 = network.parameters()
    codes = torch.randn(4, 6)
    x = train_norm((codes @ w0.T + b0).view(4, 32, 2, 2), g0, h0)
    for index in range(0, 12, 3):
        weight, gain, shift = blocks[index : index + 3]
        x = F.leaky_relu(train_norm(F.conv_transpose2d(x, weight, stride=2, padding=1), gain, shift), 0.2)
    expected = torch.tanh(F.conv2d(x, w5, b5, padding=1))
    torch.testing.assert_close(network(codes), expected, rtol=1e-4, atol=1e-5)


def test_dcgan_starts_from_its_own_weights() -> None:
    torch.manual_seed(0)
    network = dcgan_generator(64, HALF, 32)
    for layer in network:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            mean, numbers = (1 if isinstance(layer, nn.BatchNorm2d) else 0), layer.weight.numel()
            assert abs(layer.weight.mean() - mean) < 5 * 0.02 / numbers**0.5
            assert abs(layer.weight.std() / 0.02 - 1) < 5 / (2 * numbers) ** 0.5
            assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("large", [False, True])
def test_cmi_computes_what_the_reference_describes(large: bool) -> None:
    torch.manual_seed(0)
    network = cmi_generator(6, RGB, 8, large=large)
    w0, b0, g0, h0, w1, g1, h1, w2, g2, h2, w3, b3 = network.parameters()
    codes = torch.randn(4, 6)
    x = train_norm((codes @ w0.T + b0).view(4, 16 if large else 8, 8, 8), g0, h0)
    x = F.leaky_relu(train_norm(F.conv2d(double(x), w1, padding=1), g1, h1), 0.2)
    x = F.leaky_relu(train_norm(F.conv2d(double(x), w2, padding=1), g2, h2), 0.2)
    pixels = torch.sigmoid(F.conv2d(x, w3, b3, padding=1))
    expected = (pixels - torch.tensor(RGB.mean).view(3, 1, 1)) / torch.tensor(RGB.std).view(3, 1, 1)
    torch.testing.assert_close(network(codes), expected, rtol=1e-4, atol=1e-4)


def test_zskt_computes_what_the_reference_describes() -> None:
    torch.manual_seed(0)
    network = zskt_generator(6, RGB, 8)
    w0, b0, g0, h0, w1, b1, g1, h1, w2, b2, g2, h2, w3, b3, g3, h3 = network.parameters()
    with torch.no_grad():
        g3.uniform_(0.5, 2)
        h3.uniform_(-1, 1)
    codes = torch.randn(4, 6)
    x = train_norm((codes @ w0.T + b0).view(4, 8, 8, 8), g0, h0)
    x = F.leaky_relu(train_norm(F.conv2d(double(x), w1, b1, padding=1), g1, h1), 0.2)
    x = F.leaky_relu(train_norm(F.conv2d(double(x), w2, b2, padding=1), g2, h2), 0.2)
    expected = train_norm(F.conv2d(x, w3, b3, padding=1), g3, h3)
    torch.testing.assert_close(network(codes), expected, rtol=1e-4, atol=1e-4)


def test_normalising_adds_nothing_to_what_is_kept() -> None:
    network = cmi_generator(6, RGB, 8)
    assert not [name for name in network.state_dict() if name.startswith(f"{len(network) - 1}.")]
    assert network.to(torch.float64)(torch.zeros(2, 6, dtype=torch.float64)).dtype == torch.float64
