"""VGG for small images with batch norm, as CMI and Fast-DFKD have it.

The layers' names are those of the published checkpoints, so that these can be imported.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec
from bench.errors import ImagesRefused


class VGG(nn.Module):
    """Five blocks of 3x3 convolutions with batch norm and ReLU, a linear layer; logits (N, classes) out.

    2x2 pooling follows the first three blocks, and the fourth on 64x64 images alone. The features are the fifth
    block's output, averaged over all positions: 512 numbers. Convolutions are drawn from N(0, 2 / (9 * outputs)), the
    linear layer from N(0, 0.01^2); biases begin at 0.
    """

    def __init__(self, image: ImageSpec, classes: int, widths: Sequence[Sequence[int]]) -> None:
        super().__init__()
        if image.size < 8:
            raise ImagesRefused(f"VGG takes images of at least 8x8 pixels, not {image.size}x{image.size}")
        ends = [image.channels, *(block[-1] for block in widths)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = map(_block, ends, widths)
        self.classifier = nn.Linear(ends[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    @property
    def head(self) -> nn.Module:
        return self.classifier

    @property
    def layers(self) -> list[nn.Module]:
        """The batch norm of each convolution; the ReLU behind it works in place, so that its map is the one after."""
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def forward(self, images: Tensor) -> Tensor:
        pools = 4 if images.shape[2] == 64 else 3
        x = images
        for index, block in enumerate([self.block0, self.block1, self.block2, self.block3, self.block4]):
            x = F.relu(block(x), inplace=True)
            if index < pools:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _block(before: int, widths: Sequence[int]) -> nn.Sequential:
    """Convolution, batch norm and ReLU for each width, without the last ReLU: it is applied outside."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers[:-1])


def vgg8(image: ImageSpec, classes: int) -> VGG:
    """3,918,858 parameters, 5 batch norms and 96M multiply-adds for 10 classes on 3x32x32."""
    return VGG(image, classes, ([64], [128], [256], [512], [512]))


def vgg11(image: ImageSpec, classes: int) -> VGG:
    """9,231,114 parameters, 8 batch norms and 209M multiply-adds for 10 classes on 3x32x32."""
    return VGG(image, classes, ([64], [128], [256, 256], [512, 512], [512, 512]))


def vgg13(image: ImageSpec, classes: int) -> VGG:
    """9,416,010 parameters, 10 batch norms and 285M multiply-adds for 10 classes on 3x32x32."""
    return VGG(image, classes, ([64, 64], [128, 128], [256, 256], [512, 512], [512, 512]))
