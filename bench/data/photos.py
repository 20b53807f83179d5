"""Photos: patches of the two photographs that scikit-learn brings, a pool of natural images that needs no download."""

from __future__ import annotations

from pathlib import Path

from bench.data.folders import sklearn_data
from bench.data.source import Pair, Source

NAMES = ("china.jpg", "flower.jpg")
PATCH = 64  # pixels
STRIDE = 12  # pixels between two patches


def make() -> tuple[Pair, Pair]:
    """All patches as uint8 (3,038, 3, 64, 64), by photograph, row and column, with labels that say nothing (0).

    There are no test images. Pixels are what Pillow's JPEG decoder makes of the files.
    """
    import numpy as np
    import torch
    from PIL import Image

    folder = _folder()
    assert folder is not None, "the source is bundled: it was looked for before"
    patches = []
    for name in NAMES:
        with Image.open(folder / name) as photo:
            pixels = torch.from_numpy(np.array(photo.convert("RGB"))).permute(2, 0, 1)
        cut = pixels.unfold(1, PATCH, STRIDE).unfold(2, PATCH, STRIDE)  # (3, rows, columns, PATCH, PATCH)
        patches.append(cut.flatten(1, 2).transpose(0, 1))
    images = torch.cat(patches).contiguous()
    return (images, torch.zeros(len(images), dtype=torch.int64)), (images[:0], torch.zeros(0, dtype=torch.int64))


def bundled() -> Path | None:
    """Where scikit-learn keeps the first photograph, or None where it is not installed."""
    folder = _folder()
    return folder / NAMES[0] if folder else None


def _folder() -> Path | None:
    data = sklearn_data()
    return data.with_name("images") if data else None


SOURCES = (
    Source(
        name="photos",
        title="Patches of scikit-learn's two photographs",
        classes=(),
        files=(),
        licence="Creative Commons, with attribution (both photographs)",
        citation="china.jpg by danielbuechele and flower.jpg by vultilion, Flickr, as distributed with scikit-learn",
        how_to_place="Install scikit-learn, which includes it",
        bundled=bundled,
        make=make,
        kind="unlabelled",
    ),
)
