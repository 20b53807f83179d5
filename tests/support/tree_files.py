"""Small image files in the layouts of real sets, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, width: int, height: int, seed: int = 0, mode: str = "RGB") -> Path:
    """A smooth random picture."""
    values = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).resize((width, height)).convert(mode).save(path)
    return path


def write_mask(path: Path, width: int, height: int, values: Sequence[int]) -> Path:
    """Horizontal stripes of these values, from the top, as an 8-bit label image."""
    rows = np.asarray(values, np.uint8)[np.arange(height) * len(values) // height]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(rows[:, None], width, 1)).save(path)
    return path


def truncate(path: Path, kept: float = 0.6) -> Path:
    """Keep the head of a file only."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    return path


def write_classes(root: Path, split: str, classes: Sequence[str], count: int, side: int = 16, first: int = 0) -> Path:
    """``count`` smooth random pictures for each class, in the layout of torchvision's ``ImageFolder``."""
    for number, name in enumerate(classes):
        for index in range(count):
            write_image(root / split / name / f"{index}.png", side, side, seed=first + 1000 * number + index)
    return root
