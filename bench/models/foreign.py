"""Networks that are not the suite's: torchvision's by name, and a user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.image_spec import ImageSpec
from bench.errors import ImagesRefused, UserError, nearest
from bench.models.cost import bare_copy
from bench.models.source import own_file
from bench.utils.torchvision_compat import torchvision
from bench.utils.user_code import import_module

PREFIX = "torchvision/"


class Segmenter(nn.Module):
    """A segmentation network of torchvision that gives its logits (N, classes, H, W), and not a dictionary."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)["out"]
        return logits


def from_torchvision(name: str, image: ImageSpec, classes: int) -> nn.Module:
    """``torchvision/resnet18``: a classification or segmentation network, freshly initialised, without side outputs.

    Raises:
        UserError: there is no such network, or it does not take these images.
    """
    models = torchvision().models
    short = name.removeprefix(PREFIX)
    segmenters = models.list_models(module=models.segmentation)
    allowed = [*models.list_models(module=models), *segmenters]
    if short not in allowed:
        if short in models.list_models():
            raise UserError(f"{name} is not made for classification or segmentation")
        raise UserError(f"unknown network {name!r}{nearest(name, [PREFIX + each for each in allowed])}")
    if image.channels != 3:
        raise ImagesRefused(f"{name} takes images with 3 channels, not {image.channels}")
    options: dict[str, Any] = {}
    if short in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}  # left out, the second warns and is True
    elif short in segmenters:
        options = {"aux_loss": False, "weights_backbone": None}
    elif short.startswith("vit_"):
        options = {"image_size": image.size}
    elif short.startswith("maxvit_"):
        options = {"input_size": (image.size, image.size)}
    try:
        network: nn.Module = models.get_model(short, weights=None, num_classes=classes, **options)
    except (AssertionError, RuntimeError, ValueError) as error:  # those that must know the size refuse some
        raise ImagesRefused(f"{name} does not take {_geometry(image)} images: {_first_line(error)}") from error
    network = Segmenter(network) if short in segmenters else network
    _must_fit(name, network, image, classes)
    return network


def from_user(name: str, image: ImageSpec, classes: int) -> nn.Module:
    """``module:function`` or ``path/to/file.py:function``: what the function gives for ``(image, classes)``.

    Raises:
        UserError: no such module, file or function; it fails; or it gives no network for these images and classes.
    """
    _, network = call_own(name, image, classes)
    _must_fit(f"network {name!r}", network, image, classes)
    return network


def call_own(name: str, *arguments: object) -> tuple[Path, nn.Module]:
    """The file of ``module:function`` or ``path/to/file.py:function``, and the network that the function gives.

    Raises:
        UserError: no such module, file or function; it fails; or it gives no network.
    """
    file = own_file(name)
    if file is None:
        raise UserError(f"network {name!r}: write it as module:function or path/to/file.py:function")
    place, _, function = name.rpartition(":")
    module = import_module(file, None if place.endswith(".py") else place)
    make: Callable[..., object] | None = getattr(module, function, None)
    if not callable(make):
        functions = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise UserError(f"network {name!r}: {place} has no function {function!r}{nearest(function, functions)}")
    try:
        network = make(*arguments)
    except Exception as error:
        raise UserError(f"network {name!r}: {function} fails with {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"network {name!r}: {function} gives {type(network).__name__}, not a torch.nn.Module")
    return file, network


def _must_fit(name: str, network: nn.Module, image: ImageSpec, classes: int) -> None:
    """Complain now, and not in the middle of a trial, about images that a network does not take.

    Tried on a copy without storage, so that neither the network nor any random state is touched.
    """
    ghost = bare_copy(network).to("meta").eval()
    try:
        with torch.no_grad():
            answer = ghost(torch.empty(1, *image.shape, device="meta"))
    except Exception as error:
        raise ImagesRefused(f"{name} does not take {_geometry(image)} images: {_first_line(error)}") from error
    allowed = [(1, classes), (1, classes, image.size, image.size)]
    if not isinstance(answer, Tensor) or tuple(answer.shape) not in allowed:
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise UserError(f"{name} gives {found} for one image, neither {allowed[0]} nor {allowed[1]}")


def _geometry(image: ImageSpec) -> str:
    return "x".join(map(str, image.shape))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
