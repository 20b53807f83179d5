"""What makes two versions of a piece of code the same: a hash of its meaning, not of its bytes.

The hash is taken over the syntax tree of a file and over the definitions of the project's other modules that the file
really reaches. It is the same on every version of Python that can read the file.

Left out: comments and formatting, docstrings and other constants that stand alone, annotations, ``if TYPE_CHECKING:``,
the order of the imports, imports that nothing uses, and what only describes an option or a method (``option``'s words
and unit, ``method``'s title and paper).

Of other modules (those of the file's folder, of its package and of ``methods``) only the definitions count that are
reached by name, and whatever else runs on import: a loop, a call, a name that a call of the project's own code gives.
Where the modules lie, what they are called and under which names they are imported does not matter. A module that is
used otherwise than by the names in it (``from m import *``, ``getattr(m, ...)``) counts whole, and so does one whose
code looks names up while it runs (``globals()``, ``eval``). A file that cannot be read as Python, or is nested more
than 100 levels deep, counts by its bytes.

Of libraries the names count that are used, not their code. Of ``bench`` only a name's last part counts: the suite's own
version stands for it.

Not seen: data files that the code reads, modules that are found by a computed name, the effects of importing a library,
and code that reads its own docstrings or annotations. (An annotation that a decorator or a base class of a library may
read does count, except those of torch and of the standard library's usual ones.)
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.utils.user_code import BUILT_IN, source_hash

RULE = 2  # of the hashes that new trials get; a trial's identity names it
DEEPEST = 100  # levels of a syntax tree

Import = ast.Import | ast.ImportFrom
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# what decorates or is inherited from without looking at annotations or registering anything
HARMLESS = ("abc", "bench", "collections", "contextlib", "dataclasses", "enum", "functools", "torch", "typing")
LOOKS_AT_TYPES = ("functools.singledispatch", "functools.singledispatchmethod", "torch.jit", "torch.library")
LOOKS_UP_NAMES = {"globals", "locals", "vars", "eval", "exec", "compile", "__import__"}
LOOKS_UP_MODULES = ("importlib", "inspect", "pkgutil", "runpy", "sys.modules")
CHANGES_THINGS = {"eval", "exec", "open", "print", "input", "setattr", "delattr", "__import__", "globals", "vars"}
FIELD_KINDS = ("ClassVar", "InitVar", "KW_ONLY")
WORDS = {"option": ({1}, {"doc", "unit"}), "method": (set[int](), {"title", "paper"})}  # arguments that only describe


def code_hash(file: Path, methods: Path = BUILT_IN) -> str:
    """The hash of a file's meaning, 64 hex digits: see this module.

    Args:
        file: a Python file.
        methods: the folder that ``import methods`` means.

    Raises:
        OSError: the file cannot be read.
    """
    project = Project(file.resolve(), methods.resolve())
    parts = sorted(filter(None, (_effects(project, module) for module in _run_on_import(project))))
    text = "\n".join([f"code identity, rule {RULE}", _Writer(project).file(project.root), *parts])
    return hashlib.sha256(text.encode()).hexdigest()


# A later rule is a new line here: records name the rule of their hash, and each is computed by its own.
RULES: dict[int, Callable[[Path], str]] = {1: source_hash, 2: code_hash}


# --- a file as a tree without what does not count


@dataclass(frozen=True)
class Module:
    """A file's statements without what does not count.

    ``body`` is None where the file counts by its bytes. ``bound`` has for every name of the module the top-level
    statements that may bind it, in their order; one that does so twice is there twice.
    """

    file: Path
    digest: str
    body: list[ast.stmt] | None = None
    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: tuple[ast.AST, ...] = ()  # wherever they stand, with calls of import_module


_READ: dict[Path, Module] = {}  # the latest version of each file


def _read(file: Path) -> Module:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    known = _READ.get(file)
    if known is None or known.digest != digest:
        known = _READ[file] = _parse(file, content, digest)
    return known


def _parse(file: Path, content: bytes, digest: str) -> Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a strange escape in a string; the import tells
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Module(file, digest)
    levels = _levels(tree)
    if len(levels) > DEEPEST:
        return Module(file, digest)
    nodes = [node for level in levels for node in level]
    checking = _type_checking(nodes)
    for node in nodes:
        for name in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, name, None), list):
                setattr(node, name, list(_lean(statements, checking)))
    bound: dict[str, list[ast.stmt]] = defaultdict(list)
    imports: list[ast.AST] = []
    for statement in tree.body:
        for name, places in _bindings([statement]).names.items():
            bound[name] += [statement] * len(places)
        for node in ast.walk(statement):
            if isinstance(node, Import) or (isinstance(node, ast.Call) and _name_in_call(node)):
                imports.append(node)
            elif isinstance(node, ast.Global):
                for name in node.names:
                    bound[name].append(statement)
    return Module(file, digest, tree.body, {name: found for name, found in bound.items() if found}, tuple(imports))


def _name_in_call(node: ast.AST) -> str:
    """The text that ``import_module`` or ``__import__`` is called with; empty for other nodes."""
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return ""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    name = node.args[0].value
    return name if called in ("import_module", "__import__") and isinstance(name, str) else ""


def _levels(tree: ast.AST) -> list[list[ast.AST]]:
    found: list[list[ast.AST]] = []
    level: list[ast.AST] = [tree]
    while level:
        found.append(level)
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return found


def _type_checking(nodes: Iterable[ast.AST]) -> set[str]:
    """The names, dotted or not, under which a file knows ``typing.TYPE_CHECKING``."""
    found, assigned = set(), set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "typing" and not node.level:
            found |= {alias.asname or alias.name for alias in node.names if alias.name == "TYPE_CHECKING"}
        elif isinstance(node, ast.Import):
            found |= {f"{a.asname or a.name}.TYPE_CHECKING" for a in node.names if a.name == "typing"}
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            assigned.add(node.id)
    return {name for name in found if name.partition(".")[0] not in assigned}


def _lean(statements: Iterable[ast.stmt], checking: set[str]) -> Iterator[ast.stmt]:
    for statement in statements:
        if isinstance(statement, ast.Pass) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            continue
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            continue
        if isinstance(statement, ast.If) and _never(statement.test, checking):
            yield from _lean(statement.orelse, checking)
        else:
            yield statement


def _never(test: ast.expr, checking: set[str]) -> bool:
    """Whether a condition is false when the file is imported: TYPE_CHECKING, or being the program itself."""
    if isinstance(test, ast.Attribute) and isinstance(test.value, ast.Name):
        return f"{test.value.id}.{test.attr}" in checking
    if isinstance(test, ast.Name):
        return test.id in checking
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and [type(each) for each in test.ops] == [ast.Eq]
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == "__main__"
    )


# --- which names a piece of code binds


class Bindings(NamedTuple):
    """The names that a scope binds, each with the nodes that bind it, and those that it takes from further out."""

    names: dict[str, list[ast.AST]]
    outer: set[str]  # declared global
    enclosing: set[str]  # declared nonlocal


def _bindings(nodes: Iterable[ast.AST]) -> Bindings:
    """What these statements bind in their own scope; the inside of functions and classes is another's."""
    names: dict[str, list[ast.AST]] = defaultdict(list)
    outer: set[str] = set()
    enclosing: set[str] = set()
    waiting = list(nodes)[::-1]
    while waiting:
        node = waiting.pop()
        inside: list[ast.AST] = []
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            names[node.name].append(node)
            inside = [*node.decorator_list, *(_defaults(node.args) if isinstance(node, FUNCTIONS) else node.bases)]
        elif isinstance(node, ast.Lambda):
            inside = [*_defaults(node.args)]
        elif isinstance(node, COMPREHENSIONS):  # only a name given by := leaves it
            for each in ast.walk(node):
                if isinstance(each, ast.NamedExpr):
                    names[each.target.id].append(each)
        elif isinstance(node, Import):
            for alias in node.names:
                names[bound_name(alias, node)].append(node)
        elif isinstance(node, ast.Global):
            outer |= set(node.names)
        elif isinstance(node, ast.Nonlocal):
            enclosing |= set(node.names)
        else:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                names[node.id].append(node)
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                names[node.name].append(node)
            elif isinstance(node, ast.MatchMapping) and node.rest:
                names[node.rest].append(node)
            elif isinstance(node, ast.AnnAssign) and node.value is None and isinstance(node.target, ast.Name):
                names[node.target.id]  # local in a function, though nothing binds it here
                continue
            inside = list(ast.iter_child_nodes(node))
        waiting += inside[::-1]
    names.pop("*", None)
    return Bindings(dict(names), outer, enclosing)


