"""Networks that are not the suite's: torchvision's by name, and a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from network_cost import macs
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec
from bench.errors import UserError
from bench.models import build, classifier_weight, head

RGB = ImageSpec(channels=3, size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
GREY = ImageSpec(channels=1, size=32, mean=(0.3,), std=(0.25,))


def complaint(name: str, image: ImageSpec = RGB, classes: int = 7) -> str:
    with pytest.raises(UserError) as raised:
        build(name, image, classes)
    return str(raised.value)


# ---- torchvision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "weight"),
    [
        ("resnet18", 32, (7, 512)),
        ("squeezenet1_1", 32, (7, 512)),
        ("mobilenet_v3_small", 32, (7, 1024)),
        ("googlenet", 32, (7, 1024)),
        ("inception_v3", 96, (7, 2048)),
        ("shufflenet_v2_x0_5", 32, (7, 1024)),
        ("swin_t", 32, (7, 768)),
        ("vit_b_16", 32, (7, 768)),
        ("maxvit_t", 224, (7, 512)),
    ],
)
def test_a_classification_network_of_torchvision(name: str, size: int, weight: tuple[int, int]) -> None:
    image = RGB.model_copy(update={"size": size})
    with torch.device("meta"):
        network = build(f"torchvision/{name}", image, 7)
    seen: list[Tensor] = []
    head(network).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert network(torch.zeros(2, *image.shape, device="meta")).shape == (2, 7)  # in training mode: one answer, no more
    assert len(seen) == 1
    assert seen[0].shape[:2] == (2, weight[1])
    assert classifier_weight(network).shape == weight


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("deeplabv3_mobilenet_v3_large", (7, 256)),
        ("fcn_resnet50", (7, 512)),
        ("lraspp_mobilenet_v3_large", (7, 128)),
    ],
)
def test_a_segmentation_network_of_torchvision(name: str, weight: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = build(f"torchvision/{name}", RGB, 7)
    answer = network(torch.zeros(2, *RGB.shape, device="meta"))
    assert isinstance(answer, Tensor)
    assert answer.shape == (2, 7, 32, 32)
    assert isinstance(head(network), nn.Conv2d)
    assert classifier_weight(network).shape == weight


@pytest.mark.parametrize("name", ["resnet18", "regnet_x_400mf", "deeplabv3_mobilenet_v3_large"])
def test_a_network_of_torchvision_trains_a_step(name: str) -> None:
    torch.manual_seed(0)
    network = build(f"torchvision/{name}", RGB, 7)
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
    images = torch.randn(2, *RGB.shape, requires_grad=True)
    answer = network(images)
    F.cross_entropy(answer, torch.zeros(2, *answer.shape[2:], dtype=torch.int64)).backward()
    assert images.grad is not None
    assert bool((images.grad != 0).any())
    assert macs(network, RGB.shape) > 1e6


def test_the_weights_come_from_the_global_random_state_alone() -> None:
    """Looking whether the images fit draws nothing."""
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        network = build("torchvision/resnet18", RGB, 7)
        states.append((network.conv1.weight.detach().clone(), torch.rand(1)))
    assert torch.equal(states[0][0], states[1][0])
    assert torch.equal(states[0][1], states[1][1])
    assert network.training
    from bench.utils.torchvision_compat import torchvision

    torch.manual_seed(5)
    plain = torchvision().models.resnet18(num_classes=7)
    assert torch.equal(plain.conv1.weight, states[0][0])
    assert torch.equal(torch.rand(1), states[0][1])


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("resnet19", RGB, "unknown network 'torchvision/resnet19'; did you mean 'torchvision/resnet18'?"),
        ("resnet18", GREY, "torchvision/resnet18 takes images with 3 channels, not 1"),
        (
            "fasterrcnn_resnet50_fpn",
            RGB,
            "torchvision/fasterrcnn_resnet50_fpn is not made for classification or segmentation",
        ),
        ("r3d_18", RGB, "torchvision/r3d_18 is not made for classification or segmentation"),
        ("raft_small", RGB, "torchvision/raft_small is not made for classification or segmentation"),
        ("quantized_resnet18", RGB, "torchvision/quantized_resnet18 is not made for classification or segmentation"),
        (
            "vit_h_14",
            RGB,
            "torchvision/vit_h_14 does not take 3x32x32 images: AssertionError: Input shape indivisible by patch size!",
        ),
    ],
)
def test_what_torchvision_cannot_give_is_refused(name: str, image: ImageSpec, message: str) -> None:
    assert complaint(f"torchvision/{name}", image) == message


def test_a_network_of_torchvision_that_needs_larger_images_is_refused_when_it_is_built() -> None:
    message = complaint("torchvision/alexnet")
    assert message.startswith("torchvision/alexnet does not take 3x32x32 images: RuntimeError: Given input size")


# ---- a user's own --------------------------------------------------------------------------------------------------

CODE = '''
import torch
from torch import nn

def tiny(image, classes):
    """Three layers."""
    return nn.Sequential(nn.Conv2d(image.channels, 4, 3), nn.Flatten(), nn.Linear(4 * (image.size - 2) ** 2, classes))

def dense(image, classes):
    return nn.Sequential(nn.Linear(image.size, image.size), nn.Conv2d(image.channels, 6, 1), nn.Conv2d(6, classes, 1))

class Headed(nn.Module):
    def __init__(self, image, classes):
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(image.channels * image.size ** 2, classes))

    def forward(self, images):
        return self.head(images.relu())

def broken(image, classes):
    return nn.Linear(image.width, classes)

def nothing(image, classes):
    pass

def narrow(image, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))

def few(image, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image.channels * image.size ** 2, 3))

def pair(image, classes):
    class Pair(nn.Module):
        def forward(self, images):
            return images, images
    return Pair()
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_networks_for_a_test.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_networks_for_a_test.py"


def test_a_users_own_network_from_a_file(place: Path) -> None:
    for name in (f"{place}:tiny", "my_networks_for_a_test.py:tiny"):
        network = build(name, GREY, 7)
        assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
        assert head(network) is network[2]
        assert classifier_weight(network) is network[2].weight


def test_a_users_own_network_from_an_importable_module(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(place.parent)
    assert build("my_networks_for_a_test:tiny", RGB, 7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_segmentation_network_of_ones_own_ends_in_its_last_1x1_convolution(place: Path) -> None:
    network = build(f"{place}:dense", RGB, 7)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7, 32, 32)
    assert head(network) is network[2]
    assert classifier_weight(network).shape == (7, 6)


def test_a_network_of_ones_own_may_say_what_its_head_is(place: Path) -> None:
    network = build(f"{place}:Headed", RGB, 7)
    assert head(network) is network.head
    assert classifier_weight(network) is network.head[1].weight


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("tini", "{place} has no function 'tini'; did you mean 'tiny'?"),
        ("", "{place} has no function ''; allowed: Headed, broken, dense, few, narrow, nothing, pair, tiny"),
        ("broken", "broken fails with AttributeError: 'ImageSpec' object has no attribute 'width'"),
        ("nothing", "nothing gives NoneType, not a torch.nn.Module"),
        ("narrow", "does not take 3x32x32 images: RuntimeError: "),
        ("few", "gives (1, 3) for one image, neither (1, 7) nor (1, 7, 32, 32)"),
        ("pair", "gives tuple for one image, neither (1, 7) nor (1, 7, 32, 32)"),
    ],
)
def test_what_a_users_function_does_wrong_is_said(place: Path, function: str, message: str) -> None:
    found = complaint(f"{place}:{function}")
    start = f"network '{place}:{function}'"
    assert found.startswith(start)
    expected = message.format(place=place)
    rest = found.removeprefix(start).lstrip(": ")
    assert rest.startswith(expected) if expected.endswith(": ") else rest == expected


def test_a_file_or_module_that_is_not_there_is_named(place: Path) -> None:
    assert complaint("missing.py:tiny") == "network 'missing.py:tiny': no such file: missing.py"
    assert complaint("no.such.module:f") == "network 'no.such.module:f': module 'no.such.module' cannot be imported"


def test_a_file_that_cannot_be_imported_is_named_with_the_line(place: Path) -> None:
    place.write_text("import torch\n\n1 / 0\n", encoding="utf-8")
    assert complaint(f"{place}:tiny").endswith(
        "my_networks_for_a_test.py, line 3: importing it fails with ZeroDivisionError: division by zero"
    )


def test_a_network_without_a_layer_to_classes_has_no_head() -> None:
    with pytest.raises(UserError, match=r"^ReLU has no `head`; its features are not defined$"):
        head(nn.ReLU())
    with pytest.raises(UserError, match=r"^ReLU has no linear layer; its class templates are not defined$"):
        classifier_weight(nn.ReLU())
