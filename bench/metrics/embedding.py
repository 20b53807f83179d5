"""From images to features: what an extractor is, how a whole set goes through one, and how images are made to fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import Unavailable, UserError
from bench.models import head

Embedding: TypeAlias = tuple[Tensor, Tensor | None]  # features float32 (N, D), logits float32 (N, K) or None

ANTIALIASED = "resized to {0}x{0} (bilinear, antialiased, align_corners=False)"  # what resized() does
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey image: ITU-R BT.601


@dataclass(frozen=True)
class Extractor:
    """A frozen network that sees images as features.

    ``identity``: sha256 over the weights, the kind of network and the preprocessing; two extractors with one identity
    give the same features. ``run`` takes uint8 images (N, C, H, W) of one or three channels and any size.
    """

    name: str  # what stands in a metric's brackets
    identity: str
    preprocessing: str  # in words, for the record
    batch: int  # images at a time, so that memory stays small
    run: Callable[[Tensor], Embedding]


def embed(extractor: Extractor, images: Tensor) -> Embedding:
    """Features float32 (N, D) and logits (N, K) or None, on the CPU, of all ``images``: uint8 (N, C, H, W).

    Raises:
        ValueError: these are no images, or there are none.
        Unavailable: the extractor fails on them.
    """
    check_images(images)
    features, logits = [], []
    with exactly():
        for batch in images.split(extractor.batch):
            seen, answer = extractor.run(batch)
            features.append(seen.float().cpu())
            if answer is not None:
                logits.append(answer.float().cpu())
    return torch.cat(features), torch.cat(logits) if logits else None


@contextmanager
def exactly() -> Iterator[None]:
    """Without gradients, mixed precision and TF32: features are float32's, whatever the device and the caller."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.cuda.is_available():
            stack.enter_context(torch.autocast("cuda", enabled=False))
            before = torch.backends.cudnn.allow_tf32
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", before)
            torch.backends.cudnn.allow_tf32 = False
        yield


def check_images(images: Tensor) -> None:
    """Raise ValueError unless these are uint8 images (N, C, H, W) of one or three channels, and not none."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise ValueError(f"images must be uint8 (N, C, H, W) with 1 or 3 channels, one at least; these are {found}")


def rgb(images: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) repeated to three channels; those of three as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def grey(images: Tensor) -> Tensor:
    """float images (N, 3, H, W) by their luma, as (N, 1, H, W); grey ones as they are."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def resized(images: Tensor, size: int) -> Tensor:
    """float images as (N, C, size, size), bilinear with antialiasing; as they are where they have that size."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def identity_of(kind: str, weights: str, preprocessing: str) -> str:
    """sha256 over the kind of a network, the hash of its weights and the preprocessing."""
    return hashlib.sha256(json.dumps([kind, weights, preprocessing]).encode()).hexdigest()


def tapped(network: nn.Module) -> Callable[[Tensor], Embedding]:
    """How images in the network's own form become the input of its head (N, D), and its logits.

    Inputs with positions, (N, D, ...), are averaged over them; answers for every pixel are no logits of an image.
    """
    head(network)  # a UserError now where there is none

    def run(images: Tensor) -> Embedding:
        features, logits = tap(network, images)
        if features is None:
            raise Unavailable(f"{type(network).__name__} does not call its head; its features are not defined")
        return features, logits if logits.ndim == 2 else None

    return run


def tap(network: nn.Module, images: Tensor) -> tuple[Tensor | None, Tensor]:
    """The same of one batch: features (None where the network does not call its head) and its answers."""
    seen: list[Tensor] = []
    try:
        layer = head(network)
    except UserError:  # it has none
        return None, network(images)
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        answer = network(images)
    finally:
        hook.remove()
    if not seen:
        return None, answer
    return seen[0] if seen[0].ndim == 2 else seen[0].flatten(2).mean(2), answer
