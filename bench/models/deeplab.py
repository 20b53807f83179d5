"""DFAD's segmentation networks: DeepLabV3 on ResNet-50 (teacher) and on MobileNetV2 (student)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec
from bench.errors import ImagesRefused, UserError
from bench.models.mobilenet import mobilenet_v2
from bench.utils.torchvision_compat import torchvision


class DeepLab(nn.Module):
    """Images (N, channels, H, W) of any size in, logits (N, classes, H, W) out.

    The features are the backbone's output (N, 2048 or 320, H / 8, W / 8), the input of the head. The head is
    torchvision's, with the dilations of DFAD's code (12, 24 and 32, where 36 is usual) and dropout 0.5; its last
    layer is a 1x1 convolution to the classes. Its answer is enlarged bilinearly to the image's size.

    A batch norm of the head sees one number an image: a batch in training mode has at least two images.
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier: nn.Module = torchvision().models.segmentation.deeplabv3.DeepLabHead(
            channels, classes, (12, 24, 32)
        )

    @property
    def head(self) -> nn.Module:
        return self.classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.backbone(images))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def deeplabv3_resnet50(image: ImageSpec, classes: int) -> DeepLab:
    """39,636,299 parameters and 10.2G multiply-adds for 11 classes on 3x128x128.

    The last two stages have dilations 2 and 4 instead of strides. Initialisation is torchvision's; DFAD's teacher
    starts from ImageNet's weights, see :func:`load_backbone`.
    """
    if image.channels != 3:
        raise ImagesRefused(f"deeplabv3-resnet50 takes images with 3 channels, not {image.channels}")
    whole = torchvision().models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    parts = OrderedDict((name, part) for name, part in whole.named_children() if name not in ("avgpool", "fc"))
    return DeepLab(nn.Sequential(parts), 2048, classes)


def deeplabv3_mobilenetv2(image: ImageSpec, classes: int) -> DeepLab:
    """5,111,307 parameters and 1.4G multiply-adds for 11 classes on 3x128x128."""
    return DeepLab(mobilenet_v2(image.channels), 320, classes)


def load_backbone(network: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Fill the ResNet-50 of a ``deeplabv3-resnet50`` with torchvision's ImageNet weights; ``fc`` is ignored.

    Args:
        network: the network to fill.
        weights: torchvision's ``state_dict`` of its ResNet-50: ``conv1.weight`` to ``layer4.2.bn3.running_var``.
        file: where the weights are from, for messages.

    Raises:
        UserError: the network has no such backbone, or tensors are missing, superfluous or of another shape.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module) or not hasattr(backbone, "layer4"):
        raise UserError(f"{file}: only deeplabv3-resnet50 takes these weights, not {type(network).__name__}")
    # Files from before torch 0.4.1 lack this counter. It matters only for a momentum that torchvision does not use.
    needed = {name: value for name, value in backbone.state_dict().items() if not name.endswith("num_batches_tracked")}
    given = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    problems = [f"{name} is missing" for name in needed if name not in given]
    problems += [
        f"{name} is {tuple(given[name].shape)}, not {tuple(value.shape)}"
        for name, value in needed.items()
        if name in given and given[name].shape != value.shape
    ]
    problems += [f"{name} is unknown" for name in given if name not in backbone.state_dict()]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{file} does not match ResNet-50's backbone: {'; '.join(problems[:3])}{more}")
    backbone.load_state_dict(given, strict=False)
