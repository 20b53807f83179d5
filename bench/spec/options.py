"""A method's hyper-parameters: what each option may be, and the checking of values that a user gives.

Nothing here imports torch, so that a study of ten thousand trials is checked in a moment.
"""

from __future__ import annotations

import dataclasses
import inspect
import reprlib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import UserError, nearest

Value = bool | int | float | str | None | tuple[Any, ...]


def option(
    default: Value,
    doc: str,
    *,
    unit: str = "",
    above: float | None = None,
    low: float | None = None,
    high: float | None = None,
    when: Mapping[str, Value] | None = None,
) -> Any:
    """One field of a method's options dataclass.

    The field's annotation is the option's type: ``int``, ``float``, ``bool``, ``str``, ``Literal[...]``,
    ``tuple[T, ...]`` of one of these, or a union with ``None``. Limits hold for each item of a tuple.

    A dataclass that inherits it may give it another default by a plain value: see :func:`specs_of`.

    Args:
        default: the paper's value.
        doc: what the option is, in a few words; shown by ``dfkd list methods NAME``.
        unit: its unit ("images", "pixels", ...); empty for a pure number.
        above: the value must be greater than this.
        low: the smallest value allowed.
        high: the largest value allowed.
        when: values of other options with which this one has an effect, such as ``{"optimizer": "sgd"}`` for a
            momentum. ``dfkd check`` sets them before it varies this option.

    Returns:
        A dataclass field.

    Raises:
        UserError: the default is a list, a dictionary or a set; use a tuple.
    """
    if isinstance(default, list | dict | set):
        raise UserError(f"an option's default must not change: use a tuple, not {default!r}")
    metadata = {
        "doc": doc,
        "unit": unit,
        "above": above,
        "low": low,
        "high": high,
        "when": {} if when is None else when,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class OptionSpec:
    """An option as the harness knows it: its name, type, default and limits."""

    name: str
    type: Any
    default: Value
    doc: str = ""
    unit: str = ""
    above: float | None = None
    low: float | None = None
    high: float | None = None
    when: Mapping[str, Value] = dataclasses.field(default_factory=dict)

    @property
    def type_name(self) -> str:
        return type_name(self.type)

    @property
    def is_sequence(self) -> bool:
        """Whether one value of it is a list, so that a list in a study is one value and not a grid axis."""
        return any(typing.get_origin(kind) is tuple for kind in alternatives(self.type))


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation itself."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


def type_name(annotation: Any) -> str:
    """How an option's type is written for a user.

    >>> type_name(float | None)
    'float or none'
    >>> type_name(typing.Literal["sgd", "adam"])
    'sgd | adam'
    """
    names = []
    for kind in alternatives(annotation):
        if typing.get_origin(kind) is typing.Literal:
            names.append(" | ".join(str(arg) for arg in typing.get_args(kind)))
        elif typing.get_origin(kind) is tuple:
            names.append(f"list of {type_name(typing.get_args(kind)[0])}")
        elif kind in (None, type(None)):
            names.append("none")
        else:
            names.append(getattr(kind, "__name__", str(kind)))
    return " or ".join(names)


def value_words(value: Any) -> str:
    """An option's value as a user reads it; two values that differ never read the same.

    >>> value_words((0.4, 0.8)), value_words(None), value_words(True), value_words(4.0), value_words(0.12345678)
    ('[0.4, 0.8]', 'none', 'true', '4', '0.12345678')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(value_words(item) for item in value)}]"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short


def limits_words(spec: OptionSpec) -> str:
    """Between what an option's value must lie; empty where there are no limits.

    >>> limits_words(OptionSpec("share", float, 0.5, above=0, high=1))
    '> 0, <= 1'
    """
    bounds = [("> ", spec.above), (">= ", spec.low), ("<= ", spec.high)]
    return ", ".join(f"{sign}{bound:g}" for sign, bound in bounds if bound is not None)


def meaning_words(spec: OptionSpec) -> str:
    """What an option is, and values of others with which it has an effect, where it has none with their defaults.

    >>> meaning_words(OptionSpec("momentum", float, 0.9, "of the student's SGD", when={"optimizer": "sgd"}))
    "of the student's SGD (has an effect with optimizer=sgd)"
    >>> meaning_words(OptionSpec("calls", int, 2, "of the warm-up", when={"warm_up": 20}))
    'of the warm-up (has an effect with a warm_up such as 20)'
    """
    live = ", ".join(_live_words(name, value) for name, value in spec.when.items())
    return spec.doc + (f" (has an effect with {live})" if live else "")


def _live_words(name: str, value: Any) -> str:
    """A value with which another option has an effect: of a number it is an example."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"a {name} such as {value_words(value)}" if number else f"{name}={value_words(value)}"


def specs_of(options: type) -> tuple[OptionSpec, ...]:
    """The options that a dataclass declares or inherits: those it introduces, then those of each base, in turn.

    An option that is declared again stands where it was first declared. With ``option(...)`` it is a new declaration;
    with a plain value the default alone is new, and doc, unit, limits and ``when`` are those of the nearest base that
    states them.

    Raises:
        UserError: it or a base with options is not a frozen dataclass, a field has no fixed default, a default is
            changed in a way that dataclasses do not see, or two bases do not agree on it.
    """
    if not dataclasses.is_dataclass(options) or not _is_frozen(options):
        raise UserError(f"{options.__name__} must be a frozen dataclass (@dataclass(frozen=True)) of options")
    fields = {field.name: field for field in dataclasses.fields(options)}
    owners: dict[str, list[type]] = {name: [] for name in fields}  # the classes that declare it, the nearest first
    for kind in options.__mro__:
        declared = [name for name, hint in inspect.get_annotations(kind).items() if "ClassVar" not in str(hint)]
        if declared and not _is_frozen(kind):
            raise UserError(
                f"{kind.__name__}, a base of {options.__name__}, must be a frozen dataclass (@dataclass(frozen=True))"
            )
        for name in fields:
            if name in declared:
                owners[name].append(kind)
            elif name in vars(kind):
                raise unannotated(name, kind.__name__)
    hints = typing.get_type_hints(options)
    specs = []
    for kind in options.__mro__:
        specs += [
            _spec(options, fields[name], hints[name], owners[name]) for name in fields if owners[name][-1] is kind
        ]
    return tuple(specs)


def unannotated(name: str, owner: str) -> UserError:
    """What to say of a class that gives an inherited option another value in a way that changes no default."""
    return UserError(
        f"option {name!r} needs its type in {owner} as well, or its default stays as it was: {name}: TYPE = VALUE"
    )


def _is_frozen(kind: type) -> bool:
    return "__dataclass_params__" in vars(kind) and bool(vars(kind)["__dataclass_params__"].frozen)


def _spec(options: type, field: dataclasses.Field[Any], kind: Any, owners: Sequence[type]) -> OptionSpec:
    if field.default is dataclasses.MISSING:
        raise UserError(f"option {field.name!r} of {options.__name__} has no fixed default")
    declared = [vars(owner)["__dataclass_fields__"][field.name] for owner in owners]
    if declared[0] is not field:  # Python's own rule for dataclasses: a base's inherited field counts as that base's
        raise UserError(
            f"option {field.name!r}: {options.__name__} inherits it by several ways, and its default in "
            f"{owners[0].__name__} would be lost; declare it in {options.__name__} as well"
        )
    facts: dict[str, Any] = {}
    for each in reversed(declared):
        if each.metadata.keys() & _FACTS:  # an option(...); a plain value leaves all but the default as it is
            facts = {name: fact for name, fact in each.metadata.items() if name in _FACTS}
    return OptionSpec(name=field.name, type=kind, default=field.default, **facts)


def check_spec(spec: OptionSpec, specs: Sequence[OptionSpec]) -> None:
    """Check what a method declares of one of its options.

    Raises:
        UserError: its type or facts are not usable, its own type and limits do not allow its default, or its ``when``
            names no option.
    """
    if not all(supported(kind) for kind in alternatives(spec.type)):
        raise UserError(
            f"option {spec.name!r}: the type {spec.type_name!r} is not supported; use int, float, bool, str, "
            f"Literal[...] or tuple[..., ...] of these, or a union with None"
        )
    if not isinstance(spec.doc, str) or not isinstance(spec.unit, str) or not isinstance(spec.when, Mapping):
        raise UserError(f"option {spec.name!r}: doc and unit must be text, `when` other options' values")
    for limit in (spec.above, spec.low, spec.high):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
            raise UserError(f"option {spec.name!r}: a limit must be a number, not {limit!r}")
    check_value(spec, spec.default)
    check_values(specs, spec.when, f"`when` of option {spec.name!r}")


def supported(kind: Any) -> bool:
    """Whether an option may be of this type (a member of a union counts by itself)."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        items = alternatives(arguments[0]) if len(arguments) == 2 and arguments[1] is ... else ()
        return bool(items) and all(supported(item) and typing.get_origin(item) is not tuple for item in items)
    return typing.get_origin(kind) is typing.Literal or kind in (int, float, bool, str, None, type(None))


def check_value(spec: OptionSpec, value: Any) -> Value:
    """The value in the option's own type, or a UserError that says what is allowed.

    An int is taken for a float, a scalar for a list of one; nothing else is converted.
    """
    converted = _convert_any(spec.type, value)
    if converted is not _NO:
        _check_limits(spec, converted)
        return typing.cast(Value, converted)
    if spec.is_sequence and isinstance(value, list | tuple) and not value:
        raise UserError(f"option {spec.name!r} must not be an empty list")
    hint = ""
    for kind in alternatives(spec.type):
        if typing.get_origin(kind) is typing.Literal and isinstance(value, str):
            hint = nearest(value, [str(arg) for arg in typing.get_args(kind)])
    raise UserError(f"option {spec.name!r} must be {spec.type_name}, not {reprlib.repr(value)}{hint}")


_NO = object()  # "does not convert": None is a value of its own
_FACTS = {field.name for field in dataclasses.fields(OptionSpec)} - {"name", "type", "default"}
_LARGEST = sys.float_info.max
WHOLE = 2**63  # whole numbers are below it, in size: a record holds no others


def _convert(kind: Any, value: Any) -> Any:
    if kind in (None, type(None)):
        return None if value is None else _NO
    if typing.get_origin(kind) is typing.Literal:
        return next((arg for arg in typing.get_args(kind) if arg == value and type(arg) is type(value)), _NO)
    if typing.get_origin(kind) is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        converted = tuple(_convert_any(typing.get_args(kind)[0], item) for item in items)
        return _NO if any(item is _NO for item in converted) or not converted else converted
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) + 0.0 if abs(value) <= _LARGEST else value  # -0.0 and 0.0 are one value
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e3 in YAML
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else _NO
    return value if kind in (int, str) and isinstance(value, kind) else _NO


def _convert_any(annotation: Any, value: Any) -> Any:
    converted = (_convert(kind, value) for kind in alternatives(annotation))
    return next((item for item in converted if item is not _NO), _NO)


def _check_limits(spec: OptionSpec, value: Any) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not -_LARGEST <= number <= _LARGEST:  # not math.isfinite: an int may be too large for a float
            raise UserError(f"option {spec.name!r} must be finite, not {reprlib.repr(number)}")
        if isinstance(number, int) and not -WHOLE <= number < WHOLE:
            raise UserError(f"option {spec.name!r} must be below {WHOLE:g}, not {reprlib.repr(number)}")
        if spec.above is not None and number <= spec.above:
            raise UserError(f"option {spec.name!r} must be above {spec.above:g}, not {number!r}")
        if spec.low is not None and number < spec.low:
            raise UserError(f"option {spec.name!r} must be at least {spec.low:g}, not {number!r}")
        if spec.high is not None and number > spec.high:
            raise UserError(f"option {spec.name!r} must be at most {spec.high:g}, not {number!r}")


def check_values(specs: Sequence[OptionSpec], values: Mapping[str, Any], owner: str) -> dict[str, Value]:
    """Check several values; an unknown name is an error with the nearest valid one."""
    by_name = {spec.name: spec for spec in specs}
    for name in values:
        if name not in by_name:
            raise UserError(f"{owner} has no option {name!r}{nearest(str(name), by_name)}")
    return {name: check_value(by_name[name], value) for name, value in values.items()}
