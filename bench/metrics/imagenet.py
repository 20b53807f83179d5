"""The large networks that image metrics look through, trained on ImageNet or with random weights.

torch-fidelity's own classes are taken, with their own resizing; what is done here is to give them weights. They are
built on the meta device, so that nothing is drawn or stored twice, and a file is read as plain tensors only.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.batches import normalise
from bench.data.image_spec import ImageSpec
from bench.errors import MissingWeights, Unavailable, UserError
from bench.harness.teachers.cache import weights_hash
from bench.metrics.embedding import ANTIALIASED, Embedding, Extractor, identity_of, resized, rgb, tapped
from bench.metrics.weights import find_weights, own_folder, sha256_of, weights_folders
from bench.models import head
from bench.models.foreign import PREFIX, from_torchvision
from bench.models.loading import COUNTER, fit, read_weights
from bench.spec.metric_names import RANDOM
from bench.utils.rng import derive
from bench.utils.torchvision_compat import torchvision

SEED = 2015  # of all random weights; the year of Inception's and of He's initialisation
IMAGENET = ImageSpec(channels=3, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
RESIZE = "grey repeated to 3 channels; resized to {0}x{0} as TensorFlow 1 (torch-fidelity; bilinear, not antialiased)"
SIDE_OUTPUTS = re.compile(r"AuxLogits\.|aux[12]\.")  # of googlenet and inception_v3, used in training only


def library(name: str) -> Any:
    """A library of metrics; Unavailable where it is not installed."""
    torchvision()  # it imports this one, which needs help on some builds
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise Unavailable(f"the package {package} cannot be imported ({error}); run `pip install {package}`") from None


def random_weights(network: nn.Module, seed: int = SEED) -> dict[str, Tensor]:
    """Weights for a network, which may lie on the meta device: variance-scaled, the same in every process.

    Normal with variance 2 / fan-in (He et al., 2015), which keeps the scale of activations through ReLUs; biases 0;
    batch norm with mean 0, variance 1, weight 1. Each tensor has its own random stream, by its name.
    """
    weights = {}
    for name, like in network.state_dict().items():
        shape, last = like.shape, name.rpartition(".")[2]
        if len(shape) > 1:
            stream = torch.Generator().manual_seed(derive(seed, name))
            weights[name] = torch.randn(shape, generator=stream).mul_((2 / shape[1:].numel()) ** 0.5)
        elif last == COUNTER:
            weights[name] = torch.zeros(shape, dtype=torch.long)
        else:
            weights[name] = torch.ones(shape) if last in ("weight", "running_var") else torch.zeros(shape)
    return weights


def inception(name: str, chosen: Path | None, device: torch.device) -> Extractor:
    """``inception``: torch-fidelity's network, 2048 features and logits of 1008 classes without bias.

    ``inception-random``: the same with random weights. ``chosen`` is where to look first for the file.

    Raises:
        MissingWeights: the file is missing.
        UserError: it does not fit.
    """
    network = inception_network()
    kind, digest = _fill(name, network, chosen)
    network.to(device)
    preprocessing = f"{RESIZE.format(299)}; (x - 128) / 128"

    def run(images: Tensor) -> Embedding:
        features, logits = network(rgb(images.to(device)))
        return features, logits

    return Extractor(name, identity_of(kind, digest, preprocessing), preprocessing, _batch(device), run)


def vgg16(name: str, chosen: Path | None, device: torch.device) -> Extractor:
    """``vgg16``: torch-fidelity's network, the 4096 features of the second linear layer after ReLU, no logits.

    ``vgg16-random``: the same with random weights. Raises as :func:`inception`.
    """
    network = vgg16_network()
    kind, digest = _fill(name, network, chosen)
    network.to(device)
    preprocessing = f"{RESIZE.format(224)}; {_standardised()}"

    def run(images: Tensor) -> Embedding:
        return network(rgb(images.to(device)))[0], None

    return Extractor(name, identity_of(kind, digest, preprocessing), preprocessing, _batch(device), run)


def inception_network() -> nn.Module:
    """torch-fidelity's Inception on the meta device, to be given weights."""
    fidelity = library("torch_fidelity")

    class Unfilled(fidelity.FeatureExtractorInceptionV3):  # type: ignore[misc, name-defined]
        def load_state_dict(self, state_dict: Mapping[str, Tensor], *rest: Any, **more: Any) -> Any:
            """Its constructor loads a file, here an empty one."""
            return super().load_state_dict(state_dict, *rest, **more) if state_dict else None

    with torch.device("meta"):
        network: nn.Module = Unfilled("dfkd", ["2048", "logits_unbiased"], feature_extractor_weights_path=_file({}))
    return network


