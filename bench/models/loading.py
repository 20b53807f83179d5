"""Checkpoints of other people's making: read as plain tensors only, and made to fit a network in names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UserError

COUNTER = "num_batches_tracked"  # of a batch norm; files of old lack it, and nothing in evaluation reads it


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU: safetensors, or a torch file with a state_dict in it.

    Nothing that a pickle asks for is run. A state_dict may lie under "state_dict" or "model", its names may begin with
    "module.".

    Raises:
        UserError: there is no such file, or it is not a checkpoint of plain tensors.
    """
    if not file.is_file():
        raise UserError(f"no such checkpoint: {file}")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is not a complete safetensors file: {error}") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # many kinds, all meaning that this file cannot be used; torch's advice would be to trust it
        hint = "save the network's state_dict() with torch.save or as safetensors"
        raise UserError(f"{file} cannot be read as a checkpoint of plain tensors; {hint}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{file} contains no state_dict (names and tensors)")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def fit(network: nn.Module, weights: Mapping[str, Tensor], source: Path | str, *, assign: bool = False) -> None:
    """Put ``weights`` into ``network``; ``source`` is what an error calls them.

    With ``assign`` the network takes the tensors themselves, as one on the meta device must.

    Raises:
        UserError: a name or a shape is not the network's. Counters of batch norms may be missing.
    """
    wanted = network.state_dict()
    given = {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith(COUNTER)} | dict(weights)
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra:
        parts = [
            f"missing {', '.join(missing[:4])}" if missing else "",
            f"unknown {', '.join(extra[:4])}" if extra else "",
        ]
        raise UserError(f"{source} does not fit {type(network).__name__}: {'; '.join(part for part in parts if part)}")
    for name, value in given.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, the network needs {tuple(wanted[name].shape)}"
            raise UserError(f"{source} does not fit {type(network).__name__}: {name} has shape {shapes}")
    network.load_state_dict(given, assign=assign)
