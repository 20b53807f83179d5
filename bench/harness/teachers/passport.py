"""The passports of cached teachers: read without loading a network. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import UserError, nearest
from bench.records.foreign import parse
from bench.utils.paths import teacher_folder

SCHEMA = 1
CHECKSUM = "checksum"  # of the passport itself; those of earlier versions have none
REQUIRED = ("key", "network", "data", "image", "sha256", "score", "recipe", "seed")


def passport_text(passport: Mapping[str, Any]) -> bytes:
    """What is written to disk: the passport with its checksum."""
    plain = {name: value for name, value in passport.items() if name != CHECKSUM}
    return json.dumps({**plain, CHECKSUM: _checksum(plain)}, indent=1).encode()


def check_passport(passport: Mapping[str, Any], file: Path) -> None:
    """Raise UserError for a passport that is not as it was written."""
    plain = {name: value for name, value in passport.items() if name != CHECKSUM}
    if CHECKSUM in passport and passport[CHECKSUM] != _checksum(plain):
        raise UserError(f"{file} has changed since it was written; delete {file.parent} and make its teacher again")


def _checksum(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_passport(folder: Path) -> dict[str, Any]:
    """A cached teacher's passport; UserError when it is damaged, was changed, or is of a newer version."""
    file = folder / "passport.json"
    try:
        passport = parse(file.read_bytes(), str(file))
        schema = int(passport["schema"])
    except (OSError, UserError, ValueError, KeyError, TypeError):
        raise UserError(f"{file} is not a passport; delete {folder} and train or import the teacher again") from None
    if schema > SCHEMA:
        raise UserError(f"{file} has version {schema}; this version of the suite reads up to {SCHEMA}")
    check_passport(passport, file)
    if lacking := [name for name in REQUIRED if name not in passport]:
        raise UserError(f"{file} lacks {', '.join(lacking)}; delete {folder} and train or import the teacher again")
    return dict(passport)


def passports() -> list[dict[str, Any]]:
    """The passports of all cached teachers."""
    return [read_passport(file.parent) for file in sorted(teacher_folder().glob("*/passport.json"))]


def find_passport(prefix: str) -> dict[str, Any]:
    """The passport of the one teacher whose key begins with ``prefix``; UserError for none or several."""
    known = {passport["key"]: passport for passport in passports()}
    found = [key for key in known if key == prefix] or [key for key in known if key.startswith(prefix)]
    if not found:
        raise UserError(f"no teacher {prefix!r} in {teacher_folder()}{nearest(prefix, known)}")
    if len(found) > 1:
        raise UserError(f"{len(found)} teachers start with {prefix!r}: {', '.join(found[:5])}")
    return known[found[0]]


def weights_state(passport: dict[str, Any]) -> str:
    """``ok``, ``missing`` or ``altered``: whether the weights are those that the passport was made for."""
    file = teacher_folder() / str(passport["key"]) / "weights.safetensors"
    if not file.is_file():
        return "missing"
    return "ok" if hashlib.sha256(file.read_bytes()).hexdigest() == passport["sha256"] else "altered"