def vgg16_network() -> nn.Module:
    """torch-fidelity's VGG-16 on the meta device, to be given weights."""
    fidelity = library("torch_fidelity")
    with torch.device("meta"):
        weights = _file(torchvision().models.vgg16().state_dict())
        network: nn.Module = fidelity.FeatureExtractorVGG16(
            "dfkd", ["fc2_relu"], feature_extractor_weights_path=weights
        )
    return network


def _file(content: object) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return buffer


def _fill(name: str, network: nn.Module, chosen: Path | None) -> tuple[str, str]:
    """Give a network the weights of the file, or random ones; returns their kind and hash."""
    base = name.removesuffix(RANDOM)
    if name != base:
        fit(network, random_weights(network), name, assign=True)
        return f"torch-fidelity {base}", weights_hash(network)
    file = find_weights(base, chosen)
    weights = read_weights(file)
    if base == "vgg16":  # the class keeps the network in an attribute, without its last layer
        weights = {f"model.{key}": value for key, value in weights.items() if not key.startswith("classifier.6.")}
    fit(network, weights, file, assign=True)
    return f"torch-fidelity {base}", sha256_of(file)


def of_torchvision(name: str, chosen: Path | None, device: torch.device) -> Extractor:
    """``torchvision/NAME``: a classification network with the weights of a file ``NAME.pth``, ``NAME-*.pth`` or
    ``NAME.safetensors``; the input of its classifier, and its logits.

    Raises:
        MissingWeights: there is no such file.
        UserError: there is no such network, or the file does not fit it.
    """
    short = name.removeprefix(PREFIX)
    models = torchvision().models
    if short in models.list_models(module=models.segmentation):
        raise UserError(f"{name} is a segmentation network; an extractor must be a classification network")
    network = _fresh(name, 1000)  # complains about a wrong name before any file is looked for
    file = _file_of(short, chosen)
    weights = {key: value for key, value in read_weights(file).items() if not SIDE_OUTPUTS.match(key)}
    layer = next(key for key, module in network.named_modules() if module is head(network))
    classes = len(weights.get(f"{layer}.weight", range(1000)))
    network = network if classes == 1000 else _fresh(name, classes)
    fit(network, weights, file)
    if hasattr(network, "transform_input"):
        # what torchvision does for the weights of googlenet and inception_v3
        network.transform_input = True  # type: ignore[assignment]
    answer = tapped(network.eval().requires_grad_(False).to(device))
    preprocessing = f"grey repeated to 3 channels; {ANTIALIASED.format(IMAGENET.size)}; {_standardised()}"

    def run(images: Tensor) -> Embedding:
        return answer(normalise(resized(rgb(images.to(device)).float(), IMAGENET.size), IMAGENET))

    return Extractor(name, identity_of(name, sha256_of(file), preprocessing), preprocessing, _batch(device), run)


def _fresh(name: str, classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        return from_torchvision(name, IMAGENET, classes)


def _file_of(short: str, chosen: Path | None) -> Path:
    patterns = (f"{short}.pth", f"{short}-*.pth", f"{short}.safetensors")
    places = weights_folders(chosen)
    for place in places:
        files = [place] if place.is_file() else sorted(place.iterdir()) if place.is_dir() else []
        found = [file for file in files if any(file.match(pattern) for pattern in patterns)]
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise UserError(f"{place} has several files with weights of {short}: {names}; name one with --weights")
        if found:
            return found[0]
    raise MissingWeights(
        f"no weights found for {PREFIX}{short}: no {', '.join(patterns)} in {', '.join(map(str, places))}; "
        f"place such a file in {own_folder()}"
    )


def _standardised() -> str:
    mean, std = (", ".join(map(str, values)) for values in (IMAGENET.mean, IMAGENET.std))
    return f"(x / 255 - ({mean})) / ({std})"


def _batch(device: torch.device) -> int:
    return 64 if device.type == "cuda" else 8  # on the CPU more are not faster, and 16 take 300 MB
