"""The students of a curve's points, which the rule ``teacher_agreement`` chooses among when the trial has ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import UserError
from bench.records.foreign import sha256_of
from bench.utils.data_guard import lifted


def student_file(folder: Path, index: int) -> Path:
    """Where the student of a point lies."""
    return folder / f"{index:05d}.safetensors"


def save_student(folder: Path, index: int, weights: Mapping[str, Tensor]) -> str:
    """Write the student of a point; return the file's hash."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    file = student_file(folder, index)
    save_file({name: value.cpu().contiguous() for name, value in weights.items()}, file)
    return _hash(file)


def load_student(folder: Path, index: int, written: str, device: str) -> dict[str, Tensor]:
    """The student of a point.

    Raises:
        OSError: the file is missing or another than was written.
    """
    from safetensors.torch import load_file

    file = student_file(folder, index)
    if written and _hash(file) != written:
        raise OSError(f"{file.name} has changed since it was written")
    return load_file(file, device=device)


def changed_student(work: Path, curve: Mapping[str, Any]) -> str:
    """What is wrong with the students of a saved curve; empty where nothing is."""
    for index, written in enumerate(curve.get("students", [])):
        file = student_file(work / "points", index)
        try:
            if _hash(file) != written:
                return f"points/{file.name} has changed since it was written"
        except UserError:
            return f"points/{file.name} cannot be read"
    return ""


def _hash(file: Path) -> str:
    with lifted(file):
        return sha256_of(file)
