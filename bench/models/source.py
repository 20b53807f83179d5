"""Whether a network's code is the user's own, and what its hash is. Imports no torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bench.errors import UserError, nearest_file
from bench.utils.code_identity import code_hash


def own_file(name: str) -> Path | None:
    """The file of a user's own network, named ``module:function`` or ``path/to/file.py:function``; None for others.

    Raises:
        UserError: there is no such file or module.
    """
    place, colon, _ = name.rpartition(":")
    if not colon:
        return None
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise UserError(f"network {name!r}: no such file: {place}{nearest_file(place, '.py')}")
        return Path(place).resolve()
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):  # a missing parent, or no name at all
        spec = None
    if spec is None or not spec.origin:
        raise UserError(f"network {name!r}: module {place!r} cannot be imported")
    return Path(spec.origin)


def placed(name: str) -> str:
    """The name of a network for a process in another folder: a user's own file by its absolute path."""
    place, _, function = name.rpartition(":")
    return f"{own_file(name)}:{function}" if place.endswith(".py") else name


def source_hashes(*networks: str) -> dict[str, str]:
    """Hash of the code of those networks that are the user's own, by name: another network is another task."""
    return {name: code_hash(file) for name in networks if (file := own_file(name)) is not None}
