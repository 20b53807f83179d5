"""Checkpoints of other people's making: read as plain tensors only, and made to fit a network in names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UserError, require_file

COUNTER = "num_batches_tracked"  # of a batch norm; files of old lack it, and nothing in evaluation reads it


WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "teacher", "teacher_state_dict",
    "net_state_dict", "weights", "params",
)  # fmt: skip
COUNTED = ("total_ops", "total_params")  # buffers that profilers leave in every module


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU: as :func:`read_checkpoint`, names without "module."."""
    weights, _ = read_checkpoint(file)
    return {name.removeprefix("module."): value for name, value in weights.items()}


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a checkpoint by name, on the CPU, and what had to be done to find them, in words.

    It is safetensors, or a torch file with a state_dict in it, alone or under one of :data:`WRAPPERS` beside numbers,
    optimisers and the like. Nothing that a pickle asks for is run.

    Raises:
        UserError: there is no such file, or it is not a checkpoint of plain tensors.
    """
    require_file(file, "checkpoint", ".pth")
    if file.suffix == ".safetensors":
        try:
            return load_file(file), []
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is not a complete safetensors file: {error}") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # many kinds, all meaning that this file cannot be used; torch's advice would be to trust it
        hint = "save the network's state_dict() with torch.save or as safetensors"
        raise UserError(f"{file} cannot be read as a checkpoint of plain tensors; {hint}") from None
    done = []
    while isinstance(content, dict) and not _is_state(content):
        inside = [str(key) for key, value in content.items() if isinstance(value, dict) and _holds_state(value)]
        chosen = next((key for key in WRAPPERS if key in inside), inside[0] if len(inside) == 1 else None)
        if chosen is None:
            several = f": which of {', '.join(sorted(inside)[:6])}?" if inside else " (names and tensors)"
            raise UserError(f"{file} contains no state_dict{several}")
        content = next(value for key, value in content.items() if str(key) == chosen)
        done.append(f"taken from {chosen!r}")
    if not _is_state(content):
        raise UserError(f"{file} contains no state_dict (names and tensors)")
    return {str(name): _dense(value, str(name), file) for name, value in content.items()}, done


def _dense(value: Tensor, name: str, file: Path) -> Tensor:
    """A tensor as a network holds it; those of pruned networks may be stored as sparse ones.

    Raises:
        UserError: its values are not in the file, or are no plain numbers.
    """
    kinds = {"quantized": value.is_quantized, "complex": value.is_complex(), "on the meta device": value.is_meta}
    if wrong := next((kind for kind, holds in kinds.items() if holds), ""):
        raise UserError(f"{file}: {name} is {wrong}; needed are real numbers, as state_dict() has them")
    return value.to_dense() if value.layout != torch.strided else value


def _is_state(content: object) -> bool:
    return isinstance(content, dict) and bool(content) and all(isinstance(each, Tensor) for each in content.values())


def _holds_state(content: Mapping[object, object]) -> bool:
    return _is_state(content) or any(isinstance(each, dict) and _holds_state(each) for each in content.values())


def match_names(network: nn.Module, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under the network's own names, and what had to be done for it, in words.

    Up to two prefixes that all names share are taken away or added ("module.", "_orig_mod.", "model.", ...), and the
    buffers of profilers are left out. Weights that match in no such way are returned as they are: :func:`fit` says
    what does not match.
    """
    wanted = {name for name in network.state_dict() if not name.endswith(COUNTER)}
    given = {name: value for name, value in weights.items() if name.rpartition(".")[2] not in COUNTED}
    left_out = sorted({name.rpartition(".")[2] for name in weights.keys() - given.keys()} - wanted)
    done = [f"{', '.join(left_out)} left out"] if left_out else []
    for taken in _prefixes(given):
        for added in _prefixes(wanted):
            renamed = {added + name.removeprefix(taken): value for name, value in given.items()}
            if {name for name in renamed if not name.endswith(COUNTER)} == wanted:
                words = [f"prefix {taken!r} removed"] if taken and taken != added else []
                words += [f"prefix {added!r} added"] if added and taken != added else []
                return renamed, done + words
    return given, done


def classes_of_weights(build: Callable[[int], nn.Module], weights: Mapping[str, Tensor]) -> int | None:
    """How many classes a network has that these weights fit; None where their shapes do not tell.

    ``build`` makes the network for a number of classes. Two of them are built: tensors in which they differ tell.
    """
    with torch.random.fork_rng(devices=[]):
        two, three = build(2), build(3)
    given, _ = match_names(two, weights)
    shapes = {name: (value.shape, two.state_dict()[name].shape) for name, value in three.state_dict().items()}
    found = {
        given[name].shape[0]
        for name, (one, other) in shapes.items()
        if one != other and name in given and given[name].ndim and given[name].shape[1:] == one[1:]
    }
    return found.pop() if len(found) == 1 and min(found) > 1 else None


def _prefixes(names: Collection[str]) -> list[str]:
    """Nothing, and the first one and two parts that all names begin with, each with its dot."""
    found = [""]
    for count in (1, 2):
        heads = {".".join(name.split(".")[:count]) + "." for name in names}
        if len(heads) == 1 and all(name.count(".") >= count for name in names):
            found.append(heads.pop())
    return found


def check_values(weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Refuse weights that no training leaves behind; ``source`` is what an error calls them.

    Raises:
        UserError: a tensor has NaN or infinite values, or a matrix or a kernel has one value everywhere.
    """
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        if bad := int((~torch.isfinite(value)).sum()):
            raise UserError(f"{source}: {bad} of {value.numel()} values of {name} are NaN or infinite")
        if value.ndim > 1 and value.numel() > 1 and bool((value == value.flatten()[0]).all()):
            raise UserError(f"{source}: all {value.numel()} values of {name} are {value.flatten()[0]:g}: not trained")


def fit(network: nn.Module, weights: Mapping[str, Tensor], source: Path | str, *, assign: bool = False) -> None:
    """Put ``weights`` into ``network``; ``source`` is what an error calls them.

    With ``assign`` the network takes the tensors themselves, as one on the meta device must.

    Raises:
        UserError: a name, a shape or a kind of numbers is not the network's. Counters of batch norms may be missing.
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
        if value.is_floating_point() != wanted[name].is_floating_point() and not name.endswith(COUNTER):
            kinds = f"{value.dtype}, the network needs {wanted[name].dtype}".replace("torch.", "")
            raise UserError(f"{source} does not fit {type(network).__name__}: {name} is {kinds}")
    network.load_state_dict(given, assign=assign)
