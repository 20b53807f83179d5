"""What a trial leaves beside its record: the student, the images it was trained on, and a contact sheet of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

COLUMNS, SHEET = 10, 100  # images in a row of the contact sheet, and in all
MAPPED_COLUMNS, MAPPED_SHEET = 4, 24  # of images with segmentations beside them
# Paul Tol's muted colours and some more: colour-blind readers tell them apart as well. Class 0, often the ground: grey.
COLOURS = torch.tensor(
    [
        *((221, 221, 221), (51, 34, 136), (221, 204, 119), (17, 119, 51), (204, 102, 119), (136, 204, 238)),
        *((136, 34, 85), (68, 170, 153), (153, 153, 51), (170, 68, 153), (0, 0, 0), (238, 136, 102), (0, 68, 136)),
    ],
    dtype=torch.uint8,
)


def save_student(folder: Path, weights: Mapping[str, Tensor]) -> Path:
    """The student's weights at the end."""
    file = folder / "student.safetensors"
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, file)
    return file


def save_images(folder: Path, images: Tensor, steps: Tensor) -> Path:
    """uint8 images (N, C, H, W) with the step (N,) at which the student was trained on each."""
    file = folder / "images.safetensors"
    save_file({"images": images.contiguous(), "steps": steps}, file)
    return file


def contact_sheet(folder: Path, images: Tensor, maps: Sequence[Tensor] = ()) -> Path:
    """A PNG of uint8 images (N, C, H, W) in their order, row by row.

    ``maps`` are segmentations of these images, classes (N, H, W) each: they stand to the right of each image.
    """
    pictures = images.expand(-1, 3, -1, -1) if maps and images.shape[1] == 1 else images
    for classes in maps:
        coloured = COLOURS[classes.long() % len(COLOURS)].permute(0, 3, 1, 2)
        pictures = torch.cat([pictures, coloured], 3)
    chosen = pictures.permute(0, 2, 3, 1)
    columns, gap = (MAPPED_COLUMNS, 6) if maps else (COLUMNS, 2)
    side_y, side_x, channels = chosen.shape[1:]
    rows = -(-len(chosen) // columns)
    sheet = torch.full((rows * (side_y + gap) + gap, columns * (side_x + gap) + gap, channels), 255, dtype=torch.uint8)
    for place, picture in enumerate(chosen):
        top, left = gap + (place // columns) * (side_y + gap), gap + (place % columns) * (side_x + gap)
        sheet[top : top + side_y, left : left + side_x] = picture
    file = folder / "images.png"
    Image.fromarray(sheet.squeeze(-1).numpy() if channels == 1 else sheet.numpy()).save(file)
    return file
