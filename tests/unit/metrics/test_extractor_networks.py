"""Extractors through ImageNet's networks: random weights of the right scale, files that fit, clear words otherwise."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from extractor_fixtures import CPU, complaint, metric_context, pictures
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.metrics import imagenet, weights
from bench.metrics.embedding import Extractor, embed, rgb
from bench.metrics.extractors import get_extractor
from bench.metrics.imagenet import random_weights
from bench.utils.torchvision_compat import torchvision


@pytest.fixture(autouse=True)
def _no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights files are nowhere."""
    monkeypatch.delenv("DFKD_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "own_folder", lambda: tmp_path / "weights")
    monkeypatch.setattr(imagenet, "own_folder", lambda: tmp_path / "weights")


# ---- networks of ImageNet ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_inception() -> Extractor:
    return get_extractor("inception-random", metric_context())


def test_activations_of_random_weights_neither_vanish_nor_explode(random_inception: Extractor) -> None:
    features, logits = embed(random_inception, pictures(4))
    assert features.shape == (4, 2048)
    assert logits is not None
    assert logits.shape == (4, 1008)
    for values in (features, logits):
        assert 0.05 < values.square().mean().sqrt() < 20
        assert (values.std(0) > 1e-4 * values.abs().mean()).float().mean() > 0.8  # the images are distinguished
    assert (features == 0).float().mean() < 0.5


def test_random_weights_are_the_same_every_time_and_touch_no_random_state(random_inception: Extractor) -> None:
    before = torch.get_rng_state()
    again = get_extractor("inception-random", metric_context())
    assert torch.equal(torch.get_rng_state(), before)
    assert again.identity == random_inception.identity
    images = pictures(1)
    assert torch.equal(embed(again, images)[0], embed(random_inception, images)[0])


def test_random_weights_have_he_variance() -> None:
    network = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Linear(500, 300))
    found = random_weights(network)
    assert found["0.weight"].std().item() == pytest.approx((2 / 72) ** 0.5, rel=0.05)
    assert found["2.weight"].std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.02)
    assert {name: found[name].unique().tolist() for name in found if found[name].ndim < 2} == {
        "0.bias": [0], "1.weight": [1], "1.bias": [0], "1.running_mean": [0], "1.running_var": [1],
        "1.num_batches_tracked": [0], "2.bias": [0],
    }  # fmt: skip
    assert not torch.equal(random_weights(network, 1)["0.weight"], found["0.weight"])


@pytest.mark.slow
def test_random_vgg16_gives_features_and_no_logits() -> None:
    features, logits = embed(get_extractor("vgg16-random", metric_context()), pictures(2))
    assert logits is None
    assert features.shape == (2, 4096)
    assert 0.05 < features.square().mean().sqrt() < 20


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["inception-random", "teacher"])
def test_a_gpu_gives_the_same_features(name: str) -> None:
    around, cuda, images = metric_context(), torch.device("cuda"), pictures(4)
    wanted = embed(get_extractor(name, around), images)[0]
    there = dataclasses.replace(around, device=cuda, teacher=around.teacher.to(cuda))
    found = embed(get_extractor(name, there), images)[0]
    assert found.device == CPU
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def put(monkeypatch: pytest.MonkeyPatch, folder: Path, contents: bytes) -> Path:
    """A file that passes for Inception's weights."""
    known = dataclasses.replace(weights.FILES["inception"], digest=hashlib.sha256(contents).hexdigest())
    monkeypatch.setattr(weights, "FILES", {"inception": known})
    folder.mkdir()
    (folder / known.file).write_bytes(contents)
    return folder / known.file


def test_missing_weights_are_told() -> None:
    said = complaint("inception")
    assert "weights-inception-2015-12-05-6726825d.pth (91.2 MiB) is missing" in said
    assert "run `dfkd weights fetch inception`" in said


def test_weights_of_another_network_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    file = put(monkeypatch, tmp_path / "named", (tmp_path / "other.pth").read_bytes())
    assert complaint("inception", metric_context(weights=file.parent)).startswith(f"{file} does not fit ")


def test_a_pickle_that_is_not_plain_tensors_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (Path.touch, (Path(tmp_path / "run"),))  # type: ignore[return-value]

    file = put(monkeypatch, tmp_path / "named", pickle.dumps({"weight": Bad()}))
    assert "cannot be read as a checkpoint of plain tensors" in complaint("inception", metric_context(weights=file))
    assert not (tmp_path / "run").exists()


