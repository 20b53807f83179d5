"""Importing a method's file, so that every failure becomes one sentence that names the line."""

from __future__ import annotations

from bench.errors import UserError
from bench.spec.method import Method, declared_in
from bench.spec.method_card import MethodCard
from bench.utils.user_code import import_module


def load_method(card: MethodCard) -> Method:
    """Import the method's module and return what it declares; a file is run anew, and remembers no earlier trial."""
    module = import_module(card.file, card.module, fresh=True)
    for declared in declared_in(module):
        if declared.name == card.name:
            return declared
    raise UserError(f"{card.file} declares no method {card.name!r} when it runs")
