"""Whether the methods of trials run in processes of their own here, and why not where they do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bench.errors import UserError, nearest
from bench.utils.confinement import Way, available, why_not

Isolation = Literal["auto", "process", "none"]
ISOLATIONS: dict[str, str] = {
    "auto": "a process of its own for each method, where this machine can confine one",
    "process": "a process of its own, or an error",
    "none": "the harness and the method in one process",
}
ASKED = "asked for (isolation: none)"
_GPU = "a method on a GPU is not isolated so far"


@dataclass(frozen=True)
class Isolated:
    """``way`` is how the method's process is confined; None: there is none, and ``why`` says why not."""

    way: Way | None
    why: str = ""


def isolated(wanted: str, device: str) -> Isolated:
    """How a trial on a device runs, given a study's ``isolation``.

    Raises:
        UserError: ``process`` is wanted, and cannot be had.
    """
    if wanted not in get_args(Isolation):
        raise UserError(f"unknown isolation {wanted!r}{nearest(wanted, get_args(Isolation))}")
    if wanted == "none":
        return Isolated(None, ASKED)
    why = why_not() if device == "cpu" else _GPU
    if why and wanted == "process":
        raise UserError(f"isolation: process cannot be had here: {why}; use auto or none")
    return Isolated(None, why) if why else Isolated(available())
