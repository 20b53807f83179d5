"""Perceptual distances beside those of the package lpips, for all three trunks.

The trunks have random weights in torchvision's form, so that nothing is downloaded; the linear layers are the
package's. Images below 64 pixels are enlarged here as the suite does it: what is compared is the distance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import data
from bench.metrics import weights
from bench.metrics.embedding import rgb
from bench.metrics.imagenet import library, random_weights
from bench.metrics.perceptual import Perceptual, get_perceptual, mean_pairwise, paired
from bench.utils.torchvision_compat import torchvision

CPU = torch.device("cpu")
TRUNKS = {"alex": ("alex", "alexnet"), "vgg16": ("vgg", "vgg16"), "squeeze": ("squeeze", "squeezenet1_1")}
IMAGES = 6


# VGG16 costs as much as everything else here
@pytest.fixture(scope="module", params=["alex", "squeeze", pytest.param("vgg16", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Perceptual, nn.Module]:
    """Ours, from a weights file of torchvision's form, and the package's, which asks torchvision for the network."""
    name: str = request.param
    net, model = TRUNKS[name]
    lpips = library("lpips")
    with torch.device("meta"):
        trunk = getattr(torchvision().models, model)()
    del trunk.classifier  # the largest part, of which neither has any use
    trunk.load_state_dict(random_weights(trunk), assign=True)
    file = tmp_path_factory.mktemp("weights") / weights.FILES[name].file
    torch.save(trunk.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(weights, "FILES", {name: dataclasses.replace(weights.FILES[name], digest=digest)})
        ours = get_perceptual(name, file.parent, CPU)
        patch.setattr(lpips.pretrained_networks.tv, model, lambda pretrained: trunk)
        theirs: nn.Module = lpips.LPIPS(net=net, version="0.1", verbose=False)
    return ours, theirs


def noise(count: int = IMAGES, size: int = 64) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def real(name: str) -> Callable[[], Tensor]:
    return lambda: data.load(name, size=32).test.images[:IMAGES]


SETS = [
    pytest.param(noise, id="noise"),
    pytest.param(lambda: noise(size=96), id="larger", marks=pytest.mark.slow),
    pytest.param(real("digits"), id="digits"),
    pytest.param(real("mnist"), id="mnist", marks=pytest.mark.data("mnist")),
]


def as_the_package_takes_them(images: Tensor) -> Tensor:
    pixels = rgb(images).float()
    if pixels.shape[-1] < 64:
        pixels = F.interpolate(pixels, (64, 64), mode="bilinear", align_corners=False)
    return pixels / 255 * 2 - 1


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest relative difference; `pytest -rP` shows it."""
    relative = ((found - wanted).abs() / wanted.abs()).max().item()
    print(f"relative difference {relative:.1e}")
    return relative


@pytest.mark.parametrize("get", SETS)
def test_distances_of_given_pairs(get: Callable[[], Tensor], pair: tuple[Perceptual, nn.Module]) -> None:
    ours, theirs = pair
    images = get()
    first, second = images[:-1], images[1:]
    with torch.no_grad():
        wanted = theirs(as_the_package_takes_them(first), as_the_package_takes_them(second)).flatten()
    assert difference(paired(ours, first, second), wanted) <= 1e-5


@pytest.mark.parametrize("get", SETS)
def test_the_mean_over_all_pairs_of_a_class(get: Callable[[], Tensor], pair: tuple[Perceptual, nn.Module]) -> None:
    """The closed form against every pair through the package's own forward."""
    ours, theirs = pair
    images, labels = get(), torch.tensor([0, 1, 0, 1, 0, 2])
    means, pairs = [], 0
    for k in (0, 1):
        members = as_the_package_takes_them(images[labels == k])
        first, second = zip(*itertools.combinations(members, 2), strict=True)
        with torch.no_grad():
            distances = theirs(torch.stack(first), torch.stack(second)).double()
        means.append(distances.mean())
        pairs += len(first)
    found, count = mean_pairwise(ours, images, labels)
    assert count == pairs == 4
    assert difference(torch.tensor(found), torch.stack(means).mean()) <= 1e-5