def test_a_library_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    said = complaint("inception-random")
    assert said.startswith("the package torch-fidelity cannot be imported (")
    assert said.endswith("); run `pip install torch-fidelity`")


# ---- torchvision ---------------------------------------------------------------------------------------------------


def torchvision_file(folder: Path, file: str, model: str, **options: Any) -> tuple[Path, nn.Module]:
    """A weights file of one of its networks, and the network with these weights."""
    folder.mkdir(exist_ok=True)
    with torch.device("meta"):
        network: nn.Module = getattr(torchvision().models, model)(**options)
    found = random_weights(network)
    network.load_state_dict(found, assign=True)
    save_file(found, folder / file) if file.endswith(".safetensors") else torch.save(found, folder / file)
    return folder / file, network.eval().requires_grad_(False)


def as_imagenet(images: Tensor) -> Tensor:
    pixels = F.interpolate(rgb(images) / 255, (224, 224), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels - mean) / std


@pytest.mark.parametrize(
    ("file", "classes"),
    [("squeezenet1_1.pth", 1000), ("squeezenet1_1-b8a52dc0.pth", 1000), ("squeezenet1_1.safetensors", 7)],
)
def test_a_network_of_torchvision(file: str, classes: int, tmp_path: Path) -> None:
    _, network = torchvision_file(tmp_path / "named", file, "squeezenet1_1", num_classes=classes)
    images = pictures(2)
    extractor = get_extractor("torchvision/squeezenet1_1", metric_context(weights=tmp_path / "named"))
    features, logits = embed(extractor, images)
    assert features.shape == (2, 512)
    assert logits is not None
    assert torch.allclose(logits, network(as_imagenet(images)), rtol=1e-4, atol=1e-5)


def test_its_identity_is_that_of_its_file(tmp_path: Path) -> None:
    identities = []
    for classes in (5, 6):
        torchvision_file(tmp_path / "named", "squeezenet1_1.pth", "squeezenet1_1", num_classes=classes)
        extractor = get_extractor("torchvision/squeezenet1_1", metric_context(weights=tmp_path / "named"))
        identities.append(extractor.identity)
    assert identities[0] != identities[1]


def test_counters_of_old_files_may_be_missing_and_side_outputs_may_be_there(tmp_path: Path) -> None:
    file, network = torchvision_file(
        tmp_path / "named", "googlenet.pth", "googlenet", aux_logits=True, init_weights=False
    )
    content = torch.load(file, weights_only=True)
    assert any(name.startswith("aux1.") for name in content)
    torch.save({name: value for name, value in content.items() if not name.endswith("num_batches_tracked")}, file)
    network.transform_input = True  # type: ignore[assignment] # as torchvision has it for its own weights
    images = pictures(2)
    logits = embed(get_extractor("torchvision/googlenet", metric_context(weights=file)), images)[1]
    assert logits is not None
    assert torch.allclose(logits, network(as_imagenet(images)), rtol=1e-4, atol=1e-4)


def test_what_is_wrong_with_a_network_of_torchvision_is_told(tmp_path: Path) -> None:
    around = metric_context(weights=tmp_path / "named")
    said = complaint("torchvision/squeezenet1_1", around)
    assert said.startswith("no weights found for torchvision/squeezenet1_1: no squeezenet1_1.pth, squeezenet1_1-*.pth")
    assert str(tmp_path / "named") in said
    assert said.endswith(f"place such a file in {tmp_path / 'weights'}")
    assert "did you mean 'torchvision/squeezenet1_1'?" in complaint("torchvision/squeezenet11", around)
    assert "is a segmentation network" in complaint("torchvision/fcn_resnet50", around)
    file, _ = torchvision_file(tmp_path / "named", "squeezenet1_0.pth", "squeezenet1_0")
    file.rename(file.with_name("squeezenet1_1-0.pth"))
    assert "does not fit SqueezeNet" in complaint("torchvision/squeezenet1_1", around)
    torchvision_file(tmp_path / "named", "squeezenet1_1.pth", "squeezenet1_1")
    assert "several files with weights of squeezenet1_1" in complaint("torchvision/squeezenet1_1", around)
