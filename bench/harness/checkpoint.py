"""Saving a running trial, so that a killed one resumes where it stopped: its file, and what a method asked to keep."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from bench.errors import MethodError, UserError
from bench.harness.curve_files import changed_student
from bench.records.foreign import opened
from bench.utils.data_guard import lifted
from bench.utils.text import shown

_NAME = "checkpoint.pt"
_DIGEST = 32  # bytes of a SHA-256, the last of the file


class _Hashing:
    """A file to write, and the hash of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.hash.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def save_checkpoint(work: Path, trial_id: str, state: dict[str, Any]) -> None:
    """Write whole or not at all: a kill at any moment leaves the previous one. The file ends with its checksum."""
    part = work / f"{_NAME}.part"
    try:
        with lifted(part):
            file = part.open("wb")
        with file:
            hashing = _Hashing(file)
            torch.save({"id": trial_id, **state}, hashing)  # type: ignore[arg-type]  # may run a method's own code
            file.write(hashing.hash.digest())
            file.flush()
            os.fsync(file.fileno())
        with lifted(part, work / _NAME):
            part.replace(work / _NAME)
    except (OSError, RuntimeError) as error:  # torch has its own for a full disk
        part.unlink(missing_ok=True)
        if isinstance(error, RuntimeError):
            raise MethodError(f"the trial cannot be saved: {str(error).strip().partition(chr(10))[0]}") from error
        raise UserError(f"cannot write {work / _NAME}: {error.strerror}; free some space or use --results") from None


def load_checkpoint(
    work: Path,
    trial_id: str,
    told: Callable[[str], None] = lambda reason: None,  # noqa: ARG005
) -> dict[str, Any] | None:
    """The last checkpoint, or None where there is none that can be used.

    A damaged one costs the work in it, and nothing more; ``told`` is called with what is wrong with it.
    """
    file = work / _NAME
    if not os.path.lexists(file):
        return None
    try:
        with lifted(file), opened(file) as saved:
            content = saved.read()
        whole = memoryview(content)[:-_DIGEST]
        if hashlib.sha256(whole).digest() != content[-_DIGEST:]:
            told("has changed since it was written: its checksum does not fit")
            return None
        state = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
    except Exception as error:
        told(f"cannot be read: {shown(str(error).strip().partition(chr(10))[0])[:200] or type(error).__name__}")
        return None
    if not isinstance(state, dict) or state.get("id") != trial_id:
        told("is that of another trial")
        return None
    return state


def lost(work: Path, reason: str) -> str:
    """Say in a trial's log that its checkpoint could not be used; the sentence is for its record, too."""
    sentence = f"{_NAME} {reason}; the trial started again from the beginning"
    with lifted(work / "log.txt"), (work / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{sentence}\n")
    return sentence


def load_trial(
    work: Path, trial_id: str, told: Callable[[str], None], *, isolated: bool = False
) -> dict[str, Any] | None:
    """As ``load_checkpoint``, of a trial: with all its parts, and the students of its curve as they were written.

    ``isolated``: of a trial whose method has a process of its own. What one mode saved is of no use to the other.
    """
    state = load_checkpoint(work, trial_id, told)
    if state is not None and (wrong := _misshapen(state, isolated) or changed_student(work, state["curve"])):
        told(f"cannot be used: {wrong}")
        return None
    return state


def _misshapen(state: dict[str, Any], isolated: bool) -> str:
    """What is missing or of the wrong kind; empty where nothing is."""
    if ("judge" in state) != isolated:
        return "it was saved with another isolation"
    if isolated:
        return _missing(
            state,
            {"judge": dict, "curve": dict, "resumed": int, "method": Tensor},
            {"judge.phase": str, "curve.rows": list, "curve.evaluated": list},
        )
    wrong = _missing(
        state,
        {"context": dict, "curve": dict, "resumed": int},
        {"context.phases": list, "context.kept": dict, "curve.rows": list, "curve.evaluated": list},
    )
    return wrong or ("" if state["context"]["phases"] else "its part 'context.phases' is empty")


def _missing(state: dict[str, Any], parts: dict[str, type], inner: dict[str, type]) -> str:
    if wrong := next((name for name, kind in parts.items() if not isinstance(state.get(name), kind)), ""):
        return f"its part {wrong!r} is missing"
    for name, kind in inner.items():
        part, _, key = name.partition(".")
        if not isinstance(state[part].get(key), kind):
            return f"its part {name!r} is missing"
    return ""


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
