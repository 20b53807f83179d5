"""Networks and generators: one module for each family, registered by name.

Nothing here trains, and nothing knows about tasks or methods. Importing this package imports no torch.

A network is named by the registry, or ``torchvision/resnet18`` for any classification or segmentation network of
torchvision, or ``module:function`` or ``path/to/file.py:function`` for a user's own, which is called with
``(image, classes)``.

A network's ``head`` is the module from its features to the logits: the features of a method's ``features=True`` are the
head's input, as the papers define them. Its last layer is the classifier. Networks with stages that a method may tap
(ResNets: the four stages; wide ResNets: the three groups; LeNets: the two poolings; vision transformers: the last block
of each third) list these modules as ``stages``.
Networks with more finely divided inner maps list all modules that make them as ``layers`` (ResNets, wide ResNets and
vision transformers: the blocks; VGGs: the convolutions, after ReLU; LeNets: convolution, batch norm and ReLU). Where a
task names these places itself (``taps``), they go before the network's own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.errors import Unsupported, UserError, nearest
from bench.models.taps import tapped

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.data.image_spec import ImageSpec

NETWORKS: Mapping[str, str] = {
    "lenet5": "bench.models.lenet:lenet5",
    "lenet5-half": "bench.models.lenet:lenet5_half",
    "lenet5bn": "bench.models.lenet:lenet5bn",
    "lenet5bn-half": "bench.models.lenet:lenet5bn_half",
    "hintonnet": "bench.models.hintonnet:hintonnet",
    "hintonnet-half": "bench.models.hintonnet:hintonnet_half",
    "alexnet": "bench.models.alexnet:alexnet",
    "alexnet-half": "bench.models.alexnet:alexnet_half",
    "resnet18": "bench.models.resnet:resnet18",
    "resnet34": "bench.models.resnet:resnet34",
    "resnet50": "bench.models.resnet:resnet50",
    "wrn16-1": "bench.models.wide_resnet:wrn16_1",
    "wrn16-2": "bench.models.wide_resnet:wrn16_2",
    "wrn40-1": "bench.models.wide_resnet:wrn40_1",
    "wrn40-2": "bench.models.wide_resnet:wrn40_2",
    "vgg8": "bench.models.vgg:vgg8",
    "vgg11": "bench.models.vgg:vgg11",
    "vgg13": "bench.models.vgg:vgg13",
    "vit-tiny": "bench.models.vit:vit_tiny",
    "vit-mini": "bench.models.vit:vit_mini",
    "deeplabv3-resnet50": "bench.models.deeplab:deeplabv3_resnet50",
    "deeplabv3-mobilenetv2": "bench.models.deeplab:deeplabv3_mobilenetv2",
    "unet": "bench.models.unet:unet",
    "unet-small": "bench.models.unet:unet_small",
}


WITHOUT_BATCH_NORM = frozenset(  # a test builds them all
    {"lenet5", "lenet5-half", "hintonnet", "hintonnet-half", "vit-tiny", "vit-mini"}
)


def has_batch_norm(name: str) -> bool | None:
    """Whether a network has batch-norm layers; None for those not in the registry, which must be built to know."""
    return name not in WITHOUT_BATCH_NORM if name in NETWORKS else None


WITHOUT_LAYERS = frozenset(
    {
        *("hintonnet", "hintonnet-half", "alexnet", "alexnet-half"),
        *("deeplabv3-resnet50", "deeplabv3-mobilenetv2", "unet", "unet-small"),
    }
)


def has_layers(name: str) -> bool | None:
    """Whether a network names its layers; None for those not in the registry, which must be built to know."""
    return name not in WITHOUT_LAYERS if name in NETWORKS else None


def check_name(name: str) -> None:
    """Raise UserError for a name that cannot be a network; of torchvision's and a user's own, ``build`` alone knows."""
    if name not in NETWORKS and not name.startswith("torchvision/") and ":" not in name:
        own = f"; name a function of it: {name}:FUNCTION" if name.endswith(".py") else nearest(name, NETWORKS)
        raise UserError(f"unknown network {name!r}{own}")


def build(name: str, image: ImageSpec, classes: int) -> nn.Module:
    """A network with fresh weights, drawn from torch's global random state.

    Raises:
        UserError: no such network, or it does not take these images.
    """
    if name.startswith("torchvision/"):
        from bench.models.foreign import from_torchvision

        return from_torchvision(name, image, classes)
    if ":" in name:
        from bench.models.foreign import from_user

        return from_user(name, image, classes)
    check_name(name)
    module, _, function = NETWORKS[name].partition(":")
    network: nn.Module = getattr(importlib.import_module(module), function)(image, classes)
    return network


def head(network: nn.Module) -> nn.Module:
    """The module whose input is the network's features.

    It is the one that the task names, or the network's ``head``. A network without either (torchvision's, a user's own)
    has its classifier for a head: the last of its linear layers and 1x1 convolutions.
    """
    from torch import nn

    if named := tapped(network, "head"):
        return next(iter(named.values()))
    found = getattr(network, "head", None)
    if isinstance(found, nn.Module):
        return found
    layer = _classifier(network)
    if layer is None:
        raise UserError(f"{type(network).__name__} has no `head`; its features are not defined")
    return layer


def stages(network: nn.Module) -> list[nn.Module]:
    """The modules whose outputs (N, C, h, w) are the network's groups, in the order of the forward pass.

    They are the network's ``stages``; empty for a network that names none.
    """
    named = tapped(network, "stages")
    return list(named.values()) if named else list(getattr(network, "stages", ()))


def layers(network: nn.Module) -> list[nn.Module]:
    """The modules whose outputs (N, C, h, w) are the network's inner maps, in the order of the forward pass.

    They are the network's ``layers``; empty for a network that names none.
    """
    named = tapped(network, "layers")
    return list(named.values()) if named else list(getattr(network, "layers", ()))


def classifier_weight(network: nn.Module) -> Tensor:
    """The weight (classes, features) of the classifier: a linear layer, or in segmentation a 1x1 convolution."""
    layer = _classifier(network)
    if layer is None:
        raise UserError(f"{type(network).__name__} has no linear layer; its class templates are not defined")
    return layer.weight.flatten(1)


def classifier_bias(network: nn.Module) -> Tensor | None:
    """The bias (classes,) of the classifier; None where it has none."""
    layer = _classifier(network)
    return None if layer is None else layer.bias


def linear_classifier(network: nn.Module) -> nn.Linear:
    """The classifier, where it is a linear layer: its input (N, D) are the network's penultimate features.

    Raises:
        Unsupported: it is a 1x1 convolution, or there is none.
    """
    from torch import nn

    layer = _classifier(network)
    if not isinstance(layer, nn.Linear):
        raise Unsupported(f"{type(network).__name__} does not end in a linear layer, which the method needs")
    return layer


def _classifier(network: nn.Module) -> nn.Linear | nn.Conv2d | None:
    """The linear layer or 1x1 convolution that was registered last, which is how networks are written down."""
    from torch import nn

    for module in reversed(list(network.modules())):
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
            return module
    return None
