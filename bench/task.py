"""Tasks: a data set, a teacher, a student and the geometry of the images. They are data, in ``bench/tasks/*.yaml``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.errors import UserError, nearest
from bench.yamlio import read_yaml, validate, where

FOLDER = Path(__file__).resolve().parent / "tasks"
RECIPES = Path(__file__).resolve().parent / "recipes.yaml"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSpec(Strict):
    """Geometry and normalisation of a task's images: normalised = (pixel / 255 - mean) / std, per channel."""

    channels: int = Field(ge=1)
    size: int = Field(ge=4, description="height and width in pixels")
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        return (self.channels, self.size, self.size)

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> ImageSpec:
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError("mean and std need one number a channel, std above 0")
        return self


class TeacherSpec(Strict):
    """Which teacher a task uses, unless a study names another."""

    network: str
    recipe: str
    seed: int = 0


class PublishedScore(Strict):
    """A number from a paper: quoted with its source, never mixed with measured ones."""

    score: float
    source: str = Field(min_length=1)
    method: str = ""


class Published(Strict):
    teacher: PublishedScore | None = None
    methods: tuple[PublishedScore, ...] = ()


class TaskSpec(Strict):
    """One task as its YAML file states it."""

    name: str
    data: str
    image: ImageSpec
    teacher: TeacherSpec
    student: str
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]] = {}
    published: Published = Published()

    @property
    def sha(self) -> str:
        """Hash of what can change an outcome: data, geometry, teacher and student, but no published number."""
        identity = self.model_dump(mode="json", include={"data", "image", "student"})
        identity["teacher"] = self.teacher.network
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


class Recipe(Strict):
    """How a teacher is trained."""

    optimizer: Literal["adam", "sgd"]
    lr: float = Field(gt=0)
    batch: int = Field(ge=1, description="images a step")
    epochs: int = Field(ge=1)
    schedule: Literal["constant", "cosine", "milestones"] = "constant"
    milestones: tuple[int, ...] = ()
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)


@cache
def tasks() -> Mapping[str, TaskSpec]:
    """All built-in tasks by name."""
    found: dict[str, TaskSpec] = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        data = read_yaml(file)
        if not isinstance(data, list):
            raise UserError(f"{file}: expected a list of tasks")
        for index in range(len(data)):
            task = validate(TaskSpec, data, file, at=[index])
            if task.name in found:
                raise UserError(f"{where(file, data, [index])}: two tasks are called {task.name!r}")
            found[task.name] = task
    return found


def get_task(name: str) -> TaskSpec:
    if name not in tasks():
        raise UserError(f"unknown task {name!r}{nearest(name, tasks())}")
    return tasks()[name]


@cache
def recipes() -> Mapping[str, Recipe]:
    """All teacher recipes by name."""
    data = read_yaml(RECIPES)
    return {str(name): validate(Recipe, data, RECIPES, at=[name]) for name in data}


def get_recipe(name: str) -> Recipe:
    if name not in recipes():
        raise UserError(f"unknown teacher recipe {name!r}{nearest(name, recipes())}")
    return recipes()[name]
