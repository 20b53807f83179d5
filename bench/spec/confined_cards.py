"""Cards of methods that compute their declarations: read in a confined process, which hands them over as text.

The text is data: it is checked as declarations in literals are.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import AccessDenied, DataLeak, UserError
from bench.spec.literals import NotStaticError, static_type
from bench.spec.method import Access, Data, Method, check_declared, declared_in
from bench.spec.method_card import MethodCard
from bench.spec.method_fence import fenced_folders, method_fence
from bench.spec.method_parser import first_line
from bench.spec.options import OptionSpec, alternatives, check_spec
from bench.utils import data_guard
from bench.utils.confinement import available, confine, view_of
from bench.utils.user_code import import_module

_SECONDS = 300.0
_PLAIN = ("name", "title", "paper", "segmentation", "batch_norm", "pool", "anchors", "layers")
_CODE = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from bench.spec.confined_cards import main; main()"


def computed_cards(file: Path, module: str | None) -> list[MethodCard]:
    """The methods that a file declares when it runs; in this process where the machine cannot confine another one.

    Raises:
        UserError: it does not run, or what it declares is not usable.
    """
    way = available()
    if way is None:
        try:
            with method_fence():
                return [card_from(declared, file, module) for declared in declared_in(import_module(file, module))]
        except (DataLeak, AccessDenied) as error:
            raise UserError(f"{file}: while it is imported, {error}") from None
    with tempfile.TemporaryDirectory(prefix="dfkd-cards-", ignore_cleanup_errors=True) as scratch:
        data, teachers = ([str(each) for each in folders] for folders in fenced_folders())
        order = {
            **{"file": str(file), "module": module, "scratch": scratch, "way": way},
            **{"data": data, "teachers": teachers},
        }
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CODE, json.dumps(sys.path)],
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=_SECONDS,
            env={**_few(os.environ), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
    try:
        told = json.loads(done.stdout.rpartition(b"\n\0")[2])
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(f"{file}: reading what it declares fails: {last or f'exit code {done.returncode}'}") from None
    if isinstance(told, Mapping):
        raise UserError(str(told.get("error", "")))
    return [_card(values, file, module) for values in told]


def card_from(declared: Method, file: Path, module: str | None) -> MethodCard:
    """The card of a method that was imported."""
    return _card(json.loads(json.dumps(_described(declared))), file, module)


def _few(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name in ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")}


def main() -> None:
    """Confine this process, import the file that standard input names, and print what it declares."""
    order = json.loads(sys.stdin.read())
    scratch = order["scratch"]
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), scratch))
    sys.dont_write_bytecode = True
    file = Path(order["file"])
    out = os.dup(1)
    os.dup2(2, 1)  # what the file prints is not what it declares
    confine(view_of(file, Path(scratch)), order["way"])
    told: Any
    try:
        with data_guard.fenced(map(Path, order["data"]), map(Path, order["teachers"])):
            told = [_described(declared) for declared in declared_in(import_module(file, order["module"]))]
    except (DataLeak, AccessDenied) as error:
        told = {"error": f"{file}: while it is imported, {error}"}
    except UserError as error:
        told = {"error": str(error)}
    os.write(out, b"\n\0" + json.dumps(told).encode())
    os._exit(0)


def _described(declared: Method) -> dict[str, Any]:
    doc = declared.run.__doc__ or sys.modules[declared.run.__module__].__doc__
    return {
        **{name: getattr(declared, name) for name in _PLAIN},
        "doc": first_line(doc),
        "data": declared.data.name,
        "access": declared.access.name,
        "presets": {name: dict(values) for name, values in declared.presets.items()},
        "quick": dict(declared.quick),
        "specs": [_spec_in_words(spec) for spec in declared.specs],
    }


def _spec_in_words(spec: OptionSpec) -> dict[str, Any]:
    facts = {name: getattr(spec, name) for name in ("name", "default", "doc", "unit", "above", "low", "high")}
    return {**facts, "when": dict(spec.when), "type": _type_in_words(spec.type)}


def _type_in_words(annotation: Any) -> str:
    """As it is written in a method's file."""
    return " | ".join(_kind_in_words(kind) for kind in alternatives(annotation))


def _kind_in_words(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return f"Literal[{', '.join(map(repr, typing.get_args(kind)))}]"
    if typing.get_origin(kind) is tuple:
        return f"tuple[{_type_in_words(typing.get_args(kind)[0])}, ...]"
    return "None" if kind in (None, type(None)) else str(getattr(kind, "__name__", kind))


def _card(told: Any, file: Path, module: str | None) -> MethodCard:
    """A card of what a process told, checked.

    Raises:
        UserError: it is no declaration, or not a usable one.
    """
    try:
        specs = tuple(
            OptionSpec(**{**each, "default": _tuples(each["default"]), "type": _type_of(each["type"])})
            for each in told["specs"]
        )
        given = {name: told[name] for name in _PLAIN}
        given |= {"data": Data[told["data"]], "access": Access[told["access"]], "specs": specs}
        given |= {
            "presets": {name: _all_tuples(values) for name, values in told["presets"].items()},
            "quick": _all_tuples(told["quick"]),
        }
        doc = str(told["doc"])
    except (KeyError, TypeError, AttributeError, ValueError, SyntaxError, NotStaticError) as error:
        raise UserError(f"{file}: what it declares cannot be read: {type(error).__name__}: {error}") from None
    try:
        for spec in specs:
            check_spec(spec, specs)
        check_declared(**given)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return MethodCard(**given, doc=doc, file=file, module=module)


def _type_of(text: str) -> Any:
    return static_type(ast.parse(text, mode="eval").body)


def _tuples(value: Any) -> Any:
    """Lists are tuples that JSON has no word for."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _all_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tuples(value) for name, value in values.items()}