def bound_name(alias: ast.alias, node: Import) -> str:
    if isinstance(node, ast.ImportFrom):
        return alias.asname or alias.name
    return alias.asname or alias.name.partition(".")[0]


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    return [*arguments.defaults, *filter(None, arguments.kw_defaults)]


def _all_arguments(arguments: ast.arguments) -> list[ast.arg]:
    several = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [*several, *filter(None, (arguments.vararg, arguments.kwarg))]


@dataclass(frozen=True)
class Scope:
    """A function, class or comprehension, within ``parent`` (None: the module)."""

    kind: Literal["function", "class"]
    parent: Scope | None
    names: dict[str, list[ast.AST]]
    outer: set[str] = field(default_factory=set)
    fields: Literal["", "named", "annotated"] = ""  # of a class: whether annotated names are fields, with their types


def _inner(kind: Literal["function", "class"], parent: Scope | None, body: Sequence[ast.AST], own: Iterable[str],
           fields: Literal["", "named", "annotated"] = "") -> Scope:  # fmt: skip
    found = _bindings(body)
    names = {name: places for name, places in found.names.items() if name not in found.enclosing | found.outer}
    return Scope(kind, parent, {**names, **{name: [] for name in own}}, found.outer, fields)


def _owner(name: str, scope: Scope | None) -> Scope | None:
    """The scope whose name it is; None: the module's, or a builtin."""
    here = scope
    while here is not None:
        if name in here.outer:
            return None
        if name in here.names and (here.kind != "class" or here is scope):
            return here
        here = here.parent
    return None


