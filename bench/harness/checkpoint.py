"""Saving a running trial, so that a killed one resumes where it stopped: its file, and what a method asked to keep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import MethodError, UserError
from bench.utils.data_guard import lifted

_NAME = "checkpoint.pt"


def save_checkpoint(work: Path, trial_id: str, state: dict[str, Any]) -> None:
    """Write whole or not at all: a kill at any moment leaves the previous one."""
    part = work / f"{_NAME}.part"
    try:
        with lifted(part):
            file = part.open("wb")
        with file:
            torch.save({"id": trial_id, **state}, file)  # may run a method's own code
            file.flush()
            os.fsync(file.fileno())
        with lifted(part, work / _NAME):
            part.replace(work / _NAME)
    except (OSError, RuntimeError) as error:  # torch has its own for a full disk
        part.unlink(missing_ok=True)
        if isinstance(error, RuntimeError):
            raise MethodError(f"the trial cannot be saved: {str(error).strip().partition(chr(10))[0]}") from error
        raise UserError(f"cannot write {work / _NAME}: {error.strerror}; free some space or use --results") from None


def load_checkpoint(work: Path, trial_id: str) -> dict[str, Any] | None:
    """The last checkpoint, or None when there is none of this trial's that can be read."""
    file = work / _NAME
    if not file.exists():
        return None
    try:
        with lifted(file):
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file costs the work in it, nothing more
        return None
    return state if isinstance(state, dict) and state.get("id") == trial_id else None


def check_kept(name: str, thing: Any) -> None:
    """Raise MethodError unless ``thing`` can be saved and restored in place."""
    stateful = callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))
    if not (stateful or isinstance(thing, Tensor | dict)):
        raise MethodError(
            f"keep({name!r}, ...) takes a module, an optimiser, a tensor, a dictionary, or anything with state_dict() "
            f"and load_state_dict(), not {type(thing).__name__}"
        )


def state_of(thing: Any) -> Any:
    """What later changes of ``thing`` do not touch: a copy.

    A store of many images that says ``state_is_snapshot = True`` promises never to change the tensors that its
    ``state_dict`` gave away, nor those that ``load_state_dict`` gets; they are not copied.
    """
    if isinstance(thing, Tensor):
        return thing.detach().clone()
    if getattr(thing, "state_is_snapshot", False):
        return thing.state_dict()
    return _copied(thing if isinstance(thing, dict) else thing.state_dict())


def restore_into(thing: Any, state: Any) -> None:
    """Put a saved state back into the same object."""
    if isinstance(thing, Tensor):
        with torch.no_grad():
            thing.copy_(state)
    elif isinstance(thing, dict):
        thing.clear()
        thing.update(_copied(state))
    else:
        thing.load_state_dict(state if getattr(thing, "state_is_snapshot", False) else _copied(state))


def move_to(thing: Any, device: torch.device) -> Any:
    """The thing on the device; a leaf tensor stays a leaf that wants gradients if it did.

    Other objects may have a ``move_to(device)``.
    """
    if isinstance(thing, nn.Module):
        return thing.to(device)
    if isinstance(thing, Tensor) and thing.device != device:
        return thing.detach().to(device).requires_grad_(thing.requires_grad)
    if callable(move_to := getattr(thing, "move_to", None)):
        move_to(device)
    return thing


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
