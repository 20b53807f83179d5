"""Tasks: a data set, a teacher, a student and the geometry of the images. They are data, in ``bench/tasks/*.yaml``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from bench.data import SOURCES, OwnImages, Source, find, own_of, source_of
from bench.data.image_spec import Augmentation, ImageSpec
from bench.errors import UserError, nearest
from bench.models import check_name
from bench.models.source import source_hashes
from bench.records.comparable import AGREEMENT, SYNTHETIC_AGREEMENT
from bench.spec.published import Published
from bench.utils.paths import PACKAGE
from bench.utils.yaml import Strict, at_line, read_yaml, validate, where

FOLDER = PACKAGE / "tasks"
RECIPES = PACKAGE / "recipes.yaml"
TEACHERS = 100  # of one task: a question names its teacher in one byte


class TeacherSpec(Strict):
    """Which teacher a task uses, unless a study names another."""

    network: str
    recipe: str = Field(default="", description="how it is trained; empty: it is imported")
    seed: int = 0


class TaskTeacher(TeacherSpec):
    """A task's teacher, and the recipe of a usable one for small machines."""

    quick: str = Field(default="", description="a recipe for two CPU cores; empty if no useful one is known")


class Taps(Strict):
    """Places in a network that does not name them itself, by the names of its modules (``named_modules()``)."""

    head: str = Field(default="", description="the module from the features to the logits")
    stages: tuple[str, ...] = Field(default=(), description="modules that make maps (N, C, h, w), for groups")
    layers: tuple[str, ...] = Field(default=(), description="all modules that make inner maps, for layer groups")

    @property
    def places(self) -> dict[str, Sequence[str]]:
        """What is named, as :func:`bench.models.taps.tap` takes it."""
        return {"head": (self.head,) if self.head else (), "stages": self.stages, "layers": self.layers}


class NetworkTaps(Strict):
    """The places in a task's two networks."""

    teacher: Taps = Taps()
    student: Taps = Taps()


