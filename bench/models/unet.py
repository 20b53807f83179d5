"""A small U-Net for segmenting small images on two CPU cores. The suite's own; no paper uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec
from bench.errors import ImagesRefused


class UNet(nn.Module):
    """Works at half the images' size, with two more halvings and back; two 3x3 convolutions with batch norm at each.

    Images (N, channels, H, W) of any size from 8x8 on in, logits (N, classes, H, W) out, enlarged bilinearly at the
    end: at full size most of the time on a CPU would go into a few channels of many pixels. The features are the last
    maps (N, width, H/2, W/2), the input of a 1x1 convolution. Ten batch norms; initialisation is the framework's.
    """

    def __init__(self, image: ImageSpec, classes: int, width: int) -> None:
        super().__init__()
        if image.size < 8:
            raise ImagesRefused(f"U-Net takes images of at least 8x8 pixels, not {image.size}x{image.size}")
        a, b, c = width, 2 * width, 4 * width
        self.down = nn.ModuleList([_double(image.channels, a, stride=2), _double(a, b)])
        self.bottom = _double(b, c)
        self.grow = nn.ModuleList([nn.ConvTranspose2d(m, n, 2, stride=2) for m, n in ((c, b), (b, a))])
        self.up = nn.ModuleList([_double(c, b), _double(b, a)])
        self.head = nn.Conv2d(a, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        x, skips = images, []
        for layers in self.down:
            x = layers(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for grow, layers in zip(self.grow, self.up, strict=True):
            skip = skips.pop()
            larger = grow(x, output_size=skip.shape[-2:])  # one more row or column where halving dropped one
            x = layers(torch.cat([skip, larger], dim=1))
        return F.interpolate(self.head(x), images.shape[-2:], mode="bilinear", align_corners=False)


def _double(before: int, after: int, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, step in ((before, stride), (after, 1)):
        layers += [
            nn.Conv2d(channels, after, 3, step, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def unet(image: ImageSpec, classes: int) -> UNet:
    """117,429 parameters and 25.2M multiply-adds for 5 classes on 3x64x64."""
    return UNet(image, classes, 16)


def unet_small(image: ImageSpec, classes: int) -> UNet:
    """29,661 parameters and 6.4M multiply-adds for 5 classes on 3x64x64."""
    return UNet(image, classes, 8)
