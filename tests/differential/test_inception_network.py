"""The extractor ``inception`` beside torch-fidelity's and pytorch-fid's networks, all three from one weights file.

The file has random weights, so that nothing is downloaded. Our extractor is torch-fidelity's class, so that the same
bits are expected. pytorch-fid has the same network behind another door: it resizes with half-pixel centres where
TensorFlow 1 does not (and torch-fidelity follows it), and scales to x / 127.5 - 1 where TensorFlow's graph has
(x - 128) / 128. Both differences are shown and bounded here.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import data
from bench.metrics import weights
from bench.metrics.embedding import Extractor, embed, rgb
from bench.metrics.imagenet import inception, inception_network, library, random_weights

IMAGES = 4
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, in the form in which the official ones are published."""
    path = tmp_path_factory.mktemp("weights") / weights.FILES["inception"].file
    torch.save(random_weights(inception_network()), path)
    return path


@pytest.fixture(scope="module")
def ours(file: Path) -> Extractor:
    with pytest.MonkeyPatch.context() as patch:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        patch.setattr(weights, "FILES", {"inception": dataclasses.replace(weights.FILES["inception"], digest=digest)})
        return inception("inception", file.parent, CPU)


@pytest.fixture(scope="module")
def fidelity(file: Path) -> nn.Module:
    network: nn.Module = library("torch_fidelity").FeatureExtractorInceptionV3(
        "reference", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(file)
    )
    return network


@pytest.fixture(scope="module")
def make_pytorch_fid(file: Path) -> Callable[..., nn.Module]:
    module = library("pytorch_fid.inception")

    def make(**options: Any) -> nn.Module:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: torch.load(file, weights_only=True))
            network: nn.Module = module.InceptionV3([3], **options).eval()
        return network

    return make


@pytest.fixture(scope="module")
def pytorch_fid(make_pytorch_fid: Callable[..., nn.Module]) -> nn.Module:
    return make_pytorch_fid()


def noise() -> Tensor:
    return torch.randint(256, (IMAGES, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def real(name: str) -> Callable[[], Tensor]:
    return lambda: data.load(name, size=32).test.images[:IMAGES]


SETS = [
    pytest.param(noise, id="noise", marks=pytest.mark.slow),
    pytest.param(real("digits"), id="digits"),
    pytest.param(real("mnist"), id="mnist", marks=[pytest.mark.data("mnist"), pytest.mark.slow]),
]


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest value; `pytest -rP` shows it."""
    relative = ((found - wanted).abs().max() / wanted.abs().max()).item()
    print(f"relative difference {relative:.1e}")
    return relative


def resized(images: Tensor) -> Tensor:
    """Images of 299 pixels that no resize touches any more."""
    return F.interpolate(rgb(images).float(), (299, 299), mode="bilinear", align_corners=False).round().to(torch.uint8)


@torch.no_grad()
def features_of(network: nn.Module, images: Tensor) -> Tensor:
    found: Tensor = network(images)[0]
    return found.flatten(1)


@pytest.mark.parametrize("get", SETS)
def test_features_and_logits_are_those_of_torch_fidelity(
    get: Callable[[], Tensor], ours: Extractor, fidelity: nn.Module
) -> None:
    images = get()
    features, logits = embed(ours, images)
    assert logits is not None
    with torch.no_grad():
        wanted = fidelity(rgb(images))
    assert features.shape == (IMAGES, 2048)
    assert logits.shape == (IMAGES, 1008)
    assert difference(features, wanted[0]) <= 1e-6
    assert difference(logits, wanted[1]) <= 1e-6


@pytest.mark.parametrize("get", SETS[1:])
def test_pytorch_fid_has_the_same_network(
    get: Callable[[], Tensor], ours: Extractor, make_pytorch_fid: Callable[..., nn.Module]
) -> None:
    """On images of the network's own size, scaled alike."""
    images = resized(get())
    network = make_pytorch_fid(resize_input=False, normalize_input=False)
    found = difference(embed(ours, images)[0], features_of(network, (images.float() - 128) / 128))
    assert found <= 1e-4


@pytest.mark.slow
def test_pytorch_fid_scales_otherwise(ours: Extractor, pytorch_fid: nn.Module) -> None:
    """x / 127.5 - 1 against (x - 128) / 128: at most 1 / 128 of an input, and the features move about as much."""
    images = resized(real("digits")())
    found = difference(embed(ours, images)[0], features_of(pytorch_fid, images / 255))
    assert 1e-4 < found < 2e-2


@pytest.mark.parametrize("get", SETS[1:])
def test_pytorch_fid_resizes_otherwise(get: Callable[[], Tensor], ours: Extractor, pytorch_fid: nn.Module) -> None:
    """Small images are enlarged with other centres of pixels: the picture moves by up to half a pixel."""
    images = get()
    found = difference(embed(ours, images)[0], features_of(pytorch_fid, rgb(images) / 255))
    assert 1e-3 < found < 0.5


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch(ours: Extractor) -> None:
    images = real("digits")()
    together = embed(ours, images)
    for size in (1, 3):
        apart = embed(dataclasses.replace(ours, batch=size), images)
        assert difference(apart[0], together[0]) <= 1e-5
        assert apart[1] is not None
        assert together[1] is not None
        assert difference(apart[1], together[1]) <= 1e-5
