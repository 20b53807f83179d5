"""Classification networks against the tables of their papers and reference code, and small computations of our own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from network_cost import macs
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec
from bench.errors import UserError
from bench.models import NETWORKS, build, classifier_weight, head
from bench.models.alexnet import ResponseNorm
from bench.models.wide_resnet import WideBlock

RGB = ImageSpec(channels=3, size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
GREY = ImageSpec(channels=1, size=32, mean=(0.3,), std=(0.25,))

# name: image, parameters for 10 and for 100 classes, million multiply-adds, batch norms, length of the features
TABLE = {
    "lenet5": (GREY, 61_706, 69_356, 0.417, 0, 120),
    "lenet5-half": (GREY, 15_738, 19_608, 0.134, 0, 60),
    "lenet5bn": (GREY, 61_990, 69_640, 0.417, 3, 120),
    "lenet5bn-half": (GREY, 15_880, 19_750, 0.134, 3, 60),
    "hintonnet": (GREY, 2_683_210, 2_791_300, 2.68, 0, 1200),
    "hintonnet-half": (GREY, 1_468_810, 1_540_900, 1.47, 0, 800),
    "alexnet": (RGB, 1_659_178, 1_682_308, 76.9, 7, 256),
    "alexnet-half": (RGB, 417_434, 429_044, 20.1, 7, 128),
    "resnet18": (RGB, 11_173_962, 11_220_132, 555, 20, 512),
    "resnet34": (RGB, 21_282_122, 21_328_292, 1159, 36, 512),
    "resnet50": (RGB, 23_520_842, 23_705_252, 1298, 53, 2048),
    "wrn16-1": (RGB, 175_066, 180_916, 26.7, 13, 64),
    "wrn16-2": (RGB, 691_674, 703_284, 101.1, 13, 128),
    "wrn40-1": (RGB, 563_930, 569_780, 83.3, 37, 64),
    "wrn40-2": (RGB, 2_243_546, 2_255_156, 327.6, 37, 128),
    "vgg8": (RGB, 3_918_858, 3_965_028, 96.1, 5, 512),
    "vgg11": (RGB, 9_231_114, 9_277_284, 209, 8, 512),
    "vgg13": (RGB, 9_416_010, 9_462_180, 285, 10, 512),
    "vit-tiny": (RGB, 5_362_378, 5_379_748, 359, 0, 192),
    "vit-mini": (RGB, 1_205_642, 1_217_252, 82.2, 0, 128),
}
SHAPED = ("resnet", "wrn", "vgg", "alexnet", "vit")
SMALL = [
    name for name in TABLE if name not in ("resnet34", "resnet50", "wrn40-2", "vgg13", "vit-tiny")
]  # to train a step


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def ghost(name: str, image: ImageSpec, classes: int = 10) -> nn.Module:
    """A network without storage: quick to build and to count."""
    with torch.device("meta"):
        return build(name, image, classes)


def scatter(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights that are not those of their beginning."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -1, 1),
                (module.running_mean, -1, 1),
                (module.running_var, 0.5, 2),
            ):
                value.uniform_(low, high)
    return network


def norm(x: Tensor, layer: nn.Module) -> Tensor:
    """Batch norm in evaluation mode, written out."""
    mean, var, gain, shift = (
        value.view(1, -1, 1, 1) for value in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / torch.sqrt(var + layer.eps) * gain + shift


# ---- sizes ---------------------------------------------------------------------------------------------------------


def test_no_classification_network_is_left_out() -> None:
    dense = {"deeplabv3-resnet50", "deeplabv3-mobilenetv2", "unet", "unet-small"}
    assert set(TABLE) | dense == set(NETWORKS)


@pytest.mark.parametrize("name", TABLE)
def test_a_network_has_the_papers_size(name: str) -> None:
    image, ten, hundred, million_macs, norms, features = TABLE[name]
    network = ghost(name, image)
    assert (count(network), count(ghost(name, image, 100))) == (ten, hundred)
    found = macs(network, image.shape) / 1e6
    digits = len(str(million_macs).partition(".")[2])
    assert round(found, digits) == million_macs
    assert sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()) == norms
    seen: list[Tensor] = []
    head(network).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert network(torch.zeros(2, *image.shape, device="meta")).shape == (2, 10)
    assert [value.shape for value in seen] == [(2, features)]
    if not name.startswith("lenet"):
        assert classifier_weight(network).shape == (10, features)


@pytest.mark.parametrize(("name", "parameters"), [("hintonnet", 2_395_210), ("hintonnet-half", 1_276_810)])
def test_hintonnet_on_digits_of_28x28_has_784_inputs(name: str, parameters: int) -> None:
    assert count(ghost(name, GREY.model_copy(update={"size": 28}))) == parameters


@pytest.mark.parametrize("name", SMALL)
def test_a_network_trains_a_step_and_is_deterministic_in_evaluation(name: str) -> None:
    image = TABLE[name][0]
    torch.manual_seed(0)
    network = build(name, image, 10)
    images = torch.randn(4, *image.shape, requires_grad=True)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    F.cross_entropy(network(images), torch.arange(4)).backward()
    assert images.grad is not None
    assert bool((images.grad != 0).any())
    assert all(parameter.grad is not None for parameter in network.parameters())
    optimizer.step()
    network.eval()
    with torch.no_grad():
        first, second = network(images), network(images)
    assert torch.equal(first, second)
    assert bool(first.isfinite().all())


@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith(SHAPED)])
def test_networks_for_colour_take_grey_images_too(name: str) -> None:
    assert ghost(name, GREY)(torch.zeros(2, *GREY.shape, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("alexnet", 64, "AlexNet takes 32x32 images, not 64x64"),
        ("wrn16-1", 28, "Wide ResNets take 32x32 images, not 28x28"),
        ("lenet5bn", 28, "LeNet-5 takes 32x32 images, not 28x28"),
        (
            "vit-mini",
            30,
            "vision transformers with patches of 4x4 take images whose side is a multiple of 4, not 30x30",
        ),
        ("vgg8", 7, "VGG takes images of at least 8x8 pixels, not 7x7"),
    ],
)
def test_sizes_that_a_network_cannot_take_are_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(UserError) as raised:
        build(name, RGB.model_copy(update={"size": size}), 10)
    assert str(raised.value) == message


# ---- LeNet with batch norm -----------------------------------------------------------------------------------------


def test_lenets_batch_norm_stands_between_convolution_and_relu() -> None:
    kinds = [type(layer).__name__ for layer in build("lenet5bn", GREY, 10).body]
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == [*block, "MaxPool2d", *block, "MaxPool2d", *block, "Flatten"]


# ---- AlexNet -------------------------------------------------------------------------------------------------------


def test_alexnets_response_normalisation_is_tensorflows() -> None:
    values = np.random.default_rng(0).normal(0, 30, (2, 8, 3, 3))  # large, so that alpha matters
    expected = np.empty_like(values)
    for channel in range(8):
        window = values[:, max(0, channel - 2) : channel + 3]
        expected[:, channel] = values[:, channel] / (1 + 1e-4 * (window**2).sum(axis=1)) ** 0.75
    np.testing.assert_allclose(ResponseNorm()(torch.tensor(values)).numpy(), expected, rtol=1e-6)


def test_alexnets_response_normalisation_has_torchs_gradients() -> None:
    torch.manual_seed(0)
    values, weights = 30 * torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3)
    gradients = []
    for layer in (ResponseNorm(), nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=1.0)):
        x = values.clone().requires_grad_()
        (weights * layer(x)).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_alexnets_layers_have_zskds_order_and_sizes() -> None:
    network = build("alexnet", RGB, 10)
    kinds, sizes = [], [32]
    x = torch.zeros(1, 3, 32, 32)
    for layer in network.convolutions:
        x = layer(x) if not isinstance(layer, nn.BatchNorm2d) else x
        kinds.append(type(layer).__name__)
        if isinstance(layer, nn.BatchNorm2d):
            sizes.append(x.shape[-1])
    long = ["Conv2d", "ReLU", "ResponseNorm", "MaxPool2d", "BatchNorm2d"]
    short = ["Conv2d", "ReLU", "BatchNorm2d"]
    assert kinds == [*long, *long, *short, *short, "Conv2d", "ReLU", "MaxPool2d", "BatchNorm2d"]
    assert sizes == [32, 15, 7, 7, 7, 3]
    assert [type(layer).__name__ for layer in network.hidden] == ["Linear", "ReLU", "Dropout", "BatchNorm1d"] * 2
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.5}
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert {(layer.eps, layer.momentum, layer.affine) for layer in norms} == {(1e-3, 1e-3, True)}


def test_alexnet_starts_from_zskds_weights() -> None:
    torch.manual_seed(0)
    network = build("alexnet", RGB, 10)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        numbers = layer.weight.numel()
        assert abs(layer.weight.mean()) < 5 * 0.01 / numbers**0.5
        assert abs(layer.weight.std() / 0.01 - 1) < 5 / (2 * numbers) ** 0.5
    assert [layer.bias.unique().tolist() for layer in layers] == [[0], [1], [0], [1], [1], [0], [0], [0]]


def test_alexnet_flattens_as_tensorflow_does() -> None:
    network = build("alexnet-half", RGB, 10).eval()
    images = torch.randn(2, 3, 32, 32)
    maps = network.convolutions(images)
    assert maps.shape == (2, 64, 3, 3)
    flat = np.reshape(np.moveaxis(maps.detach().numpy(), 1, 3), (2, -1))  # (N, height, width, channel)
    torch.testing.assert_close(network(images), network.head(network.hidden(torch.tensor(flat))))


# ---- ResNet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_computes_what_torchvisions_does_without_its_stem(name: str) -> None:
    """The same weights in torchvision's network, with the small stem in place of the large one."""
    from bench.utils.torchvision_compat import torchvision

    torch.manual_seed(0)
    ours = scatter(build(name, RGB, 10)).eval()
    theirs = torchvision().models.get_model(name, num_classes=10).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    renamed = {
        key.replace("shortcut", "downsample").replace("linear", "fc"): value for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict(renamed)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_a_resnet_starts_from_the_frameworks_own_weights() -> None:
    torch.manual_seed(3)
    network = build("resnet18", RGB, 10)
    torch.manual_seed(3)
    assert torch.equal(network.conv1.weight, nn.Conv2d(3, 64, 3, padding=1, bias=False).weight)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet18", [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("resnet50", [(256, 32), (512, 16), (1024, 8), (2048, 4)]),
        ("wrn16-2", [(32, 32), (64, 16), (128, 8)]),
        ("wrn40-1", [(16, 32), (32, 16), (64, 8)]),
    ],
)
def test_the_outputs_of_stages_can_be_tapped(name: str, shapes: list[tuple[int, int]]) -> None:
    network = ghost(name, RGB)
    seen: list[tuple[int, int]] = []
    for stage in network.stages:
        stage.register_forward_hook(lambda _, args, output: seen.append((output.shape[1], output.shape[2])))
    network(torch.zeros(1, *RGB.shape, device="meta"))
    assert seen == shapes


