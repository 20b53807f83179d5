"""A user's own code: importing it, and the hash of its bytes, by which a changed file is imported again."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from bench.errors import AccessDenied, DataLeak, UserError
from bench.utils.paths import ROOT

BUILT_IN = ROOT / "methods"


def source_hash(file: Path) -> str:
    """Hash of the bytes of a file and of the modules that it imports from its own folder, its own package or
    ``methods``, and they in turn. Where the files lie and libraries do not count.

    Trials were named by it under the first rule of identity; see ``bench.utils.code_identity`` for the present one.
    """
    contents = own_files(file)
    parts = sorted(path.name.encode() + hashlib.sha256(content).digest() for path, content in contents.items())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def own_files(file: Path) -> dict[Path, bytes]:
    """The files whose hash that is, with their contents."""
    contents: dict[Path, bytes] = {}
    waiting = [file.resolve()]
    while waiting:
        current = waiting.pop()
        if current not in contents:
            contents[current] = current.read_bytes()
            waiting += _imported(current, contents[current])
    return contents


@lru_cache(maxsize=1024)
def imports_of(source: bytes) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """The import statements of a file, inside functions too; none where it is not Python.

    Only statements are looked into: walking through all expressions takes ten times as long.
    """
    try:
        waiting: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):
        return ()
    found: list[ast.Import | ast.ImportFrom] = []
    for node in waiting:  # grows
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        for name in ("body", "handlers", "orelse", "finalbody", "cases"):
            inside = getattr(node, name, ())
            waiting += inside if isinstance(inside, list) else ()  # of a conditional expression it is no list
    return tuple(found)


def _imported(file: Path, source: bytes) -> list[Path]:
    """The files behind a file's imports, as far as they belong to the method."""
    top = file.parent  # the folder that holds the file's outermost package
    while (top / "__init__.py").exists():
        top = top.parent
    found: list[Path] = []
    for node in imports_of(source):
        names = [alias.name for alias in node.names]
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


def import_module(file: Path, module: str | None, *, fresh: bool = False) -> ModuleType:
    """Import an installed module, or a file by its path; every failure becomes one sentence that names the line.

    With ``fresh`` a file is run even if it was imported before.
    """
    try:
        if module is not None:
            return importlib.import_module(module)
        name = f"dfkd_method_{file.stem}_{source_hash(file)[:8]}"
        if name in sys.modules and not fresh:
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
    except (DataLeak, AccessDenied):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not _raised_in(error, file):
            raise  # the user's
        line = _line_in(error, file)
        raise UserError(f"{file}{line}: importing it fails with {type(error).__name__}: {error}") from error


def _raised_in(error: BaseException, file: Path) -> bool:
    """Whether the file's own code raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename) == file


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
    # Bytecode is known by its source's size and second: that of a neighbour that changed twice within one is stale.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, sys.dont_write_bytecode or folder != BUILT_IN
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
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
