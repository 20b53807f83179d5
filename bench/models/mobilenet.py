"""The MobileNetV2 of DFAD's segmentation student, without a classifier.

It differs from torchvision's in its dilations and in where it pads. The layers' names are those of DFAD's checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

# Expansion, channels, blocks, stride of the first block. The product of the strides is limited to 8.
GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution, 1x1 projection; (N, before, H, W) in, (N, after, ...) out.

    DFAD's quirk: the block's INPUT is padded for the depthwise convolution. The expansion's batch norm then turns the
    zeros of the border into other numbers. The sum takes the input without padding.
    """

    def __init__(self, before: int, after: int, stride: int, dilation: int, expansion: int) -> None:
        super().__init__()
        hidden = before * expansion
        expand = [nn.Conv2d(before, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(
            *(expand if expansion > 1 else []),
            nn.Conv2d(hidden, hidden, 3, stride, dilation=dilation, groups=hidden, bias=False),
            *(nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(hidden, after, 1, bias=False), nn.BatchNorm2d(after)),
        )
        self.padding = dilation
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, [self.padding] * 4))
        return x + out if self.adds else out


def mobilenet_v2(channels: int) -> nn.Sequential:
    """Images (N, channels, H, W) in, maps (N, 320, H / 8, W / 8) out.

    At a total stride of 8, later ones become dilation, from the next group on: 64 channels run at dilation 1, 96
    and 160 at 2, 320 at 4. Convolutions are drawn after Kaiming (normal, fan in).
    """
    layers: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(channels, 32, 3, 2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(inplace=True))
    ]
    before, total, rate = 32, 2, 1
    for expansion, width, blocks, step in GROUPS:
        if total == 8:
            stride, dilation, rate = 1, rate, rate * step
        else:
            stride, dilation, total = step, 1, total * step
        for index in range(blocks):
            layers.append(InvertedResidual(before, width, stride if index == 0 else 1, dilation, expansion))
            before = width
    network = nn.Sequential(OrderedDict(features=nn.Sequential(*layers)))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network
