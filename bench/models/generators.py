"""Image generators of the papers: codes (N, latent) in, images (N, channels, size, size) in normalised space out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.data.image_spec import ImageSpec
from bench.errors import UserError


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
    start = _start(image, 4)
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


def dcgan_generator(latent: int, image: ImageSpec, width: int = 64) -> nn.Sequential:
    """DFAD's generator for 128x128 images, after DCGAN: a linear layer, four transposed convolutions, tanh.

    DFAD feeds tanh's output to networks whose data is normalised with mean 0.5 and deviation 0.5. With these the last
    module changes nothing; with others it maps tanh's range to the same pixels. Weights start as in
    :func:`dcgan_weights`. 11,243,203 parameters for codes of 256 and 3x128x128, 708M multiply-adds.

    Args:
        latent: length of a code (256 in the paper).
        image: the task's geometry; its size must be a multiple of 16.
        width: channels of the last layers (64 in the paper); the first have eight times as many.
    """
    start = _start(image, 16)
    layers: list[nn.Module] = [
        nn.Linear(latent, 8 * width * start * start),
        nn.Unflatten(1, (8 * width, start, start)),
        nn.BatchNorm2d(8 * width),
    ]
    for before, after in ((8, 4), (4, 2), (2, 1), (1, 1)):
        layers += [
            nn.ConvTranspose2d(before * width, after * width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after * width),
            nn.LeakyReLU(0.2),
        ]
    signed = Normalise([2 * mean - 1 for mean in image.mean], [2 * std for std in image.std])
    network = nn.Sequential(*layers, nn.Conv2d(width, image.channels, 3, padding=1), nn.Tanh(), signed)
    network.apply(dcgan_weights)
    return network


def cmi_generator(latent: int, image: ImageSpec, width: int = 128, *, large: bool = False) -> nn.Sequential:
    """CMI's and Fast-DFKD's generator, with ``large`` the one that CMI's library has for DAFL, ZSKT, DFAD and DFQ.

    DAFL's without biases in the hidden convolutions, and a sigmoid at its end: pixels in [0, 1], which the last module
    normalises. Initialisation is the framework's default; CMI redraws it in every round, as :func:`dcgan_weights`.
    2,328,899 parameters and 117M multiply-adds for codes of 256 and 3x32x32; large 4,581,955, and 8,776,259 for codes
    of 512.

    Args:
        latent: length of a code (256 in CMI and Fast-DFKD).
        image: the task's geometry; its size must be a multiple of 4.
        width: channels of the first convolution's output (128 in the papers); the last hidden layer has half of it.
        large: begin with twice as many channels.
    """
    start = _start(image, 4)
    first = 2 * width if large else width
    return nn.Sequential(
        nn.Linear(latent, first * start * start),
        nn.Unflatten(1, (first, start, start)),
        nn.BatchNorm2d(first),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(first, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, width // 2, 3, padding=1, bias=False),
        nn.BatchNorm2d(width // 2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width // 2, image.channels, 3, padding=1),
        nn.Sigmoid(),
        Normalise(image.mean, image.std),
    )


def zskt_generator(latent: int, image: ImageSpec, width: int = 128) -> nn.Sequential:
    """ZSKT's generator: DAFL's without tanh; the last batch norm has a scale and a shift.

    The images may leave the range of real pixels. This is the latest version of the paper's code; an earlier one began
    with maps of 10x10, enlarged 1.6 and 2 times, and its last batch norm had neither scale nor shift. Initialisation is
    the framework's default. 1,051,145 parameters for codes of 100 and 3x32x32.

    Args:
        latent: length of a code (100 in the paper).
        image: the task's geometry; its size must be a multiple of 4.
        width: channels of the first layers (128 in the paper); the last hidden layer has half of it.
    """
    start = _start(image, 4)
    return nn.Sequential(
        nn.Linear(latent, width * start * start),
        nn.Unflatten(1, (width, start, start)),
        nn.BatchNorm2d(width),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, width // 2, 3, padding=1),
        nn.BatchNorm2d(width // 2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width // 2, image.channels, 3, padding=1),
        nn.BatchNorm2d(image.channels),
    )


GENERATORS: Mapping[str, Callable[..., nn.Sequential]] = {
    "dafl": image_generator,
    "dcgan": dcgan_generator,
    "cmi": cmi_generator,
    "zskt": zskt_generator,
}


class Normalise(nn.Module):
    """(images - mean) / std, per channel; (N, channels, H, W) in and out."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def dcgan_weights(module: nn.Module) -> None:
    """For ``network.apply``: weights from N(0, 0.02^2), of batch norm from N(1, 0.02^2), biases 0."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _start(image: ImageSpec, factor: int) -> int:
    """Height and width of the first maps of a generator that enlarges them ``factor`` times."""
    if image.size % factor:
        raise UserError(f"this generator makes images whose size is a multiple of {factor}, not {image.size}")
    return image.size // factor
