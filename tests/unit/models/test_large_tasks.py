"""The tasks with torchvision's networks: sizes, the places that tasks name in them, and torchvision's checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from network_cost import macs
from torch import nn

from bench.data.image_spec import ImageSpec
from bench.models import build, layers, stages
from bench.models.layer_groups import LayerGroups
from bench.models.loading import fit, match_names, read_checkpoint
from bench.models.taps import tap
from bench.spec.task import TaskSpec, get_task, tasks
from bench.utils.torchvision_compat import torchvision

LARGE = ImageSpec(channels=3, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
WITH_TAPS = [task for task in tasks().values() if task.data.startswith("imagenet")]


@pytest.mark.parametrize(
    ("name", "parameters", "billion_macs"),  # torchvision's own table
    [
        ("resnet18", 11_689_512, 1.81),
        ("resnet34", 21_797_672, 3.66),
        ("resnet50", 25_557_032, 4.09),
        ("mobilenet_v2", 3_504_872, 0.30),
    ],
)
def test_a_network_has_the_published_size_on_imagenet(name: str, parameters: int, billion_macs: float) -> None:
    with torch.device("meta"):
        network = build(f"torchvision/{name}", LARGE, 1000)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert macs(network, LARGE.shape) / 1e9 == pytest.approx(billion_macs, abs=0.011)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("wrapped", ["", "module."])
def test_torchvisions_checkpoints_load_by_their_own_names(name: str, wrapped: str, tmp_path: Path) -> None:
    """As `dfkd teacher import` does; the answers are compared in double precision."""
    torch.manual_seed(0)
    theirs = torchvision().models.get_model(name, weights=None, num_classes=10)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    theirs = theirs.double().eval()
    state = {f"{wrapped}{key}": value for key, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / f"{name}.pth")
    torch.manual_seed(1)
    image = LARGE.model_copy(update={"size": 64})
    network = build(f"torchvision/{name}", image, 10).double().eval()
    weights, _ = read_checkpoint(tmp_path / f"{name}.pth")
    weights, done = match_names(network, weights)
    assert done == ([f"prefix {wrapped!r} removed"] if wrapped else [])
    images = torch.randn(2, *image.shape, dtype=torch.float64)
    assert not torch.allclose(network(images), theirs(images))
    fit(network, weights, name)
    assert torch.equal(network(images), theirs(images))


@pytest.mark.parametrize("task", WITH_TAPS, ids=[task.name for task in WITH_TAPS])
def test_a_task_names_the_stages_and_blocks_of_both_networks(task: TaskSpec) -> None:
    ends = []
    for name, which in ((task.teacher.network, "teacher"), (task.student, "student")):
        with torch.device("meta"):
            network = build(name, task.image, task.classes)
        tap(network, task.name, task.image.shape, task.places(which))  # type: ignore[arg-type]
        maps: list[tuple[int, ...]] = []
        for stage in stages(network):
            stage.register_forward_hook(lambda *call, maps=maps: maps.append(tuple(call[2].shape[2:])))
        network(torch.zeros(2, *task.image.shape, device="meta"))
        ends.append(maps)
        blocks = {"resnet18": 8, "resnet34": 16, "resnet50": 16, "mobilenet_v2": 17}[name.rpartition("/")[2]]
        assert len(layers(network)) == blocks
        kinds = {type(layer).__name__ for layer in layers(network)}
        assert kinds <= {"BasicBlock", "Bottleneck", "InvertedResidual"}
        assert sum(map(len, LayerGroups(network, task.image.shape).shapes)) == blocks
    side = task.image.size
    assert ends == [[(side // by, side // by) for by in (4, 8, 16, 32)]] * 2


@pytest.mark.parametrize("name", ["tiny_imagenet/resnet34-resnet18", "cinic10/resnet34-resnet18"])
def test_small_images_have_the_networks_of_cifar(name: str) -> None:
    task = get_task(name)
    with torch.device("meta"):
        for network in (task.teacher.network, task.student):
            answer = build(network, task.image, task.classes)(torch.zeros(2, *task.image.shape, device="meta"))
            assert answer.shape == (2, task.classes)
