"""The registry of methods: what each file declares, read without running it.

A method file imports torch, which takes seconds; listing methods and checking a study must not. So a card is read from
the file's syntax tree. A file that computes its declaration is imported instead: slower, the same answer.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.declare import Access, Data, Method, check_declared, declared_in
from bench.errors import UserError, nearest
from bench.options import OptionSpec, Value

ENTRY_POINTS = "dfkd.methods"
BUILT_IN = Path(__file__).resolve().parent.parent / "methods"


@dataclass(frozen=True)
class MethodCard:
    """What a study and a table need to know of a method; ``module`` and ``file`` say where it runs from."""

    name: str
    title: str
    paper: str
    doc: str
    data: Data
    access: Access
    specs: tuple[OptionSpec, ...]
    presets: Mapping[str, Mapping[str, Value]]
    quick: Mapping[str, Value]
    file: Path
    module: str | None  # None: a file outside every package

    @property
    def sha(self) -> str:
        """Hash of the method's file and of the project modules that it imports."""
        return source_hash(self.file)

    def defaults(self) -> dict[str, Value]:
        return {spec.name: spec.default for spec in self.specs}


class NotStaticError(Exception):
    """A declaration that is computed when the file runs."""


def find_methods(files: Iterable[Path] = ()) -> dict[str, MethodCard]:
    """All methods: built in, from installed packages' entry points, and from the given files, by name.

    Raises:
        UserError: a file cannot be read, has a syntax error or no method, or two methods share a name.
    """
    cards = dict(_installed_methods())
    for file in files:
        for card in read_cards(file):
            other = cards.get(card.name)
            if other is not None and other.file != card.file:
                raise UserError(
                    f"{file}: the name {card.name!r} is taken by {other.file}; give the method another name"
                )
            cards[card.name] = card
    return cards


@cache
def _installed_methods() -> Mapping[str, MethodCard]:
    cards: dict[str, MethodCard] = {}
    for file in sorted(BUILT_IN.glob("*.py")):
        if declares_method(file.read_text(encoding="utf-8")):
            cards.update({card.name: card for card in read_cards(file, f"methods.{file.stem}")})
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        spec = importlib.util.find_spec(entry.module)
        if spec is None or spec.origin is None:
            raise UserError(
                f"entry point {entry.name!r} ({ENTRY_POINTS}) names {entry.module!r}, which is not installed"
            )
        for card in read_cards(Path(spec.origin), entry.module):
            if card.name in cards:
                raise UserError(
                    f"entry point {entry.name!r}: the name {card.name!r} is taken by {cards[card.name].file}"
                )
            cards[card.name] = card
    return cards


def get_card(name: str, cards: Mapping[str, MethodCard]) -> MethodCard:
    if name not in cards:
        raise UserError(f"unknown method {name!r}{nearest(name, cards)}")
    return cards[name]


def load_method(card: MethodCard) -> Method:
    """Import the method's module and return what it declares."""
    module = import_module(card.file, card.module)
    for declared in declared_in(module):
        if declared.name == card.name:
            return declared
    raise UserError(f"{card.file} declares no method {card.name!r} when it runs")


def import_module(file: Path, module: str | None) -> ModuleType:
    """Import an installed module, or a file by its path; every failure becomes one sentence that names the line."""
    try:
        if module is not None:
            return importlib.import_module(module)
        name = f"dfkd_method_{file.stem}_{source_hash(file)[:8]}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise UserError(f"{file} is not a Python file")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded  # dataclasses look their module up while the file runs
        sys.path.insert(0, str(file.parent))  # so that it may import its neighbours
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[name]
            raise
        finally:
            sys.path.remove(str(file.parent))
        return loaded
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except Exception as error:
        line = _line_in(error, file)
        raise UserError(f"{file}{line}: importing it fails with {type(error).__name__}: {error}") from error


def _line_in(error: BaseException, file: Path) -> str:
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == file:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f", line {lines[-1]}" if lines else ""


