"""Values and types that stand in a file as literals, read from its syntax tree without running it."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import UserError, nearest
from bench.spec.method import Access, Data
from bench.spec.options import alternatives, supported


class NotStaticError(Exception):
    """A declaration that is computed when the file runs."""


def called(call: ast.Call) -> str:
    """The last part of the name that is called."""
    return ast.unparse(call.func).rpartition(".")[2]


@contextmanager
def at(file: Path, node: ast.stmt | ast.expr) -> Iterator[None]:
    """A UserError of the block gets the file and the node's line in front."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}, line {node.lineno}: {error}") from None


def bind(function: Callable[..., Any], call: ast.Call, file: Path) -> dict[str, Any]:
    """The literal arguments of a call by the names of a function's parameters, defaults included."""
    if any(keyword.arg is None for keyword in call.keywords):
        raise NotStaticError
    values = [static(value, file) for value in call.args]
    named = {str(keyword.arg): static(keyword.value, file) for keyword in call.keywords}
    signature = inspect.signature(function)
    with at(file, call):
        for name in named:
            if name not in signature.parameters:
                raise UserError(f"{function.__name__}() has no argument {name!r}{nearest(name, signature.parameters)}")
        try:
            bound = signature.bind(*values, **named)
        except TypeError as error:
            raise UserError(f"{function.__name__}(): {error}") from None
    bound.apply_defaults()
    return bound.arguments


_NAMES: dict[str, Any] = {"Data": Data, "Access": Access}
_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, bool, str, tuple)} | {"Literal": typing.Literal}


def static(node: ast.expr, file: Path) -> Any:
    """The value of a literal, or of ``Data.NONE`` and the like."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _NAMES:
        members = _NAMES[node.value.id].__members__
        with at(file, node):
            if node.attr not in members:
                raise UserError(f"{node.value.id} has no {node.attr}{nearest(node.attr, members)}")
        return members[node.attr]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise NotStaticError from None


def static_type(node: ast.expr) -> Any:
    """The type that an annotation made of int, float, bool, str, tuple, Literal and None stands for."""
    names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    others = [item for item in ast.walk(node) if isinstance(item, ast.Call | ast.Attribute | ast.Lambda)]
    if others or not names <= _TYPES.keys():
        raise NotStaticError
    try:
        # Only the names above and no call or attribute: nothing but building a type can happen here.
        found = eval(compile(ast.Expression(node), "<annotation>", "eval"), {"__builtins__": {}}, dict(_TYPES))
    except TypeError:
        raise NotStaticError from None
    if not all(supported(kind) for kind in alternatives(found)):
        raise NotStaticError  # an annotation in quotes, for one
    return found
