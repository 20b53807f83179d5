"""Reading what a file declares from its syntax tree, without running it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import UserError, nearest
from bench.spec.method import Access, Data, check_declared, method
from bench.spec.method_card import MethodCard
from bench.spec.options import OptionSpec, alternatives, check_spec, option, specs_of, supported


class NotStaticError(Exception):
    """A declaration that is computed when the file runs."""


def static_cards(tree: ast.Module, file: Path, module: str | None) -> list[MethodCard]:
    """The methods that a file declares in literals; NotStaticError when it declares them in any other way."""
    return [_static_card(tree, node, call, file, module) for node, call in _declarations(tree)]


def declares_method(source: str | bytes) -> bool:
    """Whether a file is a method, and not a module that methods share; never fails, a broken file counts as one."""
    try:
        return bool(_declarations(ast.parse(source)))
    except (SyntaxError, ValueError, NotStaticError):
        return True


def _declarations(tree: ast.Module) -> list[tuple[ast.FunctionDef, ast.Call]]:
    """The module's functions under ``@method(...)``; NotStaticError when it declares methods in any other way."""
    found = [
        (node, decorator)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and _called(decorator) == "method"
    ]
    if len(found) != sum(isinstance(node, ast.Call) and _called(node) == "method" for node in ast.walk(tree)):
        raise NotStaticError
    return found


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


@contextmanager
def _at(file: Path, node: ast.stmt | ast.expr) -> Iterator[None]:
    """A UserError of the block gets the file and the node's line in front."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}, line {node.lineno}: {error}") from None


def _static_card(tree: ast.Module, node: ast.FunctionDef, call: ast.Call, file: Path, module: str | None) -> MethodCard:
    given = _bind(method, call, file)
    given |= {
        "specs": _static_specs(tree, node, file),
        "presets": given["presets"] or {},
        "quick": given["quick"] or {},
    }
    with _at(file, call):
        check_declared(**given)
    doc = first_line(ast.get_docstring(node) or ast.get_docstring(tree))
    return MethodCard(**given, doc=doc, file=file, module=module)


def _static_specs(tree: ast.Module, node: ast.FunctionDef, file: Path) -> tuple[OptionSpec, ...]:
    arguments = node.args
    parameters = [*arguments.posonlyargs, *arguments.args]
    if len(parameters) not in (1, 2) or arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        raise NotStaticError
    if len(parameters) == 1:
        return ()
    annotation = parameters[1].annotation
    name = annotation.id if isinstance(annotation, ast.Name) else ""
    classes = [item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == name]
    if len(classes) != 1 or classes[0].bases or classes[0].keywords or not _is_frozen(classes[0]):
        raise NotStaticError
    # Built anew from its literals, so that reading and importing share one set of rules.
    lines = {}
    fields = []
    for item in classes[0].body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id not in lines:
            lines[item.target.id] = item
            fields.append((item.target.id, static_type(item.annotation), _static_default(item.value, file)))
        elif not isinstance(item, ast.FunctionDef | ast.Pass) and not _is_text(item):
            raise NotStaticError
    try:
        specs = specs_of(dataclasses.make_dataclass(name, fields, frozen=True))
    except (TypeError, ValueError):
        raise NotStaticError from None  # the import fails in the same way, and says where
    for spec in specs:
        with _at(file, lines[spec.name]):
            check_spec(spec, specs)
    return specs


def _is_frozen(node: ast.ClassDef) -> bool:
    return [ast.unparse(each).rpartition("dataclasses.")[2] for each in node.decorator_list] == [
        "dataclass(frozen=True)"
    ]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _static_default(node: ast.expr | None, file: Path) -> Any:
    """What stands behind the ``=`` of an option: a literal, or ``option(...)`` of literals."""
    if node is None:
        raise NotStaticError
    if not isinstance(node, ast.Call):
        return _static(node, file)
    if _called(node) != "option":
        raise NotStaticError
    given = _bind(option, node, file)
    with _at(file, node):
        return option(**given)


def _bind(function: Callable[..., Any], call: ast.Call, file: Path) -> dict[str, Any]:
    """The literal arguments of a call by the names of a function's parameters, defaults included."""
    if any(keyword.arg is None for keyword in call.keywords):
        raise NotStaticError
    values = [_static(value, file) for value in call.args]
    named = {str(keyword.arg): _static(keyword.value, file) for keyword in call.keywords}
    signature = inspect.signature(function)
    with _at(file, call):
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


def _static(node: ast.expr, file: Path) -> Any:
    """The value of a literal, or of ``Data.NONE`` and the like."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _NAMES:
        members = _NAMES[node.value.id].__members__
        with _at(file, node):
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


def first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
