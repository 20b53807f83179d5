"""What a trial leaves beside its record: the student, the images it was trained on, and a contact sheet of them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

SHEET = 10  # images a row and a column of the contact sheet


def save_student(folder: Path, student: nn.Module) -> Path:
    """The student's weights at the end."""
    file = folder / "student.safetensors"
    save_file({name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}, file)
    return file


def save_images(folder: Path, images: Tensor, steps: Tensor) -> Path:
    """uint8 images (N, C, H, W) with the step (N,) at which the student was trained on each."""
    file = folder / "images.safetensors"
    save_file({"images": images.contiguous(), "steps": steps}, file)
    return file


def contact_sheet(folder: Path, images: Tensor, gap: int = 2) -> Path:
    """A PNG of images spread evenly over the sample, earliest at the top left, latest at the bottom right."""
    index = torch.linspace(0, len(images) - 1, min(len(images), SHEET * SHEET)).round().long()
    chosen = images[index].permute(0, 2, 3, 1)
    side_y, side_x, channels = chosen.shape[1:]
    rows = -(-len(chosen) // SHEET)
    sheet = torch.full((rows * (side_y + gap) + gap, SHEET * (side_x + gap) + gap, channels), 255, dtype=torch.uint8)
    for place, picture in enumerate(chosen):
        top, left = gap + (place // SHEET) * (side_y + gap), gap + (place % SHEET) * (side_x + gap)
        sheet[top : top + side_y, left : left + side_x] = picture
    file = folder / "images.png"
    Image.fromarray(sheet.squeeze(-1).numpy() if channels == 1 else sheet.numpy()).save(file)
    return file
