"""Packages that are installed here, and that a confined process may not read."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path


class HiddenPackages:
    """A finder that says they are missing: libraries try to import others, and go on without them."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        del path, target
        if "." in name or name in sys.modules:
            return
        spec = PathFinder.find_spec(name)
        origin = None if spec is None else spec.origin
        if origin is None or not Path(origin).is_absolute():
            return
        try:
            os.close(os.open(origin, os.O_RDONLY))
        except PermissionError:
            raise ModuleNotFoundError(
                f"No module named {name!r} for a method: of further packages it sees those that its own file imports",
                name=name,
            ) from None
