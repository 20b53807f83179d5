"""Wide ResNets for 32x32 images, as in ZSKT's reference code; CMI and RDSKD copied it.

The layers' names are those of the published checkpoints, so that these can be imported.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec
from bench.errors import ImagesRefused


class WideBlock(nn.Module):
    """Batch norm and ReLU come before each of two 3x3 convolutions; nothing comes after the sum.

    Where the width changes, the shortcut too sees the input after the first batch norm and ReLU; elsewhere it is the
    identity. (N, before, H, W) in, (N, after, H / stride, W / stride) out.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.convShortcut = None if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        branch: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        return shortcut + branch


class WideResNet(nn.Module):
    """Three groups of ``(depth - 4) / 6`` blocks, 16k, 32k and 64k wide; 32x32 images in, logits (N, classes) out.

    The features are the last group's output after batch norm and ReLU, averaged 8x8: 64k numbers. :attr:`stages` are
    the three groups: their outputs, before the last batch norm, are where ZSKT taps attention. Convolutions are drawn
    from N(0, 2 / (9 * outputs)); the linear layer has the framework's weight and no bias at first.
    """

    def __init__(self, image: ImageSpec, classes: int, depth: int, k: int) -> None:
        super().__init__()
        if image.size != 32:
            raise ImagesRefused(f"Wide ResNets take 32x32 images, not {image.size}x{image.size}")
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(image.channels, 16, 3, padding=1, bias=False)
        self.block1 = _group(16, 16 * k, blocks, stride=1)
        self.block2 = _group(16 * k, 32 * k, blocks, stride=2)
        self.block3 = _group(32 * k, 64 * k, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * k)
        self.fc = nn.Linear(64 * k, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    @property
    def head(self) -> nn.Module:
        return self.fc

    @property
    def stages(self) -> list[nn.Module]:
        return [self.block1, self.block2, self.block3]

    @property
    def layers(self) -> list[nn.Module]:
        """All blocks."""
        return [module for module in self.modules() if isinstance(module, WideBlock)]

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images)
        for stage in self.stages:
            x = stage(x)
        x = F.relu(self.bn1(x), inplace=True)
        logits: Tensor = self.fc(F.avg_pool2d(x, 8).flatten(1))
        return logits


def _group(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    layers = [WideBlock(before, after, stride), *(WideBlock(after, after, 1) for _ in range(blocks - 1))]
    return nn.Sequential(OrderedDict(layer=nn.Sequential(*layers)))


def wrn16_1(image: ImageSpec, classes: int) -> WideResNet:
    """175,066 parameters, 13 batch norms and 26.7M multiply-adds for 10 classes on 3x32x32."""
    return WideResNet(image, classes, 16, 1)


def wrn16_2(image: ImageSpec, classes: int) -> WideResNet:
    """691,674 parameters, 13 batch norms and 101.1M multiply-adds for 10 classes on 3x32x32."""
    return WideResNet(image, classes, 16, 2)


def wrn40_1(image: ImageSpec, classes: int) -> WideResNet:
    """563,930 parameters, 37 batch norms and 83.3M multiply-adds for 10 classes on 3x32x32."""
    return WideResNet(image, classes, 40, 1)


def wrn40_2(image: ImageSpec, classes: int) -> WideResNet:
    """2,243,546 parameters, 37 batch norms and 327.6M multiply-adds for 10 classes on 3x32x32."""
    return WideResNet(image, classes, 40, 2)
