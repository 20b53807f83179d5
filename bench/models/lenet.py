"""LeNet-5 and LeNet-5-half, as DAFL, DFAD, RDSKD and ZSKD use them (identical in the first three's reference code).

The ``bn`` versions are the suite's own: the papers' LeNets have no batch norm, so that methods on batch-norm statistics
are not defined on them.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.data.image_spec import ImageSpec
from bench.errors import ImagesRefused


class LeNet(nn.Module):
    """Three 5x5 convolutions and two linear layers with ReLU; 32x32 images in, logits (N, classes) out.

    The features are the last convolution's flattened output, after ReLU (120 numbers for LeNet-5, 60 for the half),
    as in DAFL. Initialisation is the framework's default. With ``norm`` each convolution is followed by batch norm,
    before ReLU. :attr:`stages` are the two poolings, the last modules whose outputs have positions: 14x14 and 5x5.
    """

    def __init__(
        self, image: ImageSpec, classes: int, widths: tuple[int, int, int, int], *, norm: bool = False
    ) -> None:
        super().__init__()
        if image.size != 32:
            raise ImagesRefused(f"LeNet-5 takes 32x32 images, not {image.size}x{image.size}")
        a, b, features, hidden = widths
        self.body = nn.Sequential(
            *(*_convolution(image.channels, a, norm), nn.MaxPool2d(2)),
            *(*_convolution(a, b, norm), nn.MaxPool2d(2)),
            *(*_convolution(b, features, norm), nn.Flatten()),
        )
        self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    @property
    def stages(self) -> list[nn.Module]:
        return [module for module in self.body if isinstance(module, nn.MaxPool2d)]

    @property
    def layers(self) -> list[nn.Module]:
        """Everything between the poolings: each convolution, its batch norm if there is one, and its ReLU."""
        return [module for module in self.body if not isinstance(module, nn.MaxPool2d | nn.Flatten)]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


def _convolution(before: int, after: int, norm: bool) -> tuple[nn.Module, ...]:
    return (nn.Conv2d(before, after, 5), *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU())


def lenet5(image: ImageSpec, classes: int) -> LeNet:
    """61,706 parameters and 417k multiply-adds for 10 classes on 1x32x32."""
    return LeNet(image, classes, (6, 16, 120, 84))


def lenet5_half(image: ImageSpec, classes: int) -> LeNet:
    """15,738 parameters and 134k multiply-adds for 10 classes on 1x32x32."""
    return LeNet(image, classes, (3, 8, 60, 42))


def lenet5bn(image: ImageSpec, classes: int) -> LeNet:
    """LeNet-5 with three batch-norm layers: 61,990 parameters and 417k multiply-adds for 10 classes on 1x32x32."""
    return LeNet(image, classes, (6, 16, 120, 84), norm=True)


def lenet5bn_half(image: ImageSpec, classes: int) -> LeNet:
    """LeNet-5-half with batch norm: 15,880 parameters and 134k multiply-adds for 10 classes on 1x32x32."""
    return LeNet(image, classes, (3, 8, 60, 42), norm=True)
