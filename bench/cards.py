"""The registry of methods: what each file declares, read without running it.

A method file imports torch, which takes seconds; listing methods and checking a study must not. So a card is read from
the file's syntax tree. A file that computes its declaration is imported instead: slower, the same answer.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.declare import Access, Data, Method, check_declared, declared_in, method
from bench.errors import UserError, nearest
from bench.options import OptionSpec, Value, alternatives, check_spec, check_value, option, specs_of, supported

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
        """Every option at its default, in the option's own type: an int that stands for a float is that float."""
        return {spec.name: check_value(spec, spec.default) for spec in self.specs}


class NotStaticError(Exception):
    """A declaration that is computed when the file runs."""


def find_methods(files: Iterable[Path] = ()) -> dict[str, MethodCard]:
    """All methods: built in, from installed packages' entry points, and from the given files, by name.

    Raises:
        UserError: a file cannot be read, has a syntax error or no method, or two methods share a name.
    """
    cards = dict(_installed_methods())
    for file in files:
        _register(cards, read_cards(file), str(file))
    return cards


def _register(cards: dict[str, MethodCard], found: Iterable[MethodCard], origin: str) -> None:
    for card in found:
        other = cards.get(card.name)
        if other is not None and other.file != card.file:
            raise UserError(f"{origin}: the name {card.name!r} is taken by {other.file}; give the method another name")
        cards[card.name] = card


@cache
def _installed_methods() -> Mapping[str, MethodCard]:
    cards: dict[str, MethodCard] = {}
    for file in sorted(BUILT_IN.glob("*.py")):
        if declares_method(file.read_bytes()):
            _register(cards, read_cards(file, f"methods.{file.stem}"), str(file))
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        origin = f"entry point {entry.name!r} ({ENTRY_POINTS})"
        try:
            spec = importlib.util.find_spec(entry.module)  # runs the packages around the module, but not the module
        except Exception as error:
            raise UserError(f"{origin}: finding {entry.module!r} fails with {type(error).__name__}: {error}") from error
        if spec is None or spec.origin is None:
            raise UserError(f"{origin} names {entry.module!r}, which is not installed")
        _register(cards, read_cards(Path(spec.origin), entry.module), origin)
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
        try:
            with _beside(file.parent):
                spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[name]
            raise
        return loaded
    except UserError as error:
        raise UserError(f"{file}{_line_in(error, file)}: {error}") from None
    except (Exception, SystemExit) as error:
        line = _line_in(error, file)
        raise UserError(f"{file}{line}: importing it fails with {type(error).__name__}: {error}") from error


_OURS = ("bench", "methods")
_neighbours_loaded: set[str] = set()


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """While a method file runs it may import the modules beside it; those of the file before make way for its own."""
    while _neighbours_loaded:
        sys.modules.pop(_neighbours_loaded.pop(), None)
    before = set(sys.modules)
    importlib.invalidate_caches()  # a neighbour may have been written a moment ago
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            top = name.partition(".")[0]
            origin = getattr(sys.modules.get(top), "__file__", None)
            if top not in _OURS and origin and Path(origin) in (folder / f"{top}.py", folder / top / "__init__.py"):
                _neighbours_loaded.add(name)


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
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"{file}{line}: not valid Python: {getattr(error, 'msg', error)}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    try:
        cards = [_static_card(tree, node, call, file, module) for node, call in _declarations(tree)]
    except NotStaticError:
        cards = []
    if not cards:
        cards = [_card_of(declared, file, module) for declared in declared_in(import_module(file, module))]
    if not cards:
        raise UserError(f"{file}: no method in it; decorate a function with @method(...), see docs/writing-a-method.md")
    names = [card.name for card in cards]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{file}: two methods are called {name!r}")
    return cards


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
    doc = _first_line(ast.get_docstring(node) or ast.get_docstring(tree))
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
            fields.append((item.target.id, _static_type(item.annotation), _static_default(item.value, file)))
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


def _static_type(node: ast.expr) -> Any:
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


def _card_of(declared: Method, file: Path, module: str | None) -> MethodCard:
    return MethodCard(
        name=declared.name,
        title=declared.title,
        paper=declared.paper,
        doc=_first_line(declared.run.__doc__ or sys.modules[declared.run.__module__].__doc__),
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


def source_hash(file: Path) -> str:
    """Hash of a method file and of the modules that it imports from its own folder, its own package or ``methods``,
    and they in turn. Where the files lie and libraries do not count."""
    contents: dict[Path, bytes] = {}
    waiting = [file.resolve()]
    while waiting:
        current = waiting.pop()
        if current not in contents:
            contents[current] = current.read_bytes()
            waiting += _imported(current, contents[current])
    parts = sorted(path.name.encode() + hashlib.sha256(content).digest() for path, content in contents.items())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _imported(file: Path, source: bytes) -> list[Path]:
    """The files behind a file's imports, as far as they belong to the method."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    top = file.parent  # the folder that holds the file's outermost package
    while (top / "__init__.py").exists():
        top = top.parent
    found: list[Path] = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [".".join(filter(None, (node.module, name))) for name in names]
        for name in names:
            first = name.partition(".")[0]
            if isinstance(node, ast.ImportFrom) and node.level:
                found += _modules(file.parents[min(node.level, len(file.parents)) - 1], name)
            elif first == "methods":
                found += _modules(BUILT_IN.parent, name)
            elif first == file.relative_to(top).parts[0]:
                found += _modules(top, name)
            elif first != "bench":  # the suite's own version stands for it
                found += _modules(file.parent, name)
    return found


def _modules(folder: Path, name: str) -> list[Path]:
    """The files that ``import name`` runs where ``folder`` is searched: the packages on the way and the module."""
    found = []
    for part in name.split("."):
        found += [path.resolve() for path in (folder / f"{part}.py", folder / part / "__init__.py") if path.is_file()]
        folder /= part
    return found
