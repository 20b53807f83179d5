"""LPIPS as diversity: how far apart images are to the eye (Zhang et al., 2018), over all pairs in one pass.

The distance is d(x, y) = sum over layers of the mean over positions of sum_c w_c (phi_c(x) - phi_c(y))^2, with features
phi of unit length at each position. It is a weighted squared Euclidean distance, so that for n images

    sum over pairs i < j of d(i, j) = n * sum_i q(phi_i) - q(sum_i phi_i),    q(phi) = sum_c w_c phi_c^2,

which takes one look at each image instead of n (n - 1) / 2 at pairs. It holds for weights w of any sign, and for
features from which a constant was subtracted: here those of the class's first image, so that images that are alike do
not drown in rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import Unavailable, UserError, nearest
from bench.harness.teachers.cache import weights_hash
from bench.metrics.embedding import check_images, exactly, identity_of, rgb
from bench.metrics.imagenet import library, random_weights
from bench.metrics.weights import find_weights, sha256_of
from bench.models.loading import fit, read_weights
from bench.spec.metric_names import PERCEPTUAL, RANDOM

SMALLEST = 64  # pixels: of smaller images AlexNet's and SqueezeNet's strides and pools would leave nothing
BATCH = 32  # images at a time
PREPROCESSING = (
    f"grey repeated to 3 channels; below {SMALLEST} pixels enlarged to {SMALLEST} (bilinear); scaled to [-1, 1]"
)
IN_LIBRARY = {"alex": "alex", "vgg16": "vgg", "squeeze": "squeeze"}


@dataclass(frozen=True)
class Perceptual:
    """A network of perceptual distances.

    ``embed`` takes uint8 images (N, C, H, W) and gives each layer's features, (N, c, h, w), of unit length over c.
    ``weights``: what each of a layer's c channels counts for.
    """

    name: str
    identity: str  # sha256 over trunk, linear layers and preprocessing
    preprocessing: str  # in words, for the record
    batch: int  # images at a time, so that memory stays small
    weights: tuple[Tensor, ...]  # float64 (c,) for each layer
    embed: Callable[[Tensor], Sequence[Tensor]]


def get_perceptual(name: str, weights: Path | None, device: torch.device) -> Perceptual:
    """LPIPS 0.1 through ``alex``, ``vgg16`` or ``squeeze``, with its official linear layers.

    The trunk's weights are torchvision's file, or in the ``-random`` versions random. ``weights`` is where to look
    first for the file.

    Raises:
        Unavailable: there is no such network, or its weights or the library are not to be had.
    """
    if name not in PERCEPTUAL:
        raise Unavailable(f"unknown network of perceptual distances {name!r}{nearest(name, PERCEPTUAL)}")
    try:
        network, digest = _network(name, weights)
    except UserError as error:
        raise Unavailable(str(error)) from None
    lpips, network = library("lpips"), network.to(device)

    def embed(images: Tensor) -> Sequence[Tensor]:
        pixels = enlarged(rgb(images.to(device)).float()) / 127.5 - 1
        layers = network.net(network.scaling_layer(pixels))
        return [lpips.normalize_tensor(layer) for layer in layers]

    linear = tuple(layer.model[-1].weight.flatten().double() for layer in network.lins)
    return Perceptual(name, identity_of("lpips 0.1", digest, PREPROCESSING), PREPROCESSING, BATCH, linear, embed)


def enlarged(images: Tensor) -> Tensor:
    """float images (N, C, H, W) with at least :data:`SMALLEST` pixels on each side."""
    height, width = images.shape[-2:]
    if min(height, width) >= SMALLEST:
        return images
    size = (max(height, SMALLEST), max(width, SMALLEST))
    return F.interpolate(images, size, mode="bilinear", align_corners=False)


def _network(name: str, chosen: Path | None) -> tuple[Any, str]:
    """lpips's own module with weights in it, on the CPU, and the hash of all of them."""
    lpips = library("lpips")
    base = name.removesuffix(RANDOM)
    net = IN_LIBRARY[base]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated|Arguments other than a weight enum")
        network: Any = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    network.scaling_layer = lpips.ScalingLayer()  # its constants are set, not loaded
    linear = read_weights(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth")
    for key, layer in network.named_children():
        if key.startswith("lin") and key != "lins":
            fit(layer, {part: linear[f"{key}.{part}"] for part in layer.state_dict()}, "lpips", assign=True)
    trunk = network.net
    if name != base:
        fit(trunk, random_weights(trunk), name, assign=True)
    else:
        file = find_weights(base, chosen)
        there = read_weights(file)
        # A slice keeps the place of each layer in torchvision's network: slice2.3.weight is features.3.weight.
        wanted = {key: f"features.{key.partition('.')[2]}" for key in trunk.state_dict()}
        fit(trunk, {key: there[old] for key, old in wanted.items() if old in there}, file, assign=True)
    network.eval().requires_grad_(False)
    return network, weights_hash(network) if name != base else sha256_of(file)


def mean_pairwise(perceptual: Perceptual, images: Tensor, labels: Tensor | None) -> tuple[float, int]:
    """Mean distance of all pairs of images with equal labels, and the number of pairs.

    The mean over all pairs of a class, then over the classes that have at least one pair. Without labels, over all
    pairs of images.

    Args:
        perceptual: the network.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), or None.

    Raises:
        ValueError: these are no images, the labels do not fit them, or no two images have the same label.
    """
    check_images(images)
    if labels is None:
        labels = torch.zeros(len(images), dtype=torch.long)
    if labels.shape != (len(images),):
        raise ValueError(f"labels must have shape ({len(images)},), one for each image, not {tuple(labels.shape)}")
    classes = [index for k in labels.unique() if len(index := torch.nonzero(labels == k).flatten()) > 1]
    if not classes:
        raise ValueError("no two images have the same label: there is no pair to measure")
    means, pairs = [], 0
    for index in classes:
        count = len(index) * (len(index) - 1) // 2
        means.append(_sum_over_pairs(perceptual, images[index]) / count)
        pairs += count
    return sum(means) / len(means), pairs


def _sum_over_pairs(perceptual: Perceptual, images: Tensor) -> float:
    with exactly():
        origin = [layer[0].double() for layer in perceptual.embed(images[:1])]
        sums = [torch.zeros_like(layer) for layer in origin]
        squares = [torch.zeros(len(layer), dtype=torch.float64, device=layer.device) for layer in origin]
        for batch in images.split(perceptual.batch):
            for place, layer in enumerate(perceptual.embed(batch)):
                moved = layer.double() - origin[place]
                sums[place] += moved.sum(0)
                squares[place] += moved.square().mean((2, 3)).sum(0)
        total = sum(
            (weight * (len(images) * square - whole.square().mean((1, 2)))).sum().item()
            for weight, square, whole in zip(perceptual.weights, squares, sums, strict=True)
        )
    return float(total)


def paired(perceptual: Perceptual, first: Tensor, second: Tensor) -> Tensor:
    """Distances of given pairs, float64 (N,) on the CPU: of ``first[i]`` and ``second[i]``, uint8 (N, C, H, W).

    Raises:
        ValueError: these are no images, or not pairs of one shape.
    """
    check_images(first)
    if first.shape != second.shape or first.dtype != second.dtype:
        raise ValueError(f"pairs need images of one shape, not {tuple(first.shape)} and {tuple(second.shape)}")
    found = []
    with exactly():
        for one, other in zip(first.split(perceptual.batch), second.split(perceptual.batch), strict=True):
            layers = zip(perceptual.embed(one), perceptual.embed(other), perceptual.weights, strict=True)
            each = [(a.double() - b.double()).square().mean((2, 3)) @ weight for a, b, weight in layers]
            found.append(torch.stack(each).sum(0).cpu())
    return torch.cat(found)
