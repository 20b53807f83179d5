"""Saving a running trial, so that a killed one goes on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from bench.errors import UserError

_NAME = "checkpoint.pt"


def save_checkpoint(work: Path, trial_id: str, state: dict[str, Any]) -> None:
    """Write whole or not at all: a kill at any moment leaves the previous one."""
    part = work / f"{_NAME}.part"
    try:
        with part.open("wb") as file:
            torch.save({"id": trial_id, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(work / _NAME)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {work / _NAME}: {error.strerror}; free some space or use --results") from None


def load_checkpoint(work: Path, trial_id: str) -> dict[str, Any] | None:
    """The last checkpoint, or None when there is none of this trial's that can be read."""
    file = work / _NAME
    if not file.exists():
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file costs the work in it, nothing more
        return None
    return state if isinstance(state, dict) and state.get("id") == trial_id else None
