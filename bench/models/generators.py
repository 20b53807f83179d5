"""Image generators of the papers."""

from __future__ import annotations

from torch import nn

from bench.errors import UserError
from bench.task import ImageSpec


def image_generator(
    latent: int, image: ImageSpec, width: int = 128, *, eps: float = 1e-5, whiten: bool = True
) -> nn.Sequential:
    """DAFL's and DFAD's generator: a linear layer, two up-samplings by 2, three 3x3 convolutions, tanh.

    Codes (N, latent) in, images (N, channels, size, size) in normalised space out. With ``whiten`` a last batch norm
    without scale and shift gives every channel zero mean and unit variance over the batch: the images may leave the
    range of real pixels. DAFL passes 0.8 as the epsilon of the two inner batch norms (its code's second positional
    argument), DFAD keeps the default.

    Args:
        latent: length of a code.
        image: the task's geometry; its size must be a multiple of 4.
        width: channels of the first layers (128 in the papers); the last hidden layer has half of it.
        eps: epsilon of the two batch norms between the convolutions.
        whiten: end in a batch norm without scale and shift.
    """
    if image.size % 4:
        raise UserError(f"this generator makes images whose size is a multiple of 4, not {image.size}")
    start = image.size // 4
    return nn.Sequential(
        nn.Linear(latent, width * start * start),
        nn.Unflatten(1, (width, start, start)),
        nn.BatchNorm2d(width),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width, eps),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, width // 2, 3, padding=1),
        nn.BatchNorm2d(width // 2, eps),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width // 2, image.channels, 3, padding=1),
        nn.Tanh(),
        nn.BatchNorm2d(image.channels, affine=False) if whiten else nn.Identity(),
    )
