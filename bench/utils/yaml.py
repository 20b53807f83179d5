"""Reading YAML so that every complaint can name the line."""

from __future__ import annotations

import contextlib
import datetime
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from bench.errors import UserError, nearest, nearest_file
from bench.utils.text import cut, shown

LONGEST = 200_000  # characters of a file
DEEPEST = 100  # brackets inside each other
MOST = 100_000  # values of a file, with every alias written out
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A model that refuses unknown keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _number(value: Any) -> Any:
    """Pydantic takes true for 1 and "1" for 1; a study says what it means."""
    if isinstance(value, bool | str):
        raise ValueError(f"must be a number, not {value!r}")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]


def read_yaml(file: Path) -> Any:
    """The file's content as mappings and lists that know their lines.

    Raises:
        UserError: it is missing, not text, or not YAML (with the line).
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no such file: {file}{nearest_file(str(file), '.yaml')}") from None
    except IsADirectoryError:
        raise UserError(f"{file} is a folder; name a YAML file") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    return read_yaml_text(text, file)


def read_yaml_text(text: str, file: Path) -> Any:
    """As ``read_yaml``, of a text that stands in ``file`` or in an archive of it."""
    if len(text) > LONGEST:
        raise UserError(f"{file} has {len(text):,} characters; such a file has {LONGEST:,} at most")
    if "\0" in text:
        raise UserError(f"{file}: not valid YAML: it has a NUL")
    if _deepest(text) > DEEPEST:
        raise UserError(f"{file}: not valid YAML: it is nested more than {DEEPEST} levels deep")
    try:
        data = YAML(typ="rt").load(text)
        if _nodes(data, {}) > MOST:
            raise UserError(f"{file}: with its aliases written out it would have more than {MOST:,} values")
        return data
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = str(error.problem or error.context)
        if "found another document" in problem:
            problem = "it has more than one document (a line with ---)"
        hint = "; inside [...], quote text that has brackets" if "got '['" in problem else ""
        raise UserError(f"{file}{line}: not valid YAML: {problem}{hint}") from None
    except RecursionError:
        raise UserError(f"{file}: not valid YAML: it is nested too deeply, or an alias contains itself") from None
    except UserError:
        raise
    except Exception as error:  # ValueError: a date that does not exist; the parser has others, such as for odd tags
        said = f"{str(error).partition(chr(10))[0]}" or type(error).__name__
        raise UserError(f"{file}: not valid YAML: {said}") from None


def _deepest(text: str) -> int:
    """How deep brackets are nested, at least; of a hundred thousand the parser would take seconds to say no."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[{\]}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _nodes(data: Any, known: dict[int, int]) -> int:
    """How many values there are when every alias is written out; an alias within itself is a RecursionError."""
    if not isinstance(data, Mapping | list):
        return 1
    if id(data) not in known:
        known[id(data)] = -1
        children = [*data, *data.values()] if isinstance(data, Mapping) else data
        known[id(data)] = 1 + sum(_nodes(child, known) for child in children)
    if known[id(data)] < 0:
        raise RecursionError
    return known[id(data)]


def line_of(data: Any, path: Sequence[str | int]) -> int | None:
    """The 1-based line of a key or list item, as deep as the data knows it."""
    line = None
    for key in path:
        if isinstance(data, CommentedMap) and key in data:
            place = data.lc.key
        elif isinstance(data, CommentedSeq) and isinstance(key, int) and key < len(data):
            place = data.lc.item
        else:
            break
        with contextlib.suppress(KeyError):  # a key that came in by a merge, <<, has no line here
            line = place(key)[0] + 1
        data = data[key]
    return line


def plain(data: Any) -> Any:
    """The same content in plain Python types."""
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list):
        return [plain(value) for value in data]
    if isinstance(data, ScalarBoolean):  # with an anchor; it is an int to Python
        return bool(data)
    if isinstance(data, datetime.date):  # 2001-01-01 that nobody meant as a date
        return data.isoformat()
    for kind in (bool, int, float, str):
        if isinstance(data, kind):
            return kind(data)
    return data


