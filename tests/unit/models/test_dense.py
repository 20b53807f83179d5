"""Segmentation networks against DFAD's numbers and small computations of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from network_cost import macs
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec
from bench.errors import UserError
from bench.models import build, classifier_weight, head
from bench.models.deeplab import load_backbone
from bench.models.mobilenet import InvertedResidual
from bench.utils.torchvision_compat import torchvision

RGB = ImageSpec(channels=3, size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LARGE = RGB.model_copy(update={"size": 128})
FILE = Path("weights.pth")

# name: image, classes, parameters, million multiply-adds, batch norms, features of one image, weight of the last layer
TABLE = {
    "deeplabv3-resnet50": (LARGE, 11, 39_636_299, 10_224, 60, (2048, 16, 16), (11, 256)),
    "deeplabv3-mobilenetv2": (LARGE, 11, 5_111_307, 1_431, 58, (320, 16, 16), (11, 256)),
    "unet": (RGB, 5, 117_429, 25, 10, (16, 32, 32), (5, 16)),
    "unet-small": (RGB, 5, 29_661, 6, 10, (8, 32, 32), (5, 8)),
}


def ghost(name: str, image: ImageSpec, classes: int) -> nn.Module:
    """A network without storage: quick to build and to count."""
    with torch.device("meta"):
        return build(name, image, classes)


@pytest.mark.parametrize("name", TABLE)
def test_a_network_has_the_stated_size(name: str) -> None:
    image, classes, parameters, million_macs, norms, features, weight = TABLE[name]
    network = ghost(name, image, classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert round(macs(network, image.shape) / 1e6) == million_macs
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == norms
    assert classifier_weight(network).shape == weight
    assert classifier_weight(network)._base is list(network.parameters())[-2]
    seen: list[Tensor] = []
    head(network).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    answer = network(torch.zeros(2, *image.shape, device="meta"))
    assert answer.shape == (2, classes, image.size, image.size)
    assert [value.shape for value in seen] == [(2, *features)]


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(("height", "width"), [(33, 33), (45, 50), (72, 96)])
def test_any_size_of_image_gives_an_answer_of_that_size(name: str, height: int, width: int) -> None:
    assert ghost(name, RGB, 5)(torch.zeros(2, 3, height, width, device="meta")).shape == (2, 5, height, width)


@pytest.mark.parametrize("name", TABLE)
def test_a_network_trains_a_step_and_is_deterministic_in_evaluation(name: str) -> None:
    image = RGB.model_copy(update={"size": 33})
    torch.manual_seed(0)
    network = build(name, image, 5)
    images = torch.randn(2, *image.shape, requires_grad=True)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    F.cross_entropy(network(images), torch.randint(5, (2, 33, 33))).backward()
    assert images.grad is not None
    assert bool((images.grad != 0).any())
    assert all(parameter.grad is not None for parameter in network.parameters())
    optimizer.step()
    network.eval()
    with torch.no_grad():
        first, second = network(images), network(images)
    assert torch.equal(first, second)
    assert bool(first.isfinite().all())


# ---- DeepLab -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deeplabv3-resnet50", "deeplabv3-mobilenetv2"])
def test_the_head_is_dfads(name: str) -> None:
    network = ghost(name, LARGE, 11)
    layers = [layer for layer in head(network).modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation[0] for layer in layers if layer.kernel_size == (3, 3)] == [12, 24, 32, 1]
    assert [layer.bias is not None for layer in layers] == [False] * 7 + [True]
    assert layers[5].in_channels == 1280
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.5]


def test_resnet50s_last_stages_are_dilated() -> None:
    network = ghost("deeplabv3-resnet50", LARGE, 11)
    wide = {
        name: (layer.stride[0], layer.dilation[0])
        for name, layer in network.backbone.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.in_channels >= 256
    }
    assert wide == {
        **{f"layer3.{index}.conv2": (1, 2 if index else 1) for index in range(6)},
        **{f"layer4.{index}.conv2": (1, 4 if index else 2) for index in range(3)},
    }


def test_the_answer_is_enlarged_bilinearly() -> None:
    torch.manual_seed(0)
    network = build("deeplabv3-mobilenetv2", RGB, 5).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        low = network.classifier(network.backbone(images))
        assert low.shape == (1, 5, 8, 8)
        found = network(images)
    # Pixel centres: pixel 11 lies at (11 + 0.5) / 8 - 0.5 = 0.9375 between the first two numbers.
    row = 0.0625 * low[0, :, 0] + 0.9375 * low[0, :, 1]
    torch.testing.assert_close(found[0, :, 11, 11], 0.0625 * row[:, 0] + 0.9375 * row[:, 1])


def test_deeplab_on_resnet_wants_colour() -> None:
    with pytest.raises(UserError) as raised:
        build("deeplabv3-resnet50", ImageSpec(channels=1, size=64, mean=(0.5,), std=(0.5,)), 5)
    assert str(raised.value) == "deeplabv3-resnet50 takes images with 3 channels, not 1"


# ---- MobileNetV2 ---------------------------------------------------------------------------------------------------


def test_mobilenets_strides_become_dilation_one_group_late() -> None:
    network = ghost("deeplabv3-mobilenetv2", LARGE, 11)
    found = [
        (block.conv[-2].out_channels, layer.stride[0], layer.dilation[0], block.adds)
        for block in network.backbone.features
        if isinstance(block, InvertedResidual)
        for layer in block.conv
        if isinstance(layer, nn.Conv2d) and layer.groups > 1
    ]
    expected = [(16, 1, 1, False)]
    for width, blocks, stride, dilation in (
        (24, 2, 2, 1), (32, 3, 2, 1), (64, 4, 1, 1), (96, 3, 1, 2), (160, 3, 1, 2), (320, 1, 1, 4)
    ):  # fmt: skip
        expected += [(width, stride if index == 0 else 1, dilation, index > 0) for index in range(blocks)]
    assert found == expected


@pytest.mark.parametrize(("stride", "dilation", "after"), [(1, 1, 4), (1, 2, 4), (2, 1, 4), (1, 2, 6)])
def test_mobilenet_pads_before_it_expands(stride: int, dilation: int, after: int) -> None:
    torch.manual_seed(0)
    block = InvertedResidual(4, after, stride, dilation, 6).eval()
    for layer in block.conv:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.bias, 0.5, 1)  # so that a border of zeros does not stay one
            nn.init.uniform_(layer.running_mean, -1, 1)
    expand, norm1, _, depthwise, norm2, _, project, norm3 = block.conv

    def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        return (x - layer.running_mean[:, None, None]) / (1 + layer.eps) ** 0.5 + layer.bias[:, None, None]

    def written_out(x: Tensor, early: bool) -> Tensor:
        padded = torch.zeros(2, 4, 8 + 2 * dilation, 8 + 2 * dilation)
        padded[:, :, dilation:-dilation, dilation:-dilation] = x
        out = norm(F.conv2d(padded if early else x, expand.weight), norm1).clamp(0, 6)
        out = F.conv2d(out, depthwise.weight, None, stride, 0 if early else dilation, dilation, groups=24)
        out = norm(F.conv2d(norm(out, norm2).clamp(0, 6), project.weight), norm3)
        return x + out if stride == 1 and after == 4 else out

    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        found = block(x)
        torch.testing.assert_close(found, written_out(x, early=True), rtol=1e-4, atol=1e-5)
        usual = written_out(x, early=False)
    assert found.shape == usual.shape
    assert not torch.allclose(found, usual)
    inside = slice(2 * dilation, -2 * dilation) if stride == 1 else slice(2, -1)
    torch.testing.assert_close(found[..., inside, inside], usual[..., inside, inside], rtol=1e-4, atol=1e-5)


def test_mobilenets_convolutions_are_drawn_after_kaiming() -> None:
    torch.manual_seed(0)
    network = build("deeplabv3-mobilenetv2", LARGE, 11)
    for layer in network.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            numbers, inputs = layer.weight.numel(), layer.weight[0].numel()
            assert abs(layer.weight.std() / (2 / inputs) ** 0.5 - 1) < 5 / (2 * numbers) ** 0.5


# ---- ImageNet weights ----------------------------------------------------------------------------------------------


def test_imagenet_weights_fill_the_backbone_alone() -> None:
    torch.manual_seed(0)
    network = build("deeplabv3-resnet50", RGB, 5)
    given = torchvision().models.resnet50(weights=None).state_dict()
    given = {name: value for name, value in given.items() if not name.endswith("num_batches_tracked")}
    before = {name: value.clone() for name, value in network.classifier.state_dict().items()}
    load_backbone(network, given, FILE)
    filled = network.backbone.state_dict()
    assert sum(torch.equal(filled[name], value) for name, value in given.items() if name in filled) == 265
    assert all(torch.equal(value, before[name]) for name, value in network.classifier.state_dict().items())


def without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: weights.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("conv1.weight"), "conv1.weight is missing"),
        (
            lambda weights: weights.update({"bn1.bias": torch.zeros(3)}),
            "bn1.bias is (3,), not (64,)",
        ),
        (lambda weights: weights.update({"extra": torch.zeros(3)}), "extra is unknown"),
        (
            lambda weights: weights.clear(),
            "conv1.weight is missing; bn1.weight is missing; bn1.bias is missing and 262 more",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    with torch.device("meta"):
        network = build("deeplabv3-resnet50", RGB, 5)
        weights = dict(torchvision().models.resnet50(weights=None).state_dict())
    change(weights)
    with pytest.raises(UserError) as raised:
        load_backbone(network, weights, FILE)
    assert str(raised.value) == f"weights.pth does not match ResNet-50's backbone: {message}"


def test_no_other_network_takes_imagenet_weights() -> None:
    with pytest.raises(UserError, match=r"^weights.pth: only deeplabv3-resnet50 takes these weights, not UNet$"):
        load_backbone(ghost("unet", RGB, 5), {}, FILE)


# ---- U-Net ---------------------------------------------------------------------------------------------------------


def test_unet_small_costs_a_quarter() -> None:
    large, small = (macs(ghost(name, RGB, 5), RGB.shape) for name in ("unet", "unet-small"))
    assert 3.5 < large / small < 4.5


def test_unet_sees_far_and_near() -> None:
    """A pixel's answer depends on its neighbours through the skips, and on far pixels through the bottom."""
    torch.manual_seed(0)
    network = build("unet", RGB, 5).eval()
    images = torch.randn(1, 3, 64, 64, requires_grad=True)
    network(images)[0, :, 32, 32].sum().backward()
    assert images.grad is not None
    reached = images.grad[0].abs().sum(0) > 0
    assert bool(reached[32, 32])
    assert bool(reached[32, 0:16].any())


def test_unet_refuses_images_that_it_cannot_halve_three_times() -> None:
    with pytest.raises(UserError) as raised:
        build("unet", RGB.model_copy(update={"size": 7}), 5)
    assert str(raised.value) == "U-Net takes images of at least 8x8 pixels, not 7x7"