def read_cards(file: Path, module: str | None = None) -> list[MethodCard]:
    """The methods that a file declares.

    Raises:
        UserError: no such file, a syntax error (with its line), a wrong declaration, or no method in it.
    """
    file = file.resolve()
    if not file.is_file():
        raise UserError(f"no such method file: {file}")
    try:
        source = file.read_text(encoding="utf-8")
        tree = ast.parse(source, filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{file}{line}: not valid Python: {getattr(error, 'msg', error)}") from None
    try:
        cards = [_static_card(tree, node, call, file, module) for node, call in _declarations(tree)]
    except NotStaticError:
        cards = []
    if not cards:
        cards = [_card_of(declared, file, module) for declared in declared_in(import_module(file, module))]
    if not cards:
        raise UserError(f"{file}: no method in it; decorate a function with @method(...), see docs/writing-a-method.md")
    for card in cards:
        try:
            check_declared(card.name, card.specs, card.presets, card.quick)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
    return cards


def declares_method(source: str) -> bool:
    """Whether a file is a method, and not a module that methods share; never fails, a broken file counts as one."""
    try:
        return bool(_declarations(ast.parse(source)))
    except SyntaxError:
        return True


def _declarations(tree: ast.Module) -> list[tuple[ast.FunctionDef, ast.Call]]:
    found = []
    for node in tree.body:
        for decorator in getattr(node, "decorator_list", []):
            if isinstance(node, ast.FunctionDef) and isinstance(decorator, ast.Call):
                name = decorator.func.attr if isinstance(decorator.func, ast.Attribute) else ast.unparse(decorator.func)
                if name == "method":
                    found.append((node, decorator))
    return found


def _static_card(tree: ast.Module, node: ast.FunctionDef, call: ast.Call, file: Path, module: str | None) -> MethodCard:
    if len(call.args) != 1 or any(keyword.arg is None for keyword in call.keywords):
        raise NotStaticError
    given = {str(keyword.arg): _static(keyword.value) for keyword in call.keywords}
    try:
        return MethodCard(
            name=_static(call.args[0]),
            title=given["title"],
            paper=given["paper"],
            doc=_first_line(ast.get_docstring(node) or ast.get_docstring(tree)),
            data=given["data"],
            access=given["access"],
            specs=_static_specs(tree, node),
            presets=given.get("presets") or {},
            quick=given.get("quick") or {},
            file=file,
            module=module,
        )
    except KeyError as missing:
        raise UserError(f"{file}, line {call.lineno}: @method needs {missing.args[0]}=...") from None


def _static_specs(tree: ast.Module, node: ast.FunctionDef) -> tuple[OptionSpec, ...]:
    parameters = node.args.args
    if len(parameters) < 2:
        return ()
    annotation = parameters[1].annotation
    for item in tree.body:
        if isinstance(item, ast.ClassDef) and isinstance(annotation, ast.Name) and item.name == annotation.id:
            if item.bases:
                raise NotStaticError
            return tuple(_static_spec(field) for field in item.body if isinstance(field, ast.AnnAssign))
    raise NotStaticError


def _static_spec(field: ast.AnnAssign) -> OptionSpec:
    if not isinstance(field.target, ast.Name) or field.value is None:
        raise NotStaticError
    name, kind = field.target.id, _static_type(field.annotation)
    value = field.value
    if not isinstance(value, ast.Call):
        return OptionSpec(name=name, type=kind, default=_static(value))
    if ast.unparse(value.func).split(".")[-1] != "option" or not value.args:
        raise NotStaticError
    given = {str(keyword.arg): _static(keyword.value) for keyword in value.keywords}
    doc = _static(value.args[1]) if len(value.args) > 1 else given.pop("doc", "")
    return OptionSpec(name=name, type=kind, default=_static(value.args[0]), doc=doc, **given)


_NAMES: dict[str, Any] = {"Data": Data, "Access": Access}
_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, bool, str, tuple)} | {"Literal": typing.Literal}


def _static(node: ast.expr) -> Any:
    """The value of a literal, or of ``Data.NONE`` and the like."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _NAMES:
        try:
            return _NAMES[node.value.id][node.attr]
        except KeyError:
            names = [member.name for member in _NAMES[node.value.id]]
            raise UserError(
                f"line {node.lineno}: {node.value.id} has no {node.attr}{nearest(node.attr, names)}"
            ) from None
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise NotStaticError from None


def _static_type(node: ast.expr) -> Any:
    """The type that an annotation made of int, float, bool, str, tuple, Literal and None stands for."""
    names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    others = [item for item in ast.walk(node) if isinstance(item, ast.Call | ast.Attribute | ast.Lambda)]
    if others or not names <= _TYPES.keys():
        raise NotStaticError
    # Only the names above and no call or attribute: nothing but building a type can happen here.
    return eval(compile(ast.Expression(node), "<annotation>", "eval"), {"__builtins__": {}}, dict(_TYPES))


def _card_of(declared: Method, file: Path, module: str | None) -> MethodCard:
    return MethodCard(
        name=declared.name,
        title=declared.title,
        paper=declared.paper,
        doc=_first_line(declared.run.__doc__),
        data=declared.data,
        access=declared.access,
        specs=declared.specs,
        presets=declared.presets,
        quick=declared.quick,
        file=file,
        module=module,
    )


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


@cache
def _file_hash(file: Path, stamp: tuple[int, int]) -> bytes:
    del stamp  # part of the cache's key only
    return hashlib.sha256(file.read_bytes()).digest()


def source_hash(file: Path) -> str:
    """Hash of a method file and of the modules beside it (or in ``methods``) that it imports, and they in turn."""
    seen: set[Path] = set()
    waiting = [file.resolve()]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += _neighbours(current)
    total = hashlib.sha256()
    for path in sorted(seen, key=lambda path: path.name):
        stat = path.stat()
        total.update(path.name.encode() + _file_hash(path, (stat.st_mtime_ns, stat.st_size)))
    return total.hexdigest()


def _neighbours(file: Path) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names} | {node.module or ""}
    found = []
    for name in names:
        parts = name.removeprefix("methods.").split(".")
        folder = BUILT_IN if name.startswith("methods.") else file.parent
        path = folder / f"{parts[0]}.py"
        if path.is_file() and path != file:
            found.append(path.resolve())
    return found
