"""Reading an options class and its bases from syntax trees, through as many files as they stand in, running none."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.spec.literals import NotStaticError, at, bind, called, static, static_type
from bench.spec.options import OptionSpec, check_spec, option, specs_of, unannotated
from bench.utils.user_code import BUILT_IN


@dataclass(frozen=True)
class ParsedFile:
    """A file's syntax tree, and how the file would be imported: under a dotted name, or by its path (``module`` None).

    ``beside`` is the folder that is searched first while it runs: that of a file of one's own; None in packages.
    """

    tree: ast.Module
    file: Path
    module: str | None
    beside: Path | None = None

    @property
    def searched(self) -> Path | None:
        return self.file.parent if self.module is None else self.beside


@dataclass
class _Reading:
    """The classes that were read, each once, so that two ways to one base lead to one class."""

    classes: dict[tuple[Path, str | None, str], type] = field(default_factory=dict)
    open: set[tuple[Path, str | None, str]] = field(default_factory=set)
    places: dict[tuple[type, str], tuple[Path, ast.stmt]] = field(default_factory=dict)  # where an option is declared


def static_specs(source: ParsedFile, name: str) -> tuple[OptionSpec, ...]:
    """The options of the class that a file knows under a name.

    The classes are built again from their literals, so that Python itself says what inheriting means, and reading and
    importing share one set of rules.

    Raises:
        NotStaticError: it, or a base, is not a frozen dataclass of literals that can be found without running anything.
        UserError: an option is wrong; with the file and the line where it is declared.
    """
    reading = _Reading()
    built = _class(source, name, None, reading)
    own = _binding(source.tree, name)
    with at(source.file, own):
        specs = specs_of(built)
    for spec in specs:
        owner = next(kind for kind in built.__mro__ if (kind, spec.name) in reading.places)
        with at(*reading.places[owner, spec.name]):
            check_spec(spec, specs)
    return specs


def _class(source: ParsedFile, name: str, before: int | None, reading: _Reading) -> type:
    """The class that a name stands for, in the file or where it is imported from; above a line, if one is given."""
    key = (source.file, source.module, name)
    if key in reading.open:
        raise NotStaticError
    if key not in reading.classes:
        reading.open.add(key)
        node = _binding(source.tree, name)
        if before is not None and node.lineno >= before:
            raise NotStaticError
        if isinstance(node, ast.ClassDef):
            reading.classes[key] = _built(source, node, reading)
        elif isinstance(node, ast.ImportFrom):
            original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
            reading.classes[key] = _class(_imported(source, node), original, None, reading)
        else:
            raise NotStaticError
        reading.open.remove(key)
    return reading.classes[key]


def _binding(tree: ast.Module, name: str) -> ast.stmt:
    """The one statement of a module that gives a name its meaning."""
    found = _bindings(tree).get(name, [])
    if len(found) != 1 or not isinstance(found[0], ast.stmt) or found[0] not in tree.body:
        raise NotStaticError
    return found[0]


@lru_cache(maxsize=64)
def _bindings(tree: ast.Module) -> dict[str, list[ast.AST]]:
    found: dict[str, list[ast.AST]] = {}
    for node in ast.walk(tree):
        for name in _bound(node):
            found.setdefault(name, []).append(node)
    return found


def _bound(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    return [node.id] if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) else []


def _built(source: ParsedFile, node: ast.ClassDef, reading: _Reading) -> type:
    if node.keywords or not _is_frozen(node):
        raise NotStaticError
    names = [base.id for base in node.bases if isinstance(base, ast.Name)]
    if len(names) != len(node.bases):
        raise NotStaticError
    bases = tuple(_class(source, name, node.lineno, reading) for name in names)
    inherited = {each.name for base in bases for each in dataclasses.fields(base)}
    lines: dict[str, ast.stmt] = {}
    fields = []
    functions = set()
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id not in lines:
            lines[item.target.id] = item
            fields.append((item.target.id, static_type(item.annotation), _default(item.value, source.file)))
        elif isinstance(item, ast.Assign):
            _refuse_unannotated(item, inherited, source.file, node.name)
            raise NotStaticError
        elif isinstance(item, ast.FunctionDef):
            functions.add(item.name)
        elif not isinstance(item, ast.Pass) and not _is_text(item):
            raise NotStaticError
    if functions & {*lines, *inherited, "__init_subclass__"}:
        raise NotStaticError
    try:
        built = dataclasses.make_dataclass(
            node.name, fields, bases=bases, frozen=True, init=False, repr=False, eq=False
        )
    except (TypeError, ValueError):
        raise NotStaticError from None  # the import fails in the same way, and says where
    reading.places |= {(built, name): (source.file, line) for name, line in lines.items()}
    return built


def _is_frozen(node: ast.ClassDef) -> bool:
    return [ast.unparse(each).rpartition("dataclasses.")[2] for each in node.decorator_list] == [
        "dataclass(frozen=True)"
    ]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _refuse_unannotated(node: ast.Assign, inherited: set[str], file: Path, owner: str) -> None:
    for target in node.targets:
        if isinstance(target, ast.Name) and target.id in inherited:
            with at(file, node):
                raise unannotated(target.id, owner)


def _default(node: ast.expr | None, file: Path) -> Any:
    """What stands behind the ``=`` of an option: a literal, or ``option(...)`` of literals."""
    if node is None:
        raise NotStaticError
    if not isinstance(node, ast.Call):
        return static(node, file)
    if called(node) != "option":
        raise NotStaticError
    given = bind(option, node, file)
    with at(file, node):
        return option(**given)


# ---- modules that are imported from ---------------------------------------------------------------------------------


def _imported(source: ParsedFile, node: ast.ImportFrom) -> ParsedFile:
    """The project's module that a name is imported from: of the same package, of ``methods``, or beside one's file."""
    own = source.module.split(".") if source.module else []
    wanted = node.module.split(".") if node.module else []
    if node.level:
        package = own if source.file.name == "__init__.py" else own[:-1]
        package = package[: len(package) - (node.level - 1)]
        if not package:
            raise NotStaticError
        wanted = [*package, *wanted]
    beside = None
    if own and wanted[0] == own[0]:
        root = source.file.parents[len(own) if source.file.name == "__init__.py" else len(own) - 1]
        beside = source.beside
    elif wanted[0] == BUILT_IN.name and not _hides_the_built_in(source.searched):
        root = BUILT_IN.parent
    elif source.searched is not None and _found_only_in(source.searched, wanted[0]):
        root = beside = source.searched
    else:
        raise NotStaticError
    file = _file_of(root, wanted)
    try:
        return ParsedFile(_parsed(file.read_bytes()), file, ".".join(wanted), beside)
    except (OSError, SyntaxError, ValueError):
        raise NotStaticError from None  # the import fails as well


@lru_cache(maxsize=64)  # many methods share few bases
def _parsed(content: bytes) -> ast.Module:
    return ast.parse(content)


def _hides_the_built_in(folder: Path | None) -> bool:
    """Whether a folder that is searched first has other modules under the name of the built-in methods' package."""
    if folder is None or folder == BUILT_IN.parent:
        return False
    return (folder / BUILT_IN.name).exists() or (folder / f"{BUILT_IN.name}.py").exists()


def _found_only_in(folder: Path, name: str) -> bool:
    """Whether no other module would be imported under a top-level name; finding out runs nothing."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    places = (folder / f"{name}.py", folder / name / "__init__.py")
    return spec is None or (spec.origin is not None and Path(spec.origin).resolve() in places)


def _file_of(root: Path, names: list[str]) -> Path:
    folder = root
    for name in names[:-1]:
        folder /= name
        if folder.with_name(f"{name}.py").exists() and not (folder / "__init__.py").exists():
            raise NotStaticError  # the module has the name, and not the folder
    for file in (folder / names[-1] / "__init__.py", folder / f"{names[-1]}.py"):
        if file.is_file():
            return file
    raise NotStaticError
