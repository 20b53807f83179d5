"""A study: a YAML file that expands to trials, tasks x methods x option grids x seeds, under one budget."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

import bench
from bench.budget import Budget
from bench.cards import MethodCard, find_methods, get_card
from bench.errors import UserError, nearest
from bench.metrics import image_metric
from bench.options import check_value
from bench.selection import DATA_FREE, RULES
from bench.task import Strict, TaskSpec, get_task
from bench.teacher_key import teacher_key
from bench.trial import Trial
from bench.yamlio import at_line, read_yaml, validate, where

FOLDER = Path(__file__).resolve().parent.parent / "studies"
SUITE = ".".join(bench.__version__.split(".")[:2])  # records of another suite version share no ranking

Rule = Literal["last", "ema", "teacher_agreement", "oracle"]


class Study(Strict):
    """A study file. `dfkd list studies --schema` prints this as a JSON schema for editors."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="names the results folder")
    description: str = ""
    tasks: tuple[str, ...] = Field(min_length=1, description="see `dfkd list tasks`")
    methods: tuple[str | Mapping[str, Mapping[str, Any] | None], ...] = Field(
        min_length=1,
        description="names (see `dfkd list methods`) or paths of method files, each with options if wanted; "
        "a list is a grid axis where the option is a scalar",
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    budget: Mapping[str, Any] = Field(
        description="limits of one trial: seconds, steps, teacher_images, student_images, gmacs; "
        "the first one used up ends it"
    )
    settings: str = Field(
        default="paper", description="`paper`: the papers' options; `small`: the task's options for a small machine"
    )
    points: int = Field(default=20, ge=1, le=10_000, description="evaluations, evenly spread over the budget")
    selection: tuple[Rule, ...] = Field(
        default=("last", "ema", "teacher_agreement", "oracle"),
        min_length=1,
        description="selection rules; the first one is the headline and must be data-free",
    )
    image_metrics: tuple[str, ...] = Field(default=(), description="see `dfkd list metrics`")
    teachers: Mapping[str, str] = Field(default={}, description="task: key of a teacher, see `dfkd teacher list`")
    threads: int = Field(default=1, ge=1, description="CPU threads of a trial; results are bit-stable for one number")
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    deterministic: bool = True
    timeout: float | None = Field(default=None, gt=0, description="wall-clock seconds after which a trial is killed")

    @field_validator("seeds", "tasks", "selection", "image_metrics")
    @classmethod
    def _no_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value!r} is repeated")
        return values

    @field_validator("selection")
    @classmethod
    def _data_free_headline(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if rules and rules[0] not in DATA_FREE:
            raise ValueError(f"the headline rule (the first) must be data-free: {', '.join(DATA_FREE)}")
        return rules


@dataclass(frozen=True)
class LoadedStudy:
    """A valid study, the methods it names, and each method's options as written."""

    study: Study
    cards: Mapping[str, MethodCard]
    entries: tuple[tuple[str, Mapping[str, Any]], ...]
    method_files: tuple[Path, ...]


def load_study(file: Path, method_files: Sequence[Path] = ()) -> LoadedStudy:
    """Read and check a study file.

    Args:
        file: the YAML file.
        method_files: further method files (``--method``); a method in them that the study does not name is added to it.

    Raises:
        UserError: with file, line and the nearest valid name.
    """
    data = read_yaml(file)
    if data is None:
        raise UserError(f"{file} is empty; a study needs name, tasks, methods and budget")
    study = validate(Study, data, file)
    at_line(file, data, ["budget"], lambda: Budget.parse(study.budget))
    for index, name in enumerate(study.tasks):
        at_line(file, data, ["tasks", index], lambda name=name: get_task(name))  # type: ignore[misc]
    for index, name in enumerate(study.image_metrics):
        at_line(file, data, ["image_metrics", index], lambda name=name: image_metric(name))  # type: ignore[misc]
    for task in study.teachers:
        if task not in study.tasks:
            raise UserError(f"{where(file, data, ['teachers', task])}: no such task here{nearest(task, study.tasks)}")
    _check_settings(study, where(file, data, ["settings"]))

    files = [path if path.is_absolute() else Path.cwd() / path for path in method_files]
    written = [_entry(item) for item in study.methods]
    from_study = [file.parent / name for name, _ in written if name.endswith(".py")]
    cards = find_methods([*files, *from_study])
    entries = []
    for index, (name, options) in enumerate(written):
        place: list[str | int] = ["methods", index]
        if name.endswith(".py"):
            path = (file.parent / name).resolve()
            names = [card.name for card in cards.values() if card.file == path]
        else:
            names = [at_line(file, data, place, lambda name=name: get_card(name, cards)).name]  # type: ignore[misc]
        for known in names:
            _check_options(cards[known], options, file, data, [*place, name])
            entries.append((known, options))
    _check_unique(entries, file, data)
    named = {name for name, _ in entries}
    resolved = {path.resolve() for path in files}
    entries += [(card.name, {}) for card in cards.values() if card.file in resolved and card.name not in named]
    return LoadedStudy(study, cards, tuple(entries), tuple(path.resolve() for path in [*files, *from_study]))


def expand(loaded: LoadedStudy, device: str = "cpu") -> list[Trial]:
    """All trials of a study: by task, then method, then option cell, then seed."""
    study = loaded.study
    trials = []
    for task_name in study.tasks:
        task = get_task(task_name)
        teacher = study.teachers.get(task_name) or teacher_key(task)
        task_sha = task.sha
        for name, written in loaded.entries:
            card = loaded.cards[name]
            sha = card.sha
            base = {**card.defaults(), **preset(card, task, study.settings)}
            for cell in _grid(card, written):
                options = {**base, **cell}
                label = name + (f" ({_short(cell)})" if cell else "")
                for seed in study.seeds:
                    trials.append(
                        Trial(
                            suite=SUITE,
                            task=task_name,
                            task_sha=task_sha,
                            teacher=teacher,
                            method=name,
                            method_sha=sha,
                            options=options,
                            budget=dict(study.budget),
                            seed=seed,
                            device=device,
                            threads=study.threads,
                            precision=study.precision,
                            deterministic=study.deterministic,
                            points=study.points,
                            selection=study.selection,
                            study=study.name,
                            label=label,
                            image_metrics=study.image_metrics,
                            timeout=study.timeout,
                            method_files=loaded.method_files,
                        )
                    )
    return trials


def preset(card: MethodCard, task: TaskSpec, settings: str) -> dict[str, Any]:
    """The options that differ from a method's defaults on a task: the paper's for its data set, then the task's."""
    values = dict(card.presets.get(task.data, {}))
    values.update(task.settings.get(settings, {}).get(card.name, {}))
    specs = {spec.name: spec for spec in card.specs}
    for name in values:
        if name not in specs:
            raise UserError(f"task {task.name!r}, settings {settings!r}: {card.name} has no option {name!r}")
    return {name: check_value(specs[name], value) for name, value in values.items()}


@cache
def study_files() -> Mapping[str, Path]:
    """The studies that come with the suite, by path below ``studies/`` without the ending."""
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.yaml"))}


def find_study(name: str) -> Path:
    """A study file by path, or one of the suite's own by name."""
    path = Path(name)
    if path.exists() or name not in study_files():
        hint = "" if path.exists() or path.parent != Path() else nearest(path.stem, study_files())
        if not path.exists():
            raise UserError(f"no such study file: {name}{hint}")
        return path
    return study_files()[name]


def _check_settings(study: Study, place: str) -> None:
    known = {"paper"}.union(*(get_task(name).settings for name in study.tasks))
    if study.settings not in known:
        raise UserError(f"{place}: unknown settings {study.settings!r}{nearest(study.settings, known)}")


def _entry(item: str | Mapping[str, Mapping[str, Any] | None]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, str):
        return item, {}
    name = next(iter(item), "")
    return name, item.get(name) or {}


def _check_options(
    card: MethodCard, options: Mapping[str, Any], file: Path, data: Any, place: Sequence[str | int]
) -> None:
    specs = {spec.name: spec for spec in card.specs}
    for name, value in options.items():
        here = where(file, data, [*place, name])
        if name not in specs:
            raise UserError(f"{here}: {card.name} has no option {name!r}{nearest(name, specs)}")
        try:
            axis = _axis(specs[name].is_sequence, value)
            if axis is not None and not axis:
                raise UserError(f"the grid of option {name!r} is empty")
            cells = [check_value(specs[name], item) for item in (axis if axis is not None else [value])]
            if len(set(cells)) < len(cells):
                raise UserError(f"the grid of option {name!r} repeats a value")
        except UserError as error:
            raise UserError(f"{here}: {error}") from None


def _axis(is_sequence: bool, value: Any) -> list[Any] | None:
    """The values of a grid axis, or None when the value is a single one."""
    if not isinstance(value, list | tuple):
        return None
    if is_sequence and not (value and isinstance(value[0], list | tuple)):
        return None
    return list(value)


def _grid(card: MethodCard, written: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    specs = {spec.name: spec for spec in card.specs}
    axes = []
    for name, value in written.items():
        values = _axis(specs[name].is_sequence, value)
        axes.append([(name, check_value(specs[name], item)) for item in (values if values is not None else [value])])
    for cell in itertools.product(*axes):
        yield dict(cell)


def _check_unique(entries: list[tuple[str, Mapping[str, Any]]], file: Path, data: Any) -> None:
    for index, entry in enumerate(entries):
        if entry in entries[:index]:
            line = where(file, data, ["methods", index])
            raise UserError(f"{line}: {entry[0]!r} is named twice with the same options")


def _short(cell: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in cell.items()
    )


assert set(RULES) == set(Rule.__args__)  # type: ignore[attr-defined]