# --- where names lead


class Library(NamedTuple):
    name: str  # qualified


class Definition(NamedTuple):
    file: Path
    name: str


class Location(NamedTuple):
    """A module (a file), a package (both) or a plain folder."""

    file: Path | None
    folder: Path | None


class Unknown(NamedTuple):
    """A name that a module seems to lack: it may make it while it runs."""

    place: Location
    name: str


Target = Library | Definition | Location | Unknown
Seen = frozenset[tuple[Path, str]]  # names on the way, for modules that import each other


@cache
def _libraries() -> frozenset[Path]:
    return frozenset(Path(path).resolve() for path in sysconfig.get_paths().values())


def _package_top(file: Path) -> Path:
    """The folder that holds the file's outermost package: its own, where it is in none."""
    top = file.parent
    while (top / "__init__.py").exists():
        top = top.parent
    return top


class Project:
    """The modules that count beside a file, and where a name in one of them leads."""

    def __init__(self, file: Path, methods: Path) -> None:
        self.file, self.methods = file, methods
        self.root = _read(file)
        self._known: dict[Path, Module] = {file: self.root}  # each file is read once, whatever happens to it meanwhile
        self._steps: dict[tuple[Path, str], Location | None] = {}
        self._tops: dict[Path, Path] = {}

    def module(self, file: Path) -> Module:
        if file not in self._known:
            self._known[file] = _read(file)
        return self._known[file]

    def step(self, folder: Path, name: str) -> Location | None:
        """The module, package or plain folder of this name in a folder."""
        if (folder, name) not in self._steps:
            below, plain = folder / name, folder / f"{name}.py"
            package = below / "__init__.py"
            found = None
            if package.is_file():
                found = Location(package.resolve(), below.resolve())
            elif plain.is_file():
                found = Location(plain.resolve(), None)
            elif below.is_dir():
                found = Location(None, below.resolve())
            self._steps[folder, name] = found
        return self._steps[folder, name]

    def path(self, module: Module, name: str, level: int) -> list[Location]:
        """The packages on the way to a module and itself; empty if it is not the project's."""
        parts = name.split(".") if name else []
        if level:
            folder = module.file.parents[min(level, len(module.file.parents)) - 1]
            start = Location(folder / "__init__.py" if (folder / "__init__.py").is_file() else None, folder)
            return self._down([start], parts)
        if parts[0] == "bench":
            return []
        if parts[0] == "methods":
            return self._down([Location(None, self.methods.parent)], parts)[1:]
        top = self._tops.setdefault(module.file, _package_top(module.file))
        if top != module.file.parent and parts[0] == module.file.relative_to(top).parts[0]:
            return self._down([Location(None, top)], parts)[1:]
        for folder in dict.fromkeys((module.file.parent, self.file.parent)):
            if folder not in _libraries() and (found := self._down([Location(None, folder)], parts)):
                return found[1:]
        return []

    def _down(self, start: list[Location], parts: Sequence[str]) -> list[Location]:
        found = start
        for part in parts:
            folder = found[-1].folder
            place = self.step(folder, part) if folder is not None else None
            if place is None:
                return []
            found = [*found, place]
        return found

    def imported(self, module: Module, node: Import) -> list[Location]:
        """The project's modules that an import runs."""
        found = []
        for alias in node.names:
            name = alias.name if isinstance(node, ast.Import) else node.module or ""
            way = self.path(module, name, 0 if isinstance(node, ast.Import) else node.level)
            found += way
            if isinstance(node, ast.ImportFrom) and way and way[-1].folder and alias.name != "*":
                below = self.step(way[-1].folder, alias.name)
                found += [below] if below else []
        return [place for place in found if place.file]

    def target(self, module: Module, node: Import, alias: ast.alias, seen: Seen = frozenset()) -> Target:
        """Where the name that an import binds leads."""
        if isinstance(node, ast.Import):
            way = self.path(module, alias.name, 0)
            if way and way[-1].file:
                return way[-1] if alias.asname else way[0]
            return _library(alias.name if alias.asname else alias.name.partition(".")[0])
        way = self.path(module, node.module or "", node.level)
        if way and alias.name == "*":
            return way[-1]
        if way and (found := self.member(way[-1], alias.name, seen)):
            return found
        if way and way[-1].file:
            return Unknown(way[-1], alias.name)
        return _library("." * node.level + ".".join(filter(None, (node.module, alias.name))))

    def member(self, place: Location, name: str, seen: Seen = frozenset()) -> Target | None:
        """What a module has under a name: its own, or a module below it. None if that cannot be said."""
        if place.file:
            module = self.module(place.file)
            if module.body is None:
                return None
            if name in module.bound:
                return self.named(module, name, seen)
        return self.step(place.folder, name) if place.folder else None

    def named(self, module: Module, name: str, seen: Seen = frozenset()) -> Target:
        """Where a name that a module binds leads: through an import, if nothing else binds it."""
        here = (module.file, name)
        found = only_import(module.bound[name], name)
        if found and here not in seen:
            return self.target(module, *found, seen | {here})
        return Definition(*here)


