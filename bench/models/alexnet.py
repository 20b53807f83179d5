"""ZSKD's AlexNet and AlexNet-half for CIFAR-10, after its TensorFlow code (vcl-iisc/ZSKD).

ZSKD's images are in [0, 1] without normalisation: the task's mean is 0 and its std 1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.image_spec import ImageSpec
from bench.errors import ImagesRefused


class ResponseNorm(nn.Module):
    """TensorFlow's response normalisation: x / (1 + 1e-4 * sum of squares over 5 neighbouring channels) ** 0.75.

    (N, channels, H, W) in and out. ``nn.LocalResponseNorm(5, 5e-4)`` computes the same (torch multiplies the mean over
    the window by alpha, TensorFlow the sum), but takes four times as long on a CPU: most of a step of this network.
    """

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
        total = sum((squares[:, shift : shift + channels] for shift in range(1, 5)), squares[:, :channels])
        base = 1 + 1e-4 * total
        return x / (base * base * base).sqrt().sqrt()  # faster than a power of 0.75


class AlexNet(nn.Module):
    """Five convolutions and three linear layers; 32x32 images in, logits (N, classes) out.

    Each convolution is followed by ReLU, response normalisation (the first two), pooling (first, second and last) and
    batch norm, in this order; each hidden linear layer by ReLU, dropout and batch norm. Seven batch-norm layers. The
    features are the input of the last linear layer (256 numbers, 128 for the half). All weights are drawn from
    N(0, 0.01^2); the biases of the second, fourth and fifth convolution begin at 1, the others at 0.
    """

    def __init__(self, image: ImageSpec, classes: int, widths: tuple[int, int, int, int, int, int, int]) -> None:
        super().__init__()
        if image.size != 32:
            raise ImagesRefused(f"AlexNet takes 32x32 images, not {image.size}x{image.size}")
        a, b, c, d, e, f, g = widths
        self.convolutions = nn.Sequential(
            *_convolution(image.channels, a, 5, bias=0.0, lrn=True, pool=True),  # 32 -> 15
            *_convolution(a, b, 5, bias=1.0, lrn=True, pool=True),  # 15 -> 7
            *_convolution(b, c, 3, bias=0.0),
            *_convolution(c, d, 3, bias=1.0),
            *_convolution(d, e, 3, bias=1.0, pool=True),  # 7 -> 3
        )
        self.hidden = nn.Sequential(*_linear(3 * 3 * e, f), *_linear(f, g))
        self.head = nn.Linear(g, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolutions(images)
        flat = maps.permute(0, 2, 3, 1).flatten(1)  # height, width, channel: the order of TensorFlow's weights
        logits: Tensor = self.head(self.hidden(flat))
        return logits


def _convolution(
    before: int, after: int, kernel: int, *, bias: float, lrn: bool = False, pool: bool = False
) -> tuple[nn.Module, ...]:
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2)  # with stride 1 this is TensorFlow's SAME
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]
    return (
        *(layer, nn.ReLU()),
        *([ResponseNorm()] if lrn else []),
        *([nn.MaxPool2d(3, stride=2)] if pool else []),
        nn.BatchNorm2d(after, eps=1e-3, momentum=1e-3),  # TensorFlow's decay of 0.999
    )


def _linear(before: int, after: int) -> tuple[nn.Module, ...]:
    layer = nn.Linear(before, after)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer, nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(after, eps=1e-3, momentum=1e-3)


def alexnet(image: ImageSpec, classes: int) -> AlexNet:
    """1,659,178 parameters and 76.9M multiply-adds for 10 classes on 3x32x32."""
    return AlexNet(image, classes, (48, 128, 192, 192, 128, 512, 256))


def alexnet_half(image: ImageSpec, classes: int) -> AlexNet:
    """417,434 parameters and 20.1M multiply-adds for 10 classes on 3x32x32."""
    return AlexNet(image, classes, (24, 64, 96, 96, 64, 256, 128))