# ---- Wide ResNet ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after", "stride"), [(8, 8, 1), (8, 16, 2), (8, 16, 1)])
def test_a_wide_block_activates_before_it_convolves(before: int, after: int, stride: int) -> None:
    torch.manual_seed(0)
    block = scatter(WideBlock(before, after, stride)).eval()
    x = torch.randn(2, before, 8, 8)
    kept = x.clone()
    active = torch.clamp(norm(x, block.bn1), min=0)
    middle = torch.clamp(norm(F.conv2d(active, block.conv1.weight, stride=stride, padding=1), block.bn2), min=0)
    branch = F.conv2d(middle, block.conv2.weight, padding=1)
    if before == after:
        expected = x + branch  # the shortcut is the raw input
    else:
        expected = F.conv2d(active, block.convShortcut.weight, stride=stride) + branch  # it sees the active one
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert bool((expected < 0).any()), "nothing is applied after the sum"
    assert torch.equal(x, kept)


@pytest.mark.parametrize(("name", "shortcuts"), [("wrn16-1", 2), ("wrn16-2", 3), ("wrn40-1", 2), ("wrn40-2", 3)])
def test_the_first_group_of_the_narrow_nets_has_an_identity_shortcut(name: str, shortcuts: int) -> None:
    kernels = [layer.kernel_size for layer in ghost(name, RGB).modules() if isinstance(layer, nn.Conv2d)]
    assert kernels.count((1, 1)) == shortcuts


