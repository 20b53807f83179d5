"""Importing a method's file, so that every failure becomes one sentence that names the line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from bench.cards.card import MethodCard
from bench.cards.source import source_hash
from bench.declare import Method, declared_in
from bench.errors import UserError


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
