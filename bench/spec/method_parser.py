"""Reading what a file declares from its syntax tree, without running it."""

from __future__ import annotations

import ast
from pathlib import Path

from bench.spec.literals import NotStaticError, at, bind, called
from bench.spec.method import check_declared, method
from bench.spec.method_card import MethodCard
from bench.spec.options import OptionSpec
from bench.spec.options_parser import ParsedFile, static_specs


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
        if isinstance(decorator, ast.Call) and called(decorator) == "method"
    ]
    if len(found) != sum(isinstance(node, ast.Call) and called(node) == "method" for node in ast.walk(tree)):
        raise NotStaticError
    return found


def _static_card(tree: ast.Module, node: ast.FunctionDef, call: ast.Call, file: Path, module: str | None) -> MethodCard:
    if any(isinstance(each, ast.Yield | ast.YieldFrom) for each in ast.walk(node)):
        raise NotStaticError  # perhaps of a function inside it: Python knows
    given = bind(method, call, file)
    given |= {
        "specs": _specs_of(node, ParsedFile(tree, file, module)),
        "presets": given["presets"] or {},
        "quick": given["quick"] or {},
    }
    with at(file, call):
        check_declared(**given)
    doc = first_line(ast.get_docstring(node) or ast.get_docstring(tree))
    return MethodCard(**given, doc=doc, file=file, module=module)


def _specs_of(node: ast.FunctionDef, source: ParsedFile) -> tuple[OptionSpec, ...]:
    """The options of the class that the function's second parameter is annotated with."""
    arguments = node.args
    parameters = [*arguments.posonlyargs, *arguments.args]
    if len(parameters) not in (1, 2) or arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        raise NotStaticError
    if len(parameters) == 1:
        return ()
    annotation = parameters[1].annotation
    if not isinstance(annotation, ast.Name):
        raise NotStaticError
    return static_specs(source, annotation.id)


def first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