class TaskSpec(Strict):
    """One task as its YAML file states it."""

    name: str = Field(min_length=1)
    data: str = Field(description="the name of a data set; in a file also `{images: FOLDER}`, one's own")
    own: OwnImages | None = Field(default=None, description="one's own images; found out from `data`, and not written")
    test: str = Field(
        default="",
        description="another data set with the same classes, whose test images score instead of those of `data`, on "
        "which the teacher is trained: another domain",
    )
    image: ImageSpec
    resize: int | None = Field(
        default=None,
        ge=4,
        description="pixels of the real images' shorter side, where training crops from larger ones and whole images "
        "are scored (segmentation); the default is the task's size",
    )
    augment: Augmentation | None = None
    teacher: TaskTeacher
    teachers: tuple[TaskTeacher, ...] = Field(
        default=(),
        description="in the place of `teacher`, several that are trained on the same data; the first is the one that "
        "methods for one teacher ask",
    )
    student: str
    taps: NetworkTaps = NetworkTaps()
    pools: Mapping[Literal["related", "unrelated", "wild"], str] = Field(
        default={},
        description="other real images for methods that distil with them, by role: `pool`, or the name of a data set",
    )
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]] = {}
    published: Published = Published()

    @property
    def all_teachers(self) -> tuple[TaskTeacher, ...]:
        """The teacher, or all of several, :attr:`teacher` first."""
        return self.teachers or (self.teacher,)

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of all its networks: the teachers', in their order, then the student's."""
        return (*(teacher.network for teacher in self.all_teachers), self.student)

    @property
    def built_in(self) -> bool:
        """Whether the suite brings it; other processes must be told of a user's own."""
        return _built_in().get(self.name) == self

    @property
    def stored_size(self) -> int:
        """Pixels of the shorter side of the real images as they are kept in memory."""
        return self.resize or self.image.size

    @property
    def source(self) -> Source:
        """Its data set, with the one that it is tested on."""
        source = find(self.data) if self.own is None else source_of(self.own, self.image)
        if not self.test:
            return source
        other = find(self.test)
        return replace(source, test_images=other.test_images, labelled=other.labelled, tested_on=other)

    @property
    def has_training_images(self) -> bool:
        """Whether there are any: a user's own images may be test images alone."""
        return self.own is None or self.own.train > 0

    @property
    def images_folder(self) -> Path | None:
        """Where the user's own images lie; None for a data set of the suite's."""
        return None if self.own is None else self.own.folder

    @property
    def placeless(self) -> TaskSpec:
        """The task without the place of the user's images."""
        if self.images_folder is None or self.own is None:
            return self
        return self.model_copy(update={"own": self.own.model_copy(update={"images": ""})})

    @property
    def trains_teachers(self) -> bool:
        """Whether all its teachers can be trained here; otherwise some are imported."""
        return self.has_training_images and all(teacher.recipe for teacher in self.all_teachers)

    @property
    def dense(self) -> bool:
        """Whether networks answer for every pixel (segmentation)."""
        return self.source.kind == "segmentation"

    @property
    def metric(self) -> str:
        """What a test score is. Without labels it is agreement with the teacher, and of another name without images."""
        if self.source.labelled:
            return "miou" if self.dense else "accuracy"
        return AGREEMENT if self.images_folder else SYNTHETIC_AGREEMENT

    @property
    def geometry(self) -> dict[str, Any]:
        """What there is to know about the real images beyond :attr:`image`; empty where nothing is special."""
        return self.model_dump(mode="json", include={"resize", "augment"}, exclude_defaults=True)

    @property
    def classes(self) -> int:
        """How many classes its data set has."""
        return len(self.source.classes)

    @property
    def test_images(self) -> int | None:
        """How many test images the official files of its data set have; None where that is not stated."""
        return self.source.test_images

    @property
    def sha(self) -> str:
        """Hash of what can change an outcome: data, geometry, teachers and student, but no published number."""
        identity = self.model_dump(mode="json", include={"data", "image", "student"}) | self.geometry
        identity["teacher"] = self.teacher.network
        if self.test:
            identity["test"] = self.test
        if self.teachers:
            identity["teachers"] = [teacher.network for teacher in self.teachers]
        if named := self.model_dump(mode="json", include={"taps"}, exclude_defaults=True):
            identity |= named
        if own := source_hashes(*self.networks):
            identity["networks"] = own
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def places(self, which: Literal["teacher", "student"]) -> Mapping[str, Sequence[str]]:
        """The places that the task names in one of its networks."""
        taps: Taps = getattr(self.taps, which)
        return taps.places

    @model_validator(mode="before")
    @classmethod
    def _folder(cls, values: Any, info: ValidationInfo) -> Any:
        """Look into the folder that ``data`` names: what is found there is kept in ``own``."""
        if not isinstance(values, Mapping) or not isinstance(values.get("data"), Mapping):
            return values
        try:
            own = own_of(values["data"], Path((info.context or {}).get("folder", "")))
        except UserError as error:
            raise PydanticCustomError("images", "data: {said}", {"said": str(error), "index": "data"}) from None
        return {**values, "data": own.name, "own": own.model_dump()}

    @model_validator(mode="before")
    @classmethod
    def _first(cls, values: Any) -> Any:
        """The first of several teachers is :attr:`teacher` as well; several that are one are that one."""
        if not isinstance(values, Mapping) or not isinstance(several := values.get("teachers"), list | tuple):
            return values
        if not several and "teacher" not in values:
            raise PydanticCustomError("teachers", "teachers: is empty; name at least one", {"index": "teachers"})
        if several and values.get("teacher", several[0]) != several[0]:
            raise PydanticCustomError(
                "teachers",
                "teacher: and teachers: are both given; list all of them in `teachers`, the first one first",
                {"index": "teacher"},
            )
        return {**values, "teacher": several[0] if several else values["teacher"], "teachers": several[1:] and several}

    @model_validator(mode="after")
    def _known(self) -> TaskSpec:
        if self.own is not None and self.own.name != self.data:
            raise ValueError("own: is found out, and not written; name a folder of images as `data: {images: FOLDER}`")
        if self.test and self.test not in SOURCES:
            raise ValueError(f"test: {self.test!r} is not a data set{nearest(self.test, SOURCES)}")
        try:
            kind = self.source.kind
            for network in self.networks:
                check_name(network)
        except UserError as error:  # pydantic adds the place to a ValueError only
            raise ValueError(str(error)) from None
        if self.test:
            self._check_test()
        for role, pool in self.pools.items():
            if pool not in SOURCES:
                raise ValueError(f"pools: {role}: {pool!r} is not a data set{nearest(pool, SOURCES)}")
        if kind == "unlabelled":
            raise ValueError(f"data: {self.data!r} has no labels; a task needs a labelled data set")
        if self.teachers and not self.source.labelled:
            raise ValueError(
                "teachers: without labels a score is the agreement with the teacher, so such a task has one: `teacher`"
            )
        if self.teachers and self.taps.teacher != Taps() and len({each.network for each in self.teachers}) > 1:
            raise ValueError(
                "taps: teacher: names places in one network, and these teachers are several; give them the same "
                "network, or leave it out"
            )
        if len(self.teachers) > TEACHERS:
            raise ValueError(f"teachers: {len(self.teachers)} of them; {TEACHERS} are the most")
        for place, teacher in enumerate(self.teachers):
            before = [(each.network, each.recipe, each.seed) for each in self.teachers[:place]]
            if teacher.recipe and (teacher.network, teacher.recipe, teacher.seed) in before:
                raise ValueError(f"teachers: {teacher.network} is there twice with the same recipe and seed")
        if self.resize is not None and kind != "segmentation":
            raise ValueError("resize: only segmentation networks accept images larger than those they train on")
        if self.resize is not None and self.resize < self.image.size:
            raise ValueError(f"resize: {self.resize} is smaller than the images' size, {self.image.size}")
        return self

    def _check_test(self) -> None:
        """Raise ValueError unless ``test`` is another data set of the same kind, with the same classes."""
        if self.test == self.data:
            raise ValueError(f"test: {self.test!r} is the task's data set itself; leave it out")
        if not self.has_training_images:
            raise ValueError("test: replaces the test images, and these images have no others; leave it out")
        own, other = (find(self.data) if self.own is None else source_of(self.own, self.image)), find(self.test)
        if not own.labelled:
            raise ValueError("test: the teacher is scored on the images of `data` as well, and these have no labels")
        if other.kind != own.kind:
            kind = "has no labels" if other.kind == "unlabelled" else f"is for {other.kind}"
            raise ValueError(f"test: {self.test!r} {kind}, and {self.data!r} is for {own.kind}")
        if other.classes != own.classes:
            raise ValueError(
                f"test: {self.test!r} has other classes ({_some(other.classes)}) than {self.data!r} "
                f"({_some(own.classes)}), so a student of one cannot be scored on the other"
            )
        if other.kind == "segmentation":
            raise ValueError("test: is for classification; segmentation is scored on the test images of `data`")


