"""The dead-option detector: an option that changes nothing is a bug."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench.errors import UserError
from bench.execution.contract.short_trials import Stage, Trace
from bench.spec.options import OptionSpec, Value, alternatives, check_value

FEW = 5  # students that are looked at first: most options show by then, and a whole trial takes several times as long


def dead_options(stage: Stage, doing: Callable[[str], None] = lambda what: None) -> tuple[bool, str]:  # noqa: ARG005
    """Vary each option alone, where its ``when`` says that it counts; the student's bits must change at some step.

    ``doing`` is called with what is tried.
    """
    traces: dict[tuple[str, int | None], Trace] = {}

    def departs(context: Mapping[str, Any], changed: Mapping[str, Any]) -> bool:
        for students in (FEW, None):
            key = repr(sorted(context.items())), students
            if key not in traces:
                traces[key] = stage.trace(context, students)
            if stage.departs({**context, **changed}, traces[key]):
                return True
            if traces[key].whole:
                return False
        return False

    dead = []
    for number, spec in enumerate(stage.card.specs, 1):
        doing(f"options: {spec.name}, {number} of {len(stage.card.specs)}")
        context = dict(spec.when)
        tried = []
        for value in other_values(spec, context.get(spec.name, stage.base[spec.name])):
            if departs(context, {spec.name: value}):
                break
            tried.append(value)
        else:
            current = stage.base[spec.name]
            dead.append(f"{spec.name!r} ({', '.join(map(str, [current, *tried]))} all end with the same student)")
    if dead:
        return False, f"these options have no effect: {'; '.join(dead)}"
    return True, f"each of {len(stage.card.specs)} options changes the outcome"


def other_values(spec: OptionSpec, value: Any) -> Iterator[Value]:
    """Some values other than ``value`` that the option allows, the most different last."""
    for candidate in _candidates(spec, value):
        try:
            checked = check_value(spec, candidate)
        except UserError:
            continue
        if checked != value:
            yield checked


def _candidates(spec: OptionSpec, value: Any) -> Iterator[Any]:
    for kind in alternatives(spec.type):
        if typing.get_origin(kind) is typing.Literal:
            yield from typing.get_args(kind)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from _numbers(value)
    elif isinstance(value, tuple):
        for factor in (0.5, 2, 0.1):
            yield tuple(type(item)(item * factor) if isinstance(item, int | float) else item for item in value)
        yield value[:1]
    elif value is None:
        yield from (0.5, 3, 0.01, True, "x")


def _numbers(value: float) -> Iterator[float]:
    if value == 0:
        yield from (0.01, 1, 0.5)
    else:
        yield from (value * 2, value / 2, value + 1, value * 10, value / 10)
        if isinstance(value, int):
            yield from (value // 2, max(value - 1, 1), 1)
