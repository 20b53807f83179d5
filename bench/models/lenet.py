"""LeNet-5 and LeNet-5-half, as DAFL, DFAD, RDSKD and ZSKD use them (identical in the first three's reference code)."""

from __future__ import annotations

from torch import Tensor, nn

from bench.errors import UserError
from bench.task import ImageSpec


class LeNet(nn.Module):
    """Three 5x5 convolutions and two linear layers with ReLU; 32x32 images in, logits (N, classes) out.

    The features are the last convolution's flattened output, after ReLU (120 numbers for LeNet-5, 60 for the half),
    as in DAFL. Initialisation is the framework's default.
    """

    def __init__(self, image: ImageSpec, classes: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        if image.size != 32:
            raise UserError(f"LeNet-5 takes 32x32 images, not {image.size}x{image.size}")
        a, b, features, hidden = widths
        self.body = nn.Sequential(
            *(nn.Conv2d(image.channels, a, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(a, b, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(b, features, 5), nn.ReLU(), nn.Flatten()),
        )
        self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


def lenet5(image: ImageSpec, classes: int) -> LeNet:
    """61,706 parameters and 417k multiply-adds for 10 classes on 1x32x32."""
    return LeNet(image, classes, (6, 16, 120, 84))


def lenet5_half(image: ImageSpec, classes: int) -> LeNet:
    """15,738 parameters and 134k multiply-adds for 10 classes on 1x32x32."""
    return LeNet(image, classes, (3, 8, 60, 42))
