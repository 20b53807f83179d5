"""A trial: one method on one task with one seed under one budget, named by a hash of what determines its outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import trial_id
from bench.spec.budget import Budget
from bench.spec.task import TaskSpec, add_tasks
from bench.utils.code_identity import RULE
from bench.utils.memory_format import CONTIGUOUS


@dataclass(frozen=True)
class Trial:
    """Everything that a worker needs to run it. Only the fields of :meth:`identity` enter the id."""

    suite: str
    task: str
    task_sha: str
    teacher: str
    method: str
    method_sha: str
    options: Mapping[str, Any]
    budget: Mapping[str, float]
    seed: int
    device: str = "cpu"
    threads: int = 1
    precision: str = "float32"
    deterministic: bool = True
    altered_data: bool = False
    points: int = 20
    selection: tuple[str, ...] = ("last", "ema", "teacher_agreement", "oracle")
    teachers: tuple[str, ...] = ()  # the keys of several, ``teacher`` first; in the identity only where there are
    pool: str = ""  # the other real images of a method that needs them; in the identity only where there is one
    memory_format: str = CONTIGUOUS  # in the identity unless it is this one
    identity_rule: int = RULE  # of method_sha; in the identity from the second rule on
    # what follows changes no outcome, and is listed in OUTSIDE
    study: str = ""
    label: str = ""
    image_metrics: tuple[str, ...] = ()
    real_images: int | None = None
    timeout: float | None = None
    method_files: tuple[Path, ...] = ()
    pool_path: Path | None = None  # where the pool lies, unless it is a data set
    own_task: Mapping[str, Any] | None = None  # a user's own task, written out; its hash is in the identity
    settings: str = "paper"  # the study's, which chose the options that it does not state
    average: str = "end"  # where the average of the student's weights is scored: at the end, or at all points
    stated: tuple[tuple[str, ...], ...] = ()  # the options that each entry of the study that gives this trial names

    def identity(self) -> dict[str, Any]:
        """The fields that can change the outcome, as a record holds them."""
        values = {name: getattr(self, name) for name in IDENTITY}
        values["options"] = {name: _plain(value) for name, value in self.options.items()}
        values["selection"] = list(self.selection)
        values["teachers"] = list(self.teachers)
        for name in ("teachers", "pool"):
            if not values[name]:
                del values[name]
        if self.memory_format == CONTIGUOUS:
            del values["memory_format"]
        if self.identity_rule == 1:
            del values["identity_rule"]
        return values

    @property
    def id(self) -> str:
        """16 hex digits."""
        return trial_id(self.identity())

    @property
    def teacher_keys(self) -> tuple[str, ...]:
        """The keys of all its teachers, ``teacher`` first."""
        return self.teachers or (self.teacher,)

    @property
    def averages(self) -> bool:
        """Whether the average of the student's weights is scored at each point; a headline has a curve."""
        return self.average == "points" or self.selection[0] == "ema"

    @property
    def limits(self) -> Budget:
        return Budget.parse(self.budget)

    def to_json(self) -> dict[str, Any]:
        """For another process; :meth:`from_json` makes the task known there, if it is the user's own."""
        names = ("study", "label", "real_images", "timeout", "own_task", "settings", "average")
        extra = {name: getattr(self, name) for name in names}
        lists: dict[str, Any] = {"stated": [list(entry) for entry in self.stated]}
        lists |= {"image_metrics": list(self.image_metrics), "method_files": [str(file) for file in self.method_files]}
        pool = {"pool_path": None if self.pool_path is None else str(self.pool_path)}
        return self.identity() | extra | lists | pool

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        fixed = dict(values)
        fixed["options"] = {name: _tuples(value) for name, value in values["options"].items()}
        fixed["selection"] = tuple(values["selection"])
        fixed["teachers"] = tuple(values.get("teachers", ()))
        fixed["image_metrics"] = tuple(values["image_metrics"])
        fixed["stated"] = _tuples(values["stated"])
        fixed["method_files"] = tuple(Path(file) for file in values["method_files"])
        fixed["pool_path"] = None if values["pool_path"] is None else Path(values["pool_path"])
        if values["own_task"] is not None:
            add_tasks([TaskSpec.model_validate(values["own_task"])])
        return cls(**fixed)


OUTSIDE = (
    *("study", "label", "image_metrics", "real_images", "timeout", "method_files", "pool_path", "own_task"),
    *("settings", "average", "stated"),
)
IDENTITY = tuple(field.name for field in dataclasses.fields(Trial) if field.name not in OUTSIDE)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
