"""Networks and generators against the numbers of their papers and reference code."""

from __future__ import annotations

import pytest
import torch
from method_fixtures import IMAGE
from network_cost import macs
from torch import Tensor, nn
from torch.nn import functional as F

from bench import image_generator
from bench.data.image_spec import ImageSpec
from bench.errors import UserError
from bench.models import build, classifier_weight, head

RGB = ImageSpec(channels=3, size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "thousand_macs", "features", "hidden"),
    [("lenet5", 61_706, 417, 120, 84), ("lenet5-half", 15_738, 134, 60, 42)],
)
def test_lenet_has_the_papers_size(name: str, parameters: int, thousand_macs: int, features: int, hidden: int) -> None:
    network = build(name, IMAGE, 10)
    seen: list[Tensor] = []
    head(network).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert count(network) == parameters
    assert round(macs(network, IMAGE.shape) / 1000) == thousand_macs
    assert network(torch.zeros(2, *IMAGE.shape)).shape == (2, 10)
    assert seen[0].shape == (2, features)
    assert seen[0].min() >= 0  # after ReLU
    assert classifier_weight(network).shape == (10, hidden)
    assert classifier_weight(network) is list(network.parameters())[-2]


def test_lenet_computes_what_the_reference_describes() -> None:
    """Written out a second time, from the table of layers."""
    torch.manual_seed(0)
    network = build("lenet5", IMAGE, 10)
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = network.parameters()
    images = torch.randn(3, 1, 32, 32)
    x = F.max_pool2d(F.relu(F.conv2d(images, w1, b1)), 2, 2)
    assert x.shape == (3, 6, 14, 14)
    x = F.max_pool2d(F.relu(F.conv2d(x, w2, b2)), 2, 2)
    assert x.shape == (3, 16, 5, 5)
    features = F.relu(F.conv2d(x, w3, b3)).flatten(1)
    expected = F.relu(features @ w4.T + b4) @ w5.T + b5
    torch.testing.assert_close(network(images), expected)


def test_lenet_starts_from_the_frameworks_own_weights() -> None:
    torch.manual_seed(7)
    found = [parameter.detach().clone() for parameter in build("lenet5-half", IMAGE, 10).parameters()]
    torch.manual_seed(7)
    layers = (nn.Conv2d(1, 3, 5), nn.Conv2d(3, 8, 5), nn.Conv2d(8, 60, 5), nn.Linear(60, 42), nn.Linear(42, 10))
    expected = [parameter for layer in layers for parameter in layer.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_lenet_refuses_other_image_sizes() -> None:
    with pytest.raises(UserError, match="32x32 images, not 28x28"):
        build("lenet5", IMAGE.model_copy(update={"size": 28}), 10)


def test_an_unknown_network_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="lenet5-half"):
        build("lenet5_half", IMAGE, 10)


@pytest.mark.parametrize(
    ("latent", "image", "parameters"), [(1000, RGB, 8_423_939), (100, IMAGE, 1_049_985), (256, RGB, 2_329_091)]
)
def test_generators_have_the_papers_size(latent: int, image: ImageSpec, parameters: int) -> None:
    assert count(image_generator(latent, image)) == parameters


def test_the_generator_for_cifar_costs_123_million_multiply_adds() -> None:
    assert round(macs(image_generator(1000, RGB), (1000,)) / 1e6) == 123


def test_the_generators_layers_are_dafls() -> None:
    layers = list(image_generator(100, RGB, eps=0.8))
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert [layer.eps for layer in norms] == [1e-5, 0.8, 0.8, 1e-5]
    assert [layer.momentum for layer in norms] == [0.1] * 4
    assert [layer.affine for layer in norms] == [True, True, True, False]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(128, 128), (128, 64), (64, 3)]
    assert all(c.kernel_size == (3, 3) and c.padding == (1, 1) and c.bias is not None for c in convolutions)
    assert [layer.mode for layer in layers if isinstance(layer, nn.Upsample)] == ["nearest"] * 2
    assert {layer.negative_slope for layer in layers if isinstance(layer, nn.LeakyReLU)} == {0.2}


def test_the_generator_computes_what_the_reference_describes() -> None:
    torch.manual_seed(0)
    network = image_generator(10, RGB, 8, eps=0.8)
    w0, b0, g0, h0, w1, b1, g1, h1, w2, b2, g2, h2, w3, b3 = network.parameters()
    codes = torch.randn(4, 10)

    def norm(x: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float = 1e-5) -> Tensor:
        return F.batch_norm(x, None, None, gain, shift, training=True, eps=eps)

    def double(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    x = norm((codes @ w0.T + b0).view(4, 8, 8, 8), g0, h0)
    x = F.leaky_relu(norm(F.conv2d(double(x), w1, b1, padding=1), g1, h1, 0.8), 0.2)
    x = F.leaky_relu(norm(F.conv2d(double(x), w2, b2, padding=1), g2, h2, 0.8), 0.2)
    expected = norm(torch.tanh(F.conv2d(x, w3, b3, padding=1)), None, None)
    torch.testing.assert_close(network(codes), expected, rtol=1e-4, atol=1e-5)


def test_whitened_images_have_zero_mean_and_unit_variance_per_channel() -> None:
    torch.manual_seed(0)
    images = image_generator(16, RGB, 16)(torch.randn(64, 16))
    assert images.shape == (64, 3, 32, 32)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(images.var((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=2e-3)


def test_without_whitening_images_stay_within_tanhs_range() -> None:
    torch.manual_seed(0)
    images = image_generator(16, IMAGE, 16, whiten=False)(5 * torch.randn(64, 16))
    assert images.abs().max() <= 1


def test_a_generator_needs_a_size_that_it_can_double_twice() -> None:
    with pytest.raises(UserError, match="multiple of 4, not 30"):
        image_generator(16, IMAGE.model_copy(update={"size": 30}))


def test_counting_the_cost_leaves_the_network_and_the_random_state_alone() -> None:
    network = image_generator(16, IMAGE, 8)
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    assert macs(network, (16,)) > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert network.training