def only_import(places: Sequence[ast.AST], name: str) -> tuple[Import, ast.alias] | None:
    """The import that binds a name, if nothing else does."""
    if len(places) == 1 and isinstance(node := places[0], Import):
        return node, next(alias for alias in node.names if bound_name(alias, node) == name)
    return None


def _library(name: str) -> Library:
    """The suite may move what it offers: only the last part counts."""
    return Library("bench:" + name.rpartition(".")[2] if name.partition(".")[0] == "bench" else name)


def _within(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _run_on_import(project: Project) -> list[Module]:
    """Every module that importing the file runs, or that one of its functions may import; the file itself first."""
    found: dict[Path, Module] = {project.file: project.root}
    waiting = [project.root]
    while waiting:
        module = waiting.pop()
        for node in module.imports:
            places = (
                project.imported(module, node) if isinstance(node, Import) else _named_modules(project, module, node)
            )
            for place in places:
                if place.file and place.file not in found:
                    found[place.file] = project.module(place.file)
                    waiting.append(found[place.file])
    return list(found.values())


def _named_modules(project: Project, module: Module, node: ast.AST) -> list[Location]:
    """The modules behind ``importlib.import_module("name")`` and ``__import__("name")``."""
    name = _name_in_call(node)
    level = len(name) - len(name.lstrip("."))
    return project.path(module, name[level:], level) if name[level:] else []


# --- what a module does when it is imported


def _effects(project: Project, module: Module) -> str:
    """A hash of what a module does on import beyond making its names; empty for none, and for the file itself."""
    if module is project.root:
        return ""
    if module.body is None:
        return _Writer(project).file(module)
    statements = [statement for statement in module.body if _acts(project, module, statement)]
    return _Writer(project).statements(module, statements) if statements else ""


def _acts(project: Project, module: Module, statement: ast.stmt) -> bool:
    """Whether running a statement may do more than bind names to new things."""
    if isinstance(statement, ast.ImportFrom):
        return any(alias.name == "*" for alias in statement.names)
    if isinstance(statement, ast.Import):
        return False
    if isinstance(statement, FUNCTIONS):
        return any(_acts_on(project, module, each) for each in _defaults(statement.args)) or any(
            not _harmless(project, module, each) for each in statement.decorator_list
        )
    if isinstance(statement, ast.ClassDef):
        return (
            bool(statement.keywords)
            or any(not _harmless(project, module, each) for each in statement.decorator_list)
            or any(_acts_on(project, module, each) or _notices(project, module, each) for each in statement.bases)
            or any(_acts(project, module, each) for each in statement.body)
        )
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        plain = (ast.Name, ast.Tuple, ast.List, ast.Starred)
        parts = [part for target in targets for part in ast.walk(target)]
        simple = all(isinstance(part, (*plain, ast.expr_context)) for part in parts)
        return not simple or (statement.value is not None and _acts_on(project, module, statement.value))
    return type(statement).__name__ != "TypeAlias"


def _acts_on(project: Project, module: Module, expression: ast.expr) -> bool:
    """Whether an expression calls code of the project's, or what cannot be known; libraries make new things."""
    waiting: list[ast.AST] = [expression]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Lambda):
            waiting += _defaults(node.args)
            continue
        if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            return True
        if isinstance(node, ast.Call):
            root: ast.AST = node.func
            while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
                root = root.func if isinstance(root, ast.Call) else root.value
            if isinstance(root, ast.Name):
                target = project.named(module, root.id) if root.id in module.bound else None
                known = target is None and hasattr(builtins, root.id) and root.id not in CHANGES_THINGS
                if not (known or isinstance(target, Library)):
                    return True
            elif not isinstance(root, ast.Constant | ast.JoinedStr):
                return True
        waiting += ast.iter_child_nodes(node)
    return False


