"""Generative pseudo replay (PRE-DFKD): networks and losses of a small VAE that remembers a generator's earlier images.

The novel generator makes new images; the memory generator G_m, the VAE's decoder, learns to make images like those of
earlier rounds again. Only weights are stored, no images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from bench import Session, image_generator


def novel_generator(s: Session, latent: int, width: int, eps: float, init: float) -> nn.Sequential:
    """DAFL's generator with spectral normalisation on its three convolutions."""
    network = memory_generator(s, latent, width, eps, init)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            spectral_norm(layer)
    return network


def memory_generator(s: Session, latent: int, width: int, eps: float, init: float) -> nn.Sequential:
    """DAFL's generator: codes (N, latent) in, images in normalised space out."""
    return uniform_weights(image_generator(latent, s.task.image, width, eps=eps), init)


def encoder(s: Session, latent: int, width: int, eps: float, init: float) -> nn.Sequential:
    """Images (N, C, size, size) in, mean and log-variance of a code side by side (N, 2 * latent) out.

    Maps shrink to about an eighth: 32 to 4, 28 to 3. The reference code knows 32x32 images only.

    Args:
        s: of the task whose images are encoded.
        latent: length of a code (1,000 in the paper).
        width: channels of the last convolutions (128 in the paper); the first has half of it.
        eps: epsilon of the first two batch norms (0.8 in the reference code); the last has the framework's.
        init: see :func:`uniform_weights`.
    """
    image = s.task.image
    network = nn.Sequential(
        UnitColumns(),
        nn.Conv2d(image.channels, width // 2, 3, padding=1),
        nn.BatchNorm2d(width // 2, eps),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width // 2, width, 3, padding=1),
        nn.BatchNorm2d(width, eps),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=0.5),  # nearest
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.Upsample(scale_factor=0.5),
        nn.Flatten(),
        nn.Linear(width * _reduced(image.size) ** 2, 2 * latent),  # two linear layers of the paper in one
    )
    return uniform_weights(network, init)


def uniform_weights(network: nn.Sequential, init: float) -> nn.Sequential:
    """Weights of convolutions and linear layers from U(-init, init), biases 0, in place; batch norms stay."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.uniform_(layer.weight, -init, init)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def draw_codes(moments: Tensor, noise: Tensor) -> Tensor:
    """z = mean + noise * exp(log_var / 2), (N, latent), of the encoder's answer."""
    mean, log_var = moments.chunk(2, dim=1)
    return mean + noise * (log_var / 2).exp()


def code_divergence(moments: Tensor) -> Tensor:
    """mean_n sum_d (mean^2 + exp(log_var) - 1 - log_var) / 2: KL of the encoder's normal from the standard one."""
    mean, log_var = moments.chunk(2, dim=1)
    return (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean() / 2


def code_spread(codes: Tensor) -> Tensor:
    """mean_d (var_d - 1)^2 + mean_d mean_d^2 over a batch of codes (N, latent), with unbiased variances."""
    var, mean = torch.var_mean(codes, dim=0)
    return (var - 1).square().mean() + mean.square().mean()


class UnitColumns(nn.Module):
    """Every column of an image (along its height) as a vector of unit L2 norm: an oddity of the reference code."""

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(images, dim=2)


def _reduced(size: int) -> int:
    """Height of the encoder's last maps: halved (down), strided (up), halved (down); 4 of 32."""
    return (size // 2 + 1) // 2 // 2
