"""Importing a method's file, so that every failure becomes one sentence that names the line."""

from __future__ import annotations

from pathlib import Path

from bench.errors import UserError
from bench.spec.method import Method, declared_in
from bench.spec.method_card import MethodCard
from bench.utils.user_code import import_module


def load_method(card: MethodCard) -> Method:
    """Import the method's module and return what it declares; a file is run again, and remembers no earlier trial."""
    return load_declared(card.file, card.module, card.name)


def load_declared(file: Path, module: str | None, name: str) -> Method:
    """The same, where there is no card."""
    for declared in declared_in(import_module(file, module, fresh=True)):
        if declared.name == name:
            return declared
    raise UserError(f"{file} declares no method {name!r} when it runs")