def _qualified(project: Project, module: Module, node: ast.expr) -> str | None:
    """The library's or Python's name that an expression stands for, None for the project's own and what is computed."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    if node.id not in module.bound:
        return ".".join([f"builtins.{node.id}", *parts[::-1]]) if hasattr(builtins, node.id) else None
    target = project.named(module, node.id)
    if not isinstance(target, Library):
        return None
    return ".".join([target.name.replace("bench:", "bench."), *parts[::-1]])


def _harmless(project: Project, module: Module, node: ast.expr) -> bool:
    """Whether a decorator or a base class is known to look at no annotation, and to register nothing."""
    if isinstance(node, ast.Attribute) and node.attr in ("setter", "getter", "deleter"):
        return True
    if isinstance(node, ast.Call) and any(_acts_on(project, module, each) for each in node.args):
        return False
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    name = _qualified(project, module, node)
    return name is not None and _within(name, (*HARMLESS, "builtins")) and not _within(name, LOOKS_AT_TYPES)


def _notices(project: Project, module: Module, base: ast.expr, seen: Seen = frozenset()) -> bool:
    """Whether a base class is the project's own and is told of its subclasses."""
    while isinstance(base, ast.Subscript):
        base = base.value
    target: Target | None = None
    parts = []
    while isinstance(base, ast.Attribute):
        parts.append(base.attr)
        base = base.value
    if isinstance(base, ast.Name) and base.id in module.bound:
        target = project.named(module, base.id)
    while parts and isinstance(target, Location):
        target = project.member(target, parts.pop())
    if not isinstance(target, Definition):
        return isinstance(target, Unknown)
    if parts or target in seen:
        return bool(parts)
    home = project.module(target.file)
    for statement in home.bound[target.name]:
        if not isinstance(statement, ast.ClassDef) or statement.keywords:
            return True
        names = _bindings(statement.body).names
        if "__init_subclass__" in names or "__class_getitem__" in names:
            return True
        if any(_notices(project, home, each, seen | {target}) for each in statement.bases):
            return True
    return False


# --- the tree as text


