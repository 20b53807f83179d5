"""Vision transformers for small images: patches of 4x4 pixels, and DeiT's blocks.

They have no class token: the features are the mean over all patches, as in "Better plain ViT baselines for ImageNet-1k"
(Beyer et al., 2022), so that each block makes a map (N, width, h, w) of the patches, as the stages of a convolutional
network do. A method that taps or replaces maps works on both. Nothing here has batch norm or dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.data.image_spec import ImageSpec
from bench.errors import UserError

STD = 0.02  # of the truncated normal distribution that weights and positions are drawn from, as in DeiT
EPS = 1e-6  # of layer norms, as in DeiT


class Attention(nn.Module):
    """Multi-head self-attention; tokens (N, L, width) in and out.

    It is written out: torch's fused one has no second derivative, and its multiply-adds are not counted everywhere.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, width = tokens.shape
        split = self.qkv(tokens).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, L, width / heads)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        found: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(n, length, width))
        return found


class Block(nn.Module):
    """Attention and a perceptron of four times the width, each after a layer norm and beside a shortcut.

    Maps of patches (N, width, h, w) in and out.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        found: Tensor = tokens.transpose(1, 2).unflatten(2, maps.shape[2:])
        return found


class VisionTransformer(nn.Module):
    """Images (N, channels, H, W) in, logits (N, classes) out.

    :attr:`layers` are all blocks, and :attr:`stages` the last one of each third of them. Weights are drawn as in DeiT:
    linear layers and positions from a truncated normal distribution, biases 0, patches as the framework does.

    Raises:
        UserError: the images' side is no multiple of the patches'.
    """

    def __init__(self, image: ImageSpec, classes: int, *, width: int, depth: int, heads: int, patch: int = 4) -> None:
        super().__init__()
        if image.size % patch:
            raise UserError(
                f"vision transformers with patches of {patch}x{patch} take images whose side is a multiple of {patch}, "
                f"not {image.size}x{image.size}"
            )
        side = image.size // patch
        self.patches = nn.Conv2d(image.channels, width, patch, patch)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, side, side), std=STD))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, EPS)
        self.linear = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=STD)
                nn.init.zeros_(module.bias)

    @property
    def head(self) -> nn.Module:
        return self.linear

    @property
    def layers(self) -> list[nn.Module]:
        return list(self.blocks)

    @property
    def stages(self) -> list[nn.Module]:
        third = len(self.blocks) // 3
        return self.layers[third - 1 :: third]

    def forward(self, images: Tensor) -> Tensor:
        maps = self.blocks(self.patches(images) + self.positions)
        logits: Tensor = self.linear(self.norm(maps.flatten(2).transpose(1, 2)).mean(1))
        return logits


def vit_tiny(image: ImageSpec, classes: int) -> VisionTransformer:
    """DeiT-tiny's width, depth and heads: 5,362,378 parameters and 359M multiply-adds for 10 classes on 3x32x32."""
    return VisionTransformer(image, classes, width=192, depth=12, heads=3)


def vit_mini(image: ImageSpec, classes: int) -> VisionTransformer:
    """Ours, a student for it, with heads of the same 64 numbers: 1,205,642 parameters and 82M multiply-adds."""
    return VisionTransformer(image, classes, width=128, depth=6, heads=2)