def _some(classes: Sequence[str], most: int = 3) -> str:
    more = f", ... {len(classes)} in all" if len(classes) > most else ""
    return ", ".join(classes[:most]) + more


class Recipe(Strict):
    """How a teacher is trained."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field(description="adamw: weight decay apart from the gradient")
    lr: float = Field(gt=0)
    batch: int = Field(ge=1, description="images per step")
    epochs: int = Field(ge=1)
    schedule: Literal["constant", "cosine", "milestones", "one_cycle"] = "constant"
    milestones: tuple[int, ...] = ()
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    gamma: float = Field(default=0.1, gt=0, lt=1, description="factor of the learning rate at every milestone")
    nesterov: bool = False
    loss: Literal["cross_entropy", "focal"] = Field(
        default="cross_entropy", description="focal: gamma 2, averaged over all pixels, including those without a class"
    )
    mixed: bool = Field(default=False, description="channels-last, and bfloat16 if the CPU or GPU supports it")
    threads: int = Field(default=1, ge=1, description="CPU threads; only the same number gives the same bytes")

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the weights. Fields added later count only where they are not at their default."""
        later = {"gamma", "nesterov", "loss", "mixed", "threads"}
        values = self.model_dump(mode="json", exclude=later)
        return values | self.model_dump(mode="json", include=later, exclude_defaults=True)


@cache
def tasks() -> dict[str, TaskSpec]:
    """All tasks by name: the built-in ones, and those that :func:`add_tasks` added in this process."""
    return dict(_built_in())


@cache
def _built_in() -> Mapping[str, TaskSpec]:
    found: dict[str, TaskSpec] = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        for task in read_tasks(file):
            if task.name in found:
                raise UserError(f"{file}: another file already has a task {task.name!r}")
            found[task.name] = task
    return found


def read_tasks(file: Path) -> list[TaskSpec]:
    """The tasks of a YAML file.

    Raises:
        UserError: with file, line and the nearest valid name.
    """
    data = read_yaml(file)
    if not isinstance(data, list) or not data:
        raise UserError(f"{file}: expected a list of tasks, each starting with `- name:`")
    found: dict[str, TaskSpec] = {}
    for index in range(len(data)):
        task = validate(TaskSpec, data, file, at=[index])
        if task.name in found:
            raise UserError(f"{where(file, data, [index])}: two tasks are named {task.name!r}")
        place: list[str | int] = [index, *(["teachers"] if task.teachers else ["teacher", "recipe"])]
        at_line(file, data, place, lambda task=task: check_recipes(task))  # type: ignore[misc]
        found[task.name] = task
    return list(found.values())


def add_tasks(new: Iterable[TaskSpec]) -> None:
    """Make a user's own tasks known in this process.

    The same task with its images at another place is the same: the place that exists is kept.

    Raises:
        UserError: another task has the name already.
    """
    for task in new:
        known = tasks().setdefault(task.name, task)
        if known.placeless != task.placeless:
            raise UserError(f"a task {task.name!r} already exists; give yours another name")
        if known.images_folder is not None and not known.images_folder.is_dir():
            tasks()[task.name] = task


def check_recipes(task: TaskSpec) -> None:
    """Raise UserError unless the recipes that a task names exist."""
    for teacher in task.all_teachers:
        for name in filter(None, (teacher.recipe, teacher.quick)):
            get_recipe(name)


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
