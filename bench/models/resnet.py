"""ResNet-18, -34 and -50 for small images, the "8x" variant of DAFL, DFAD, CMI, Fast-DFKD, RDSKD and DeepInversion.

The blocks compute what torchvision's do. They are written out because the layers' names are those of the papers'
published checkpoints, so that these can be imported.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; (N, before, H, W) in, (N, width, H / stride, W / stride) out."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(before, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution with a shortcut; four times ``width`` channels out."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = self.expansion * width
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.shortcut = _shortcut(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out)) + self.shortcut(x)
        return F.relu(out, inplace=True)


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential:
    """The identity, or a 1x1 convolution with batch norm where the shape changes."""
    if stride == 1 and before == after:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class ResNet(nn.Module):
    """A 3x3 stem without pooling and four stages; images (N, channels, H, W) in, logits (N, classes) out.

    The features are the last stage's output, averaged over all positions as in CMI (DAFL and DFAD average 4x4, which
    is the same on 32x32 images): 512 numbers, 2,048 for ResNet-50. :attr:`stages` are the four stages: the output of
    each is a module's output, after ReLU. Initialisation is the framework's default, as in DAFL, CMI, RDSKD and
    DeepInversion; DFAD alone draws the convolutions after Kaiming.
    """

    def __init__(
        self, image: ImageSpec, classes: int, block: type[BasicBlock] | type[Bottleneck], blocks: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image.channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        e = block.expansion
        self.layer1 = _stage(block, 64, 64, blocks[0], stride=1)
        self.layer2 = _stage(block, 64 * e, 128, blocks[1], stride=2)
        self.layer3 = _stage(block, 128 * e, 256, blocks[2], stride=2)
        self.layer4 = _stage(block, 256 * e, 512, blocks[3], stride=2)
        self.linear = nn.Linear(512 * e, classes)

    @property
    def head(self) -> nn.Module:
        return self.linear

    @property
    def stages(self) -> list[nn.Module]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    @property
    def layers(self) -> list[nn.Module]:
        """All blocks."""
        return [block for stage in self.stages for block in stage.children()]

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _stage(
    block: type[BasicBlock] | type[Bottleneck], before: int, width: int, blocks: int, stride: int
) -> nn.Sequential:
    rest = [block(width * block.expansion, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(block(before, width, stride), *rest)


def resnet18(image: ImageSpec, classes: int) -> ResNet:
    """11,173,962 parameters, 20 batch norms and 555M multiply-adds for 10 classes on 3x32x32."""
    return ResNet(image, classes, BasicBlock, (2, 2, 2, 2))


def resnet34(image: ImageSpec, classes: int) -> ResNet:
    """21,282,122 parameters, 36 batch norms and 1,159M multiply-adds for 10 classes on 3x32x32."""
    return ResNet(image, classes, BasicBlock, (3, 4, 6, 3))


def resnet50(image: ImageSpec, classes: int) -> ResNet:
    """23,520,842 parameters, 53 batch norms and 1,298M multiply-adds for 10 classes on 3x32x32."""
    return ResNet(image, classes, Bottleneck, (3, 4, 6, 3))