def where(file: Path, data: Any, path: Sequence[str | int]) -> str:
    """``study.yaml, line 7`` for an error message."""
    line = line_of(data, path)
    return f"{file}, line {line}" if line else str(file)


def validate(model: type[Model], data: Any, file: Path, at: Sequence[str | int] = (), of: str = "") -> Model:
    """Validate with pydantic; the first mistake becomes a sentence with file, line and the nearest valid name.

    ``at`` is where in the file the validated part lies, and ``of`` what it belongs to, in words. The model's
    own validators find the file's folder, where relative paths start, in their context.
    """
    part = data
    for key in at:
        part = part[key]
    if not isinstance(part, Mapping):
        kind = "a list" if isinstance(part, list) else "nothing" if part is None else repr(part)
        raise UserError(f"{where(file, data, at)}: expected keys and values, not {kind}")
    try:
        return model.model_validate(plain(part), context={"folder": file.parent})
    except ValidationError as error:
        # A wrong key explains the missing one.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        path = [*at, *(key for key in first["loc"] if not str(key).startswith(("function-", "[key]")))]
        if first["type"] == "extra_forbidden":
            owner = _model_at(model, first["loc"][:-1])
            known = [field.alias or name for name, field in owner.model_fields.items()] if owner else []
            hint = nearest(str(path[-1]), known) if owner else ""
            message = f"unknown key {str(path[-1])!r}{hint}"
        elif first["type"] == "missing":
            message = f"the key {str(path[-1])!r} is missing"
        else:
            name = ".".join(str(key) for key in path[len(at) :])
            message = f"{name}: {sentence(first)}" if name else sentence(first)
            path += [index for key, index in first.get("ctx", {}).items() if key == "index"]
        raise UserError(f"{where(file, data, path)}: {f'{of}: ' if of else ''}{message}") from None


_RULES = {
    "tuple_type": "must be a list",
    "mapping_type": "must be keys with values",
    "dict_type": "must be keys with values",
    "model_type": "must be keys with values",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "string_too_long": "must have at most {max_length} characters",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be finite",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
}

# What a pattern allows, in words.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
SIZE = r"^(\d+[KMGT]?)?$"
_PATTERNS = {
    NAME: "consist of letters, digits, '_', '.' and '-', and begin with a letter or digit",
    SIZE: "be a size such as 8G",
}


def sentence(error: ErrorDetails, quote: bool = True) -> str:
    """What pydantic found wrong, in a YAML writer's words; ``quote``: texts are quoted in it, as in Python."""
    if error["type"] in ("too_short", "string_too_short") and error.get("ctx", {}).get("min_length") == 1:
        return "must not be empty"
    if error["type"] not in _RULES:
        text = error["msg"].removeprefix("Value error, ")
        return text[:1].lower() + text[1:]
    context = error.get("ctx", {})
    value = error["input"]
    if words := _PATTERNS.get(context.get("pattern", "")):
        return f"must {words}, not {value!r}"
    hint = nearest(value, re.findall("'([^']*)'", context.get("expected", ""))) if isinstance(value, str) else ""
    hint = hint if "did you mean" in hint else ""
    written = reprlib.repr(value) if quote or not isinstance(value, str) else shown(cut(value, 60))
    return f"{_RULES[error['type']].format(**context)}, not {written}{hint}"


def at_line(file: Path, data: Any, path: Sequence[str | int], check: Callable[[], Any]) -> Any:
    """Run a check; a UserError of it gets the file and line in front."""
    try:
        return check()
    except UserError as error:
        raise UserError(f"{where(file, data, path)}: {error}") from None


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    current: Any = model
    for key in path:
        if isinstance(key, int):
            continue
        field = current.model_fields.get(key) if hasattr(current, "model_fields") else None
        current = getattr(field, "annotation", None)
        for inner in getattr(current, "__args__", ()):
            if hasattr(inner, "model_fields"):
                current = inner
    return current if hasattr(current, "model_fields") else None
