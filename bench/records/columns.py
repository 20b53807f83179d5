"""The schema of records and curves as DuckDB's types, and the columns of the tables that are made of them."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bench.records.schema import SCHEMA, CurvePoint, ImageMetric, MeterReading, Record, TrialIdentity
from bench.records.selection import RULES

TEXTS = {"trial.budget"}  # numbers that are shown as they were written, not as 40000.0
PLAIN = {str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}


def _trial_columns() -> dict[str, str]:
    """The columns of the view ``trials``: name -> SQL over ``r``, a record as one nested value."""
    trial = ("suite", "task", "task_sha", "method", "method_sha", "seed")
    more = ("device", "threads", "precision", "deterministic", "altered_data", "points", "selection")
    first_format = TrialIdentity.model_fields["memory_format"].default
    entries = "list_sort(map_entries(r.trial.budget))"
    first_rule = TrialIdentity.model_fields["identity_rule"].default
    return {
        "id": "r.id",
        "study": "r.study",
        "status": "r.status",
        "reason": "r.reason",
        **{name: f"r.trial.{name}" for name in trial},
        "identity_rule": f"coalesce(r.trial.identity_rule, {first_rule})",
        "budget": f"array_to_string(list_transform({entries}, lambda e: e.key || '=' || e.value), ', ')",
        "options": "r.trial.options",
        **{name: f"r.trial.{name}" for name in more},
        "memory_format": f"coalesce(r.trial.memory_format, '{first_format}')",
        "metric": "r.metric",
        "headline": "r.headline",
        "score": "r.scores[r.headline]",
        **{rule: f"r.scores['{rule}']" for rule in RULES},
        "agreement": "r.agreement",
        "title": "r.method.title",
        "data": "r.method.data",
        "access": "r.method.access",
        "teacher": "r.trial.teacher",
        **{f"teacher_{name}": f"r.teacher.{name}" for name in ("network", "recipe", "seed", "score")},
        "teacher_sha": "r.teacher.sha256",
        "ensemble_score": "r.ensemble.score",
        "stopped_by": "r.stopped_by",
        "resumed": "r.resumed",
        "images": "r.images.count",
        "clipped": "r.images.clipped",
        "different_images": "r.images.different",
        "commit": "r.provenance->>'commit'",
        "finished": "r.provenance->>'finished'",
    }


TRIALS = _trial_columns()
METER = tuple(MeterReading.model_fields)
METRICS = ("kind", "name", *ImageMetric.model_fields)
POINTS = ("point", *CurvePoint.model_fields)
BESIDE = ("id", "task", "method", "seed")  # of its trial, in every row of the other views
VIEWS: dict[str, tuple[str, ...]] = {
    "trials": ("results", *TRIALS),
    "curves": (*BESIDE, *POINTS),
    "metrics": (*BESIDE, *METRICS),
    "meters": (*BESIDE, *METER),
}


def sql_type(annotation: Any, path: str = "") -> str:
    """DuckDB's type of a field: objects become STRUCT, mappings MAP, and what is open JSON."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return sql_type(inner[0], path)
    if origin is Literal:
        return PLAIN[type(inner[0])]
    if origin in (Union, types.UnionType):
        kinds = [part for part in inner if part is not type(None)]
        return sql_type(float if set(kinds) == {int, float} else kinds[0], path)
    if origin is list:
        return f"{sql_type(inner[0])}[]"
    if origin is dict:
        if inner[1] is Any:
            return "JSON"
        return f"MAP(VARCHAR, {'VARCHAR' if path in TEXTS else sql_type(inner[1])})"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = ", ".join(f'"{name}" {kind}' for name, kind in _fields(annotation, path))
        return f"STRUCT({fields})"
    return PLAIN[annotation]


@cache
def structure(model: type[BaseModel]) -> str:
    """What ``json_transform`` is to make of a record or a point."""
    return json.dumps(dict(_fields(model, "")))


@cache
def broken(row: str = "r") -> str:
    """SQL that is true for a record of another schema, or one that lacks what every record has, or has it wrong."""
    needed = (f"{row}.{name} IS NULL" for name in _needed(Record, ""))
    return f"{row}.schema > {SCHEMA} OR {' OR '.join(needed)}"


def _fields(model: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        yield field.alias or name, sql_type(field.annotation, below)


def _needed(model: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        below = f'{path}"{field.alias or name}"'
        if field.is_required() and type(None) not in get_args(kind):
            yield below
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _needed(kind, f"{below}.")


def defaults(model: type[BaseModel]) -> Mapping[str, Any]:
    """The fields that an older file may lack, with what they then are."""
    return {
        name: f.get_default(call_default_factory=True) for name, f in model.model_fields.items() if not f.is_required()
    }