def test_a_wide_resnets_last_steps_are_batch_norm_relu_and_an_average_of_8x8() -> None:
    torch.manual_seed(0)
    network = scatter(build("wrn16-1", RGB, 10)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        x = F.conv2d(images, network.conv1.weight, padding=1)
        for stage in network.stages:
            x = stage(x)
        features = torch.clamp(norm(x, network.bn1), min=0).mean((2, 3))
        torch.testing.assert_close(network(images), features @ network.fc.weight.T + network.fc.bias)


@pytest.mark.parametrize("name", ["wrn16-2", "vgg8"])
def test_convolutions_start_with_a_variance_of_two_over_their_outputs(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, RGB, 10)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (layer.kernel_size[0] ** 2 * layer.out_channels)) ** 0.5
            numbers = layer.weight.numel()
            assert abs(layer.weight.std() / expected - 1) < 5 / (2 * numbers) ** 0.5
    last = head(network)
    assert isinstance(last, nn.Linear)
    assert not last.bias.any()
    if name == "vgg8":
        assert abs(last.weight.std() / 0.01 - 1) < 0.05
        assert not any(layer.bias.any() for layer in network.modules() if isinstance(layer, nn.Conv2d))
    else:
        assert last.weight.abs().max() <= 1 / 128**0.5  # the framework's uniform one


# ---- VGG -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "sizes"), [(32, [32, 16, 8, 4, 4]), (64, [64, 32, 16, 8, 4]), (48, [48, 24, 12, 6, 6])]
)
def test_vggs_fourth_pooling_is_for_images_of_64_alone(size: int, sizes: list[int]) -> None:
    network = ghost("vgg11", RGB.model_copy(update={"size": size}))
    seen: list[int] = []
    for index in range(5):
        getattr(network, f"block{index}").register_forward_hook(lambda _, args, output: seen.append(output.shape[-1]))
    assert network(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 10)
    assert seen == sizes


def test_vggs_features_are_averages_after_relu() -> None:
    torch.manual_seed(0)
    network = scatter(build("vgg8", RGB, 10)).eval()
    seen: list[Tensor] = []
    head(network).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        network(images)
        x = images
        for index in range(5):
            convolution, layer = getattr(network, f"block{index}")
            x = torch.clamp(norm(F.conv2d(x, convolution.weight, convolution.bias, padding=1), layer), min=0)
            x = F.max_pool2d(x, 2) if index < 3 else x
        torch.testing.assert_close(seen[0], x.mean((2, 3)), rtol=1e-4, atol=1e-5)
