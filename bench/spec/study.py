"""A study: a YAML file that expands to trials, tasks x methods x option grids x seeds, under one budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from bench._version import __version__
from bench.data import SOURCES
from bench.errors import UserError, nearest, nearest_file
from bench.records.selection import DATA_FREE, RULES
from bench.spec.budget import UNITS, Budget
from bench.spec.grid import Sample, Written, spell_out
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods
from bench.spec.metric_names import image_metrics
from bench.spec.options import WHOLE
from bench.spec.task import TaskSpec, add_tasks, check_recipes, get_task, read_tasks
from bench.spec.teacher_key import check_several, quick_teachers
from bench.utils.paths import ROOT
from bench.utils.yaml import NAME, Real, Strict, Whole, at_line, read_yaml, validate, where

FOLDER = ROOT / "studies"
YAML = (".yaml", ".yml")
MOST_THREADS = 1024  # more is a slip; a machine refuses to start them
SUITE = ".".join(__version__.split(".")[:2])  # records of another suite version share no ranking

Rule = Literal["last", "ema", "teacher_agreement", "oracle"]


def _entry(item: Any) -> Any:
    """One of ``methods``: a name, or a name with options."""
    if isinstance(item, Mapping):
        if len(item) != 1:
            names = ", ".join(map(str, item)) or "none"
            raise ValueError(f"an entry names one method, not {len(item)} ({names}); start each with its own `-`")
        ((name, options),) = item.items()
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"the options of {name!r} must be keys with values, not {options!r}")
    elif not isinstance(item, str):
        raise ValueError(f"must be a method's name, or its name with options, not {item!r}")
    return item


def _place(item: Any) -> Any:
    """One of ``tasks``: a name, a file, or a task written out."""
    if not isinstance(item, str | Mapping):
        raise ValueError(f"must be a task's name, a YAML file with tasks, or a task written out, not {item!r}")
    return item


def _keys(item: Any) -> Any:
    """The teachers of a task: a key, or the keys of several."""
    if not isinstance(item, str) and not (isinstance(item, list | tuple) and all(isinstance(key, str) for key in item)):
        raise ValueError(f"must be the key of a teacher, or a list of keys, not {item!r}")
    return item


Keys = Annotated[str | tuple[str, ...], BeforeValidator(_keys)]
Place = Annotated[str | Mapping[str, Any], BeforeValidator(_place)]
Entry = Annotated[str | Mapping[str, Mapping[str, Written] | None], BeforeValidator(_entry)]
_LIMITS: JsonDict = {unit: {"type": "number", "exclusiveMinimum": 0, "description": doc} for unit, doc in UNITS.items()}


class Study(Strict):
    """A study file. `dfkd list studies --schema` prints this as a JSON schema for editors."""

    name: str = Field(pattern=NAME, description="name of the study and of its results folder")
    description: str = Field(default="", description="purpose of the study; shown by `dfkd list studies`")
    tasks: tuple[Place, ...] = Field(
        min_length=1,
        description="names (see `dfkd list tasks`), paths of YAML files with tasks, or tasks defined here",
    )
    methods: tuple[Entry, ...] = Field(
        min_length=1,
        description="names (see `dfkd list methods`) or paths of method files, optionally with options; "
        "a list is a grid axis if the option is a scalar, and so is a range",
    )
    sample: Sample | None = Field(
        default=None, description="sample cells jointly from the ranges of an entry, instead of a grid"
    )
    seeds: tuple[Annotated[Whole, Field(ge=0, lt=WHOLE)], ...] = Field(
        default=(0,), min_length=1, description="each gives one trial per method and option cell"
    )
    budget: Mapping[str, Any] = Field(
        description="limits of one trial: seconds, steps, teacher_images, student_images, gmacs; "
        "the first one used up ends it",
        json_schema_extra={"minProperties": 1, "properties": _LIMITS, "additionalProperties": False},
    )
    budgets: Mapping[str, Mapping[str, Any]] = Field(
        default={}, description="task: another budget for its trials; within a task it is the same for all methods"
    )
    method_budgets: Mapping[str, Mapping[str, Any]] = Field(
        default={},
        description="method: a budget of its own on every task, such as its paper's; it is compared with no other then",
    )
    settings: str = Field(
        default="paper", description="`paper`: the papers' options; `small`: the task's options for a small machine"
    )
    points: Whole = Field(
        default=20, ge=1, le=10_000, description="number of evaluations, evenly spread over the budget"
    )
    selection: tuple[Rule, ...] = Field(
        default=("last", "ema", "teacher_agreement", "oracle"),
        min_length=1,
        description="selection rules; the first one is the headline and must be data-free",
    )
    average: Literal["end", "points"] = Field(
        default="end",
        description="where the average of the student's weights is scored: at the `end`, or at all `points`, as it is "
        "where the headline rule is `ema`",
    )
    image_metrics: tuple[str, ...] = Field(default=(), description="see `dfkd list metrics`")
    real_images: Whole | None = Field(
        default=None,
        ge=2,
        description="maximum number of training images to compare the synthetic ones with; default: all",
    )
    teacher: Literal["paper", "quick"] = Field(
        default="paper", description="`quick`: each task's teacher for small machines, if it has one"
    )
    teachers: Mapping[str, Keys] = Field(
        default={},
        description="task: key of a teacher, see `dfkd teacher list`; of a task with several, a list of all their keys",
    )
    pools: Mapping[str, Mapping[Literal["related", "unrelated", "wild"], str]] = Field(
        default={},
        description="task: other pools of real images than its own, by role: `pool`, the name of a data set, or the "
        "path of a folder of images or an .npy file",
    )
    threads: Whole = Field(
        default=1,
        ge=1,
        le=MOST_THREADS,
        description="CPU threads per trial; results repeat bit for bit only with the same number",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="precision of the networks' arithmetic; scoring is always in float32"
    )
    memory_format: Literal["channels_last", "contiguous"] = Field(
        default="channels_last",
        description="order in memory of images, maps and weights; channels_last is faster, other bits",
    )
    deterministic: bool = Field(default=True, strict=True, description="use only operations that repeat bit for bit")
    isolation: Literal["auto", "process", "none"] = Field(
        default="auto",
        description="`process`: each method in a confined process of its own; `auto`: where the machine can; `none`: "
        "in the harness's process",
    )
    timeout: Real | None = Field(default=None, gt=0, description="wall-clock seconds after which a trial is killed")

    def teacher_keys(self, task: str) -> tuple[str, ...]:
        """The keys of the teachers that it names for a task; none where the task's own are meant."""
        named = self.teachers.get(task, ())
        return (named,) if isinstance(named, str) else named

    @field_validator("seeds", "tasks", "selection", "image_metrics")
    @classmethod
    def _no_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        seen = set()
        for index, value in enumerate(values):
            if isinstance(value, Mapping):
                continue
            if value in seen:
                raise PydanticCustomError("repeated", "{value} is repeated", {"value": repr(value), "index": index})
            seen.add(value)
        return values

    @field_validator("selection")
    @classmethod
    def _data_free_headline(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if rules and rules[0] not in DATA_FREE:
            raise ValueError(f"the headline rule (the first) must be data-free: {', '.join(DATA_FREE)}")
        return rules


@dataclass(frozen=True)
class LoadedStudy:
    """A valid study, the tasks and methods it names, and each method's options with their ranges spelt out."""

    study: Study
    tasks: tuple[str, ...]
    cards: Mapping[str, MethodCard]
    entries: tuple[tuple[str, Mapping[str, Any]], ...]
    method_files: tuple[Path, ...]
    folder: Path  # of the study file: relative paths start there
    written: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # methods and their options, ranges and all

    def budget(self, task: str, method: str) -> Budget:
        """What a trial of a method on a task may spend."""
        study = self.study
        return Budget.parse(study.method_budgets.get(method) or study.budgets.get(task, study.budget))


def load_study(file: Path, method_files: Sequence[Path] = (), searched: bool = False) -> LoadedStudy:
    """Read and check a study file.

    Args:
        file: the YAML file.
        method_files: further method files (``--method``); a method in them that the study does not name is added to it.
        searched: for a search, which suggests the values of ranges: they need no count and are no entries.

    Raises:
        UserError: with file, line and the nearest valid name.
    """
    data = read_yaml(file)
    if data is None:
        raise UserError(f"{file} is empty; a study needs name, tasks, methods and budget")
    study = validate(Study, data, file)
    for unit, limit in study.budget.items():
        at_line(file, data, ["budget", unit], lambda unit=unit, limit=limit: Budget.parse({unit: limit}))  # type: ignore[misc]
    at_line(file, data, ["budget"], lambda: Budget.parse(study.budget))
    for task, budget in study.budgets.items():
        at_line(file, data, ["budgets", task], lambda budget=budget: Budget.parse(budget))  # type: ignore[misc]
    for method, budget in study.method_budgets.items():
        at_line(file, data, ["method_budgets", method], lambda budget=budget: Budget.parse(budget))  # type: ignore[misc]
    tasks = _tasks(study, file, data)
    for index, name in enumerate(study.image_metrics):
        at_line(file, data, ["image_metrics", index], lambda name=name: image_metrics([name]))  # type: ignore[misc]
    for task, pools in study.pools.items():
        for role, pool in pools.items():
            at_line(file, data, ["pools", task, role], lambda pool=pool: find_pool(pool, file.parent))  # type: ignore[misc]
    for key in ("teachers", "budgets", "pools"):
        for task in getattr(study, key):
            if task not in tasks:
                here = where(file, data, [key, task])
                raise UserError(f"{here}: {key}: this study has no task {task!r}{nearest(task, tasks)}")
    for task in study.teachers:
        keys = study.teacher_keys(task)
        at_line(file, data, ["teachers", task], lambda task=task, keys=keys: check_several(get_task(task), keys))  # type: ignore[misc]
    _check_settings(study, tasks, where(file, data, ["settings"]))
    if study.teacher == "quick":
        for name in tasks:
            if name not in study.teachers:
                at_line(file, data, ["teacher"], lambda name=name: quick_teachers(get_task(name)))  # type: ignore[misc]

    given = [path.resolve() for path in method_files]
    files, cards = list(given), find_methods(given)
    written = [_pair(item) for item in study.methods]
    for index, (name, _) in enumerate(written):
        if name.endswith(".py"):
            files.append((file.parent / name).resolve())
            cards = at_line(file, data, ["methods", index], lambda: find_methods(files))
    entries: list[tuple[str, Mapping[str, Any]]] = []
    seen: list[tuple[str, Mapping[str, Any]]] = []
    for index, (name, options) in enumerate(written):
        place: list[str | int] = ["methods", index]
        if name.endswith(".py"):
            path = (file.parent / name).resolve()
            names = [card.name for card in cards.values() if card.file == path]
        else:
            names = [at_line(file, data, place, lambda name=name: _card(name, cards, file.parent)).name]  # type: ignore[misc]
        for known in names:
            spelt = spell_out(cards[known], options, study.sample, file, data, [*place, name], searched)
            if (known, options) in seen:
                raise UserError(f"{where(file, data, place)}: {known!r} is named twice with the same options")
            seen.append((known, options))
            entries += [(known, cells) for cells in spelt]
    if study.sample and not any(isinstance(value, Mapping) for _, options in seen for value in options.values()):
        raise UserError(f"{where(file, data, ['sample'])}: nothing to sample: no option has a range")
    named = {name for name, _ in entries}
    for method in study.method_budgets:
        if method not in named:
            here = where(file, data, ["method_budgets", method])
            raise UserError(f"{here}: method_budgets: this study has no method {method!r}{nearest(method, named)}")
    entries += [(card.name, {}) for card in cards.values() if card.file in given and card.name not in named]
    return LoadedStudy(study, tasks, cards, tuple(entries), tuple(dict.fromkeys(files)), file.parent, tuple(seen))


@cache
def study_files() -> Mapping[str, Path]:
    """The studies that come with the suite, by path below ``studies/`` without the ending."""
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.yaml"))}


def find_study(name: str) -> Path:
    """A study file by path, or one of the suite's own by name."""
    path = Path(name)
    if name in study_files() and not path.is_file():
        return study_files()[name]
    if path.suffix == ".py":
        raise UserError(f"{name}: a study is a YAML file; a method file is added to one with --method")
    if path.exists():
        return path
    parts = path.with_suffix("").parts if path.suffix in YAML else path.parts
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    own = next((end for end in ends if end in study_files()), None)  # of ``studies/demo.yaml``, from elsewhere
    hint = nearest_file(name, ".yaml") or (f"; did you mean {own!r}?" if own else "")
    hint = hint or nearest("/".join(parts), study_files())
    raise UserError(f"no such study file: {name}{hint if not path.suffix or 'did you mean' in hint else ''}")


def find_pool(what: str, folder: Path) -> Path | None:
    """The file or folder of a study's pool; None for a data set by name, or ``pool``.

    Raises:
        UserError: neither a data set nor a path.
    """
    if what in SOURCES:
        return None
    path = folder / Path(what).expanduser()
    if not path.exists():
        raise UserError(f"pool {what!r} is not a data set, file or folder{nearest(what, SOURCES)}")
    return path.resolve()


def _tasks(study: Study, file: Path, data: Any) -> tuple[str, ...]:
    """The names of a study's tasks; those that are written out, in it or in a file that it names, become known."""
    names: list[str] = []
    for index, item in enumerate(study.tasks):
        place: list[str | int] = ["tasks", index]
        if isinstance(item, Mapping):
            new = [validate(TaskSpec, data, file, at=place)]
            named = "teachers" if new[0].teachers else "teacher"
            at_line(file, data, [*place, named], lambda new=new: check_recipes(new[0]))  # type: ignore[misc]
        elif item.endswith(YAML):
            new = at_line(file, data, place, lambda item=item: read_tasks(file.parent / item))  # type: ignore[misc]
        else:
            new = [at_line(file, data, place, lambda item=item: get_task(item))]  # type: ignore[misc]
        at_line(file, data, place, lambda new=new: add_tasks(new))  # type: ignore[misc]
        for task in new:
            if task.name in names:
                raise UserError(f"{where(file, data, place)}: task {task.name!r} is named twice")
            names.append(task.name)
    return tuple(names)


def _check_settings(study: Study, tasks: Sequence[str], place: str) -> None:
    known = {"paper"}.union(*(get_task(name).settings for name in tasks))
    if study.settings not in known:
        raise UserError(f"{place}: unknown settings {study.settings!r}{nearest(study.settings, known)}")


def _card(name: str, cards: Mapping[str, MethodCard], folder: Path) -> MethodCard:
    """The method of a name; where it is unknown, the file that was meant is named as the study has to write it."""
    if name in cards:
        return cards[name]
    hint = nearest_file(name, ".py", folder)  # a study names files by paths from its own folder
    if not hint and nearest_file(name, ".py"):
        hint = f"; did you mean `--method {name}.py`?"
    raise UserError(f"unknown method {name!r}{hint or f'{nearest(name, cards)} (one of your own: --method FILE)'}")


def _pair(item: str | Mapping[str, Mapping[str, Any] | None]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, str):
        return item, {}
    ((name, options),) = item.items()
    return name, options or {}


assert set(RULES) == set(Rule.__args__)  # type: ignore[attr-defined]