class _Writer:
    """Writes code in a form in which everything that does not count is missing.

    A definition of another module is written as a number, in the order in which they are met; then they follow in turn.
    So their names and places do not matter, and definitions may need each other in circles.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._module = project.root  # whose code is being written
        self._whole = False  # whether all of that module is being written
        self._numbers: dict[Definition | Location, int] = {}
        self._waiting: list[Definition | Location] = []
        self._out: list[str] = []

    def file(self, module: Module) -> str:
        """The hash of a whole file."""
        self._write_module(module)
        return self._finished()

    def statements(self, module: Module, statements: Sequence[ast.stmt]) -> str:
        """The hash of some of a module's statements."""
        self._module = module
        self._body(statements, None)
        return self._finished()

    def _finished(self) -> str:
        done = 0
        while done < len(self._waiting):
            self._out.append(f"\n{done}")
            self._write_definition(self._waiting[done])
            done += 1
        return hashlib.sha256("".join(self._out).encode("utf-8", "surrogatepass")).hexdigest()

    def _write_definition(self, target: Definition | Location) -> None:
        if isinstance(target, Definition):
            self._module, self._whole = self._project.module(target.file), False
            for statement in dict.fromkeys(self._module.bound[target.name]):
                if isinstance(statement, Import):
                    self._import(statement, None, only=target.name)
                else:
                    self._body([statement], None)
            return
        if target.file:
            module = self._project.module(target.file)
            self._write_module(module)
            self._names_of(module)
        if target.folder:  # it may be asked for any module below it
            for file in sorted(target.folder.rglob("*.py")):
                if file.resolve() != target.file:
                    self._refer(Location(file.resolve(), None))

    def _write_module(self, module: Module) -> None:
        if module.body is None:
            return self._text(f"bytes {module.digest}")
        self._module, self._whole = module, True
        return self._body(module.body, None)

    def _names_of(self, module: Module) -> None:
        """What a module has by import, for code that looks names up while it runs."""
        for name in sorted(module.bound):
            if only_import(module.bound[name], name):
                self._text(name)
                self._target(self._project.named(module, name))

    # tokens

    def _text(self, text: str) -> None:
        self._out.append(f"{len(text)}:{text}")

    def _mark(self, mark: str) -> None:
        self._out.append(mark)

    def _refer(self, target: Definition | Location) -> None:
        if target not in self._numbers:
            self._numbers[target] = len(self._waiting)
            self._waiting.append(target)
        self._out.append(f"#{self._numbers[target]} ")

    def _target(self, target: Target) -> None:
        """A name, as what it leads to."""
        if isinstance(target, Library):
            self._mark("L")
            self._text(target.name)
            if _within(target.name, LOOKS_UP_MODULES):
                self._looks_up()
        elif isinstance(target, Unknown):
            self._refer(target.place)
            self._text(target.name)
        elif isinstance(target, Definition) and self._whole and target.file == self._module.file:
            self._mark("G")
            self._text(target.name)
        else:
            self._refer(target)

    def _looks_up(self) -> None:
        """Code that finds names while it runs may find any of its own module's."""
        self._refer(Location(self._module.file, None))

    # names

    def _lookup(self, name: str, scope: Scope | None) -> Target | None:
        """Where a name leads from a scope; None for a local name, and for one that nothing binds."""
        owner = _owner(name, scope)
        if owner is not None:
            found = only_import(owner.names[name], name)
            return self._project.target(self._module, *found) if found else None
        return self._project.named(self._module, name) if name in self._module.bound else None

    def _name(self, name: str, scope: Scope | None) -> None:
        owner = _owner(name, scope)
        target = self._lookup(name, scope)
        if target is not None:
            self._target(target)
            return
        self._mark("N" if owner is not None else "B")
        self._text(name)
        if owner is None and name in LOOKS_UP_NAMES:
            self._looks_up()
        if owner is not None and owner.kind == "class" and name in self._module.bound:
            # before the class binds it, it is the module's
            self._target(self._project.named(self._module, name))

    def _chain(self, node: ast.expr, scope: Scope | None) -> tuple[Target | None, ast.expr, list[str]]:
        """``a.b.c`` as what its beginning leads to, its innermost node, and the rest of its names (the last first)."""
        names = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        target = self._lookup(node.id, scope) if isinstance(node, ast.Name) else None
        rest = names[::-1]
        while rest and isinstance(target, Location):
            further = self._project.member(target, rest[0])
            if further is None:
                break
            target = further
            rest = rest[1:]
        return target, node, rest

    def _attribute(self, node: ast.Attribute, scope: Scope | None) -> None:
        target, first, rest = self._chain(node, scope)
        if target is not None and not rest:  # as if it had been imported by its name
            self._target(target)
            return
        self._mark(f"(.{len(rest)}")
        for name in rest:
            self._text(name)
        if target is None:
            self._node(first, scope)
        else:
            self._target(target)
        if isinstance(target, Library) and _within(f"{target.name}.{'.'.join(rest)}", LOOKS_UP_MODULES):
            self._looks_up()
        self._mark(")")

    # nodes

    def _node(self, node: ast.AST, scope: Scope | None) -> None:
        special = _SPECIAL.get(type(node))
        if special is not None:
            special(self, node, scope)
        else:
            self._plain(node, scope)

    def _plain(self, node: ast.AST, scope: Scope | None, **changed: Any) -> None:
        """A node of any kind: its fields that are not empty, by their names."""
        self._mark(f"({type(node).__name__}")
        for name in _fields(node._fields):
            value = changed[name] if name in changed else getattr(node, name, None)
            if value is None or value == []:
                continue
            self._mark(f" {name}=")
            if isinstance(value, ast.AST):
                self._node(value, scope)
            elif not isinstance(value, list):
                self._text(repr(value))
            elif isinstance(value[0], ast.stmt):
                self._body(value, scope)
            else:
                self._mark("[")
                for item in value:
                    if isinstance(item, ast.AST):
                        self._node(item, scope)
                    else:
                        self._text(repr(item))
                self._mark("]")
        self._mark(")")

    def _body(self, statements: Sequence[ast.stmt], scope: Scope | None) -> None:
        """Statements in their order; imports that follow each other in that of their names."""
        imports: list[Import] = []
        self._mark("{")
        for statement in statements:
            if isinstance(statement, Import):
                imports.append(statement)
                continue
            self._imports(imports, scope)
            imports = []
            if isinstance(statement, ast.AnnAssign):
                self._annotated(statement, scope)
            else:
                self._node(statement, scope)
        self._imports(imports, scope)
        self._mark("}")

    def _imports(self, nodes: Sequence[Import], scope: Scope | None) -> None:
        names = [bound_name(alias, node) for node in nodes for alias in node.names]
        if len(set(names)) == len(names):  # none of them hides another
            nodes = sorted((_single(node, alias) for node in nodes for alias in node.names), key=_bound_first)
        for node in nodes:
            self._import(node, scope)

    def _import(self, node: Import, scope: Scope | None, only: str | None = None) -> None:
        """What an import binds. One of the module's is left out where nothing else binds its name: its uses count."""
        for alias in node.names:
            name = bound_name(alias, node)
            alone = name != "*" and self._alone(name, scope)
            if (only is not None and name != only) or (alone and scope is None):
                continue
            self._mark("(import")
            if not alone:
                self._text(name)
            self._target(self._project.target(self._module, node, alias))
            self._mark(")")

    def _alone(self, name: str, scope: Scope | None) -> bool:
        """Whether nothing but an import binds a name of this scope."""
        if scope is None or name in scope.outer:
            return only_import(self._module.bound.get(name, ()), name) is not None
        return only_import(scope.names.get(name, ()), name) is not None

    def _constant(self, node: ast.Constant, _scope: Scope | None) -> None:
        value = node.value
        self._mark("'")
        self._text(hex(value) if type(value) is int else value if isinstance(value, str) else repr(value))
        self._mark(type(value).__name__)

    def _joined(self, node: ast.JoinedStr, scope: Scope | None) -> None:
        """Versions of Python cut the text of an f-string into pieces differently."""
        self._mark("(f")
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
                continue
            self._text(text)
            text = ""
            self._node(part, scope)
        self._text(text)
        self._mark(")")

    def _formatted(self, node: ast.FormattedValue, scope: Scope | None) -> None:
        form = node.format_spec
        empty = isinstance(form, ast.JoinedStr) and all(getattr(part, "value", None) == "" for part in form.values)
        self._plain(node, scope, **({"format_spec": None} if empty else {}))

    def _annotated(self, node: ast.AnnAssign, scope: Scope | None) -> None:
        if scope is not None and scope.kind == "class" and scope.fields:
            words = {getattr(each, "attr", getattr(each, "id", "")) for each in ast.walk(node.annotation)}
            quoted = " ".join(str(each.value) for each in ast.walk(node.annotation) if isinstance(each, ast.Constant))
            kinds = [kind for kind in FIELD_KINDS if kind in words or kind in quoted]
            self._mark("(field")
            for kind in kinds:
                self._text(kind)
            self._node(node.target, scope)
            if scope.fields == "annotated":
                self._node(node.annotation, scope)
            if node.value is not None:
                self._node(node.value, scope)
            self._mark(")")
        elif node.value is not None:
            self._plain(ast.Assign(targets=[node.target], value=node.value), scope)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope | None) -> None:
        typed = any(not _harmless(self._project, self._module, each) for each in node.decorator_list)
        self._mark(f"({type(node).__name__}")
        self._text(node.name)
        self._several(node.decorator_list, scope)
        self._arguments(node.args, scope, typed)
        if typed and node.returns:
            self._node(node.returns, scope)
        own = [argument.arg for argument in _all_arguments(node.args)]
        self._body(node.body, _inner("function", _with_types(node, scope), node.body, own))
        self._mark(")")

    def _lambda(self, node: ast.Lambda, scope: Scope | None) -> None:
        self._mark("(lambda")
        self._arguments(node.args, scope, False)
        own = [argument.arg for argument in _all_arguments(node.args)]
        self._node(node.body, _inner("function", scope, [node.body], own))
        self._mark(")")

    def _arguments(self, node: ast.arguments, scope: Scope | None, typed: bool) -> None:
        kinds = {"posonly": node.posonlyargs, "args": node.args, "kwonly": node.kwonlyargs}
        kinds |= {"vararg": [node.vararg] if node.vararg else [], "kwarg": [node.kwarg] if node.kwarg else []}
        for kind, arguments in kinds.items():
            self._mark(f" {kind}[")
            for argument in arguments:
                self._text(argument.arg)
                if typed and argument.annotation:
                    self._node(argument.annotation, scope)
            self._mark("]")
        self._several(node.defaults, scope)
        self._several(node.kw_defaults, scope)

    def _several(self, nodes: Sequence[ast.AST | None], scope: Scope | None) -> None:
        self._mark("[")
        for node in nodes:
            if node is None:
                self._mark("-")
            else:
                self._node(node, scope)
        self._mark("]")

    def _class(self, node: ast.ClassDef, scope: Scope | None) -> None:
        above = [*node.decorator_list, *node.bases]
        known = all(
            _harmless(self._project, self._module, each) or _of_project(self._lookup, each, scope) for each in above
        )
        fields: Literal["", "named", "annotated"] = "named" if known else "annotated"
        self._mark("(class")
        self._text(node.name)
        self._several(node.decorator_list, scope)
        outer = _with_types(node, scope)
        self._several(node.bases, outer)
        self._several(node.keywords, outer)
        inner = _inner("class", outer, node.body, (), fields if above or node.keywords else "")
        self._body(node.body, inner)
        self._mark(")")

    def _comprehension(self, node: Any, scope: Scope | None) -> None:
        """The first iterable belongs to the scope around."""
        targets = [each for generator in node.generators for each in ast.walk(generator.target)]
        own = [each.id for each in targets if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
        inner = Scope("function", scope, {name: [] for name in own})
        self._mark(f"({type(node).__name__}")
        for place, generator in enumerate(node.generators):
            self._mark(" async for" if generator.is_async else " for")
            self._node(generator.target, inner)
            self._node(generator.iter, inner if place else scope)
            self._several(generator.ifs, inner)
        self._several([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt], inner)
        self._mark(")")

    def _call(self, node: ast.Call, scope: Scope | None) -> None:
        target, _, rest = self._chain(node.func, scope)
        name = rest[-1] if rest else target.name.rpartition(":")[2] if isinstance(target, Library) else ""
        if isinstance(target, Library) and target.name.startswith("bench:") and name in WORDS:
            places, words = WORDS[name]
            starred = any(isinstance(each, ast.Starred) for each in node.args)
            arguments = [each for place, each in enumerate(node.args) if starred or place not in places]
            keywords = [each for each in node.keywords if each.arg not in words]
            self._plain(node, scope, args=arguments, keywords=keywords)
            return
        self._plain(node, scope)
        for place in _named_modules(self._project, self._module, node)[-1:]:
            self._refer(place)

    def _name_node(self, node: ast.Name, scope: Scope | None) -> None:
        self._name(node.id, scope)

    def _singleton(self, node: ast.MatchSingleton, _scope: Scope | None) -> None:
        self._mark(f"(MatchSingleton {node.value!r})")

    def _alias(self, node: Any, scope: Scope | None) -> None:
        self._mark("(type ")
        self._node(node.name, scope)
        self._node(node.value, _with_types(node, scope))
        self._mark(")")


def _with_types(node: Any, scope: Scope | None) -> Scope | None:
    """The scope of a definition's type parameters, where it has any (from Python 3.12 on)."""
    names: list[str] = [each.name for each in getattr(node, "type_params", ())]
    return Scope("function", scope, {name: [] for name in names}) if names else scope


def _of_project(lookup: Callable[[str, Scope | None], Target | None], node: ast.expr, scope: Scope | None) -> bool:
    """Whether a base class is the project's own."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and not isinstance(lookup(node.id, scope), Library)


def _single(node: Import, alias: ast.alias) -> Import:
    if isinstance(node, ast.Import):
        return ast.Import(names=[alias])
    return ast.ImportFrom(module=node.module, names=[alias], level=node.level)


def _bound_first(node: Import) -> str:
    return bound_name(node.names[0], node)


@cache
def _fields(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that count, in an order that no version of Python changes."""
    return tuple(sorted(set(names) - {"ctx", "kind", "type_comment", "type_params", "type_ignores", "simple"}))


_SPECIAL: dict[type[ast.AST], Callable[[_Writer, Any, Scope | None], None]] = {
    ast.Name: _Writer._name_node,
    ast.Attribute: _Writer._attribute,
    ast.Constant: _Writer._constant,
    ast.JoinedStr: _Writer._joined,
    ast.FormattedValue: _Writer._formatted,
    ast.FunctionDef: _Writer._function,
    ast.AsyncFunctionDef: _Writer._function,
    ast.Lambda: _Writer._lambda,
    ast.ClassDef: _Writer._class,
    ast.Call: _Writer._call,
    ast.MatchSingleton: _Writer._singleton,
    **dict.fromkeys(COMPREHENSIONS, _Writer._comprehension),
}
if hasattr(ast, "TypeAlias"):
    _SPECIAL[ast.TypeAlias] = _Writer._alias
