"""What it takes to give a paper's numbers back: studies, one for each task, made of the numbers that are quoted.

Each method has the number of teacher images that its paper asks for. Where that is not known it gets the largest that
is, of the same paper and task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.data import SOURCES
from bench.errors import UserError, nearest
from bench.spec.budget import Budget
from bench.spec.method_registry import find_methods
from bench.spec.published import PublishedScore, Quoted, get_paper, papers
from bench.spec.study import load_study, study_files
from bench.spec.task import TaskSpec, tasks
from bench.utils.yaml import plain, read_yaml

FOLDER = "reproduce/"  # of the suite's studies that give a table back, which are narrowed in the same way
RUNS = 3  # seeds where the paper's number of runs is not known
POINTS = 40  # evaluations: a paper's best epoch is the best of many
WHOLE = ("steps", "teacher_images", "student_images")

Written = dict[str, Any]  # a study as its file has it


def names() -> list[str]:
    """What can be reproduced: the papers, then the suite's own studies for that."""
    studies = [name.removeprefix(FOLDER) for name in study_files() if name.startswith(FOLDER)]
    return [*papers(), *studies]


def reproduction(
    name: str,
    rows: Sequence[str] = (),
    seeds: int | None = None,
    budget_share: float = 1.0,
    quick_teacher: bool = False,
) -> list[Written]:
    """The studies that run what the numbers of a paper, or a study of ``studies/reproduce``, need.

    Args:
        name: one of :func:`names`.
        rows: tasks and methods to keep; of either kind all where none is named.
        seeds: how many, from 0 on, in place of the paper's runs (3 where they are not known).
        budget_share: of each budget, above 0 and at most 1.
        quick_teacher: with the teachers for small machines.

    Raises:
        UserError: an unknown name or row, no number of teacher images is known, all teachers are imported, or a share
            that is not above 0 and at most 1.
    """
    if not 0 < budget_share <= 1:
        raise UserError(f"--budget-share must be above 0 and at most 1, not {budget_share:g}")
    if f"{FOLDER}{name}" in study_files():
        found = [plain(read_yaml(study_files()[f"{FOLDER}{name}"]))]
    elif name in papers():
        found = [_study(name, task, quotes) for task, quotes in _quoted(name)]
    else:
        raise UserError(f"unknown paper {name!r}{nearest(name, names())}")
    kept = [_shortened(each, budget_share) for each in _narrowed(found, rows)]
    for study in kept:
        study["seeds"] = list(range(seeds)) if seeds else study["seeds"]
        study |= {"teacher": "quick"} if quick_teacher else {}
    return kept


def _quoted(name: str) -> list[tuple[TaskSpec, list[Quoted]]]:
    """The tasks that a paper has numbers of methods for, with these; but for those whose teachers are imported."""
    get_paper(name)
    found = [
        (task, [task.published.of(quote) for quote in task.published.methods if quote.paper == name])
        for task in tasks().values()
    ]
    quoted = [(task, quotes) for task, quotes in found if quotes]
    return [(task, quotes) for task, quotes in quoted if task.trains_teachers] or quoted


def _study(paper: str, task: TaskSpec, quotes: Sequence[Quoted]) -> Written:
    if not task.trains_teachers:
        raise UserError(
            f"the teacher of {task.name} is imported: import it, and write a study of your own that names it "
            f"(`teachers: {{{task.name}: KEY}}`)"
        )
    counts: dict[str, Written] = {}
    for quoted in quotes:
        method, images = quoted.quote.method, quoted.teacher_images
        known = {"teacher_images": images} if images else _own_count(method, task.name)
        if known and known.get("teacher_images", 0) >= counts.get(method, {}).get("teacher_images", 0):
            counts[method] = known
    largest = max((each for each in counts.values()), key=lambda each: each.get("teacher_images", 0), default=None)
    if largest is None:
        raise UserError(
            f"no source says how long the methods of {paper!r} ran on {task.name}: write a study of your own"
        )
    runs = [quoted.runs for quoted in quotes if quoted.runs]
    study: Written = {
        "name": f"reproduce-{paper}",
        "description": f"What the numbers of {get_paper(paper).title} need on {task.name}.",
        "tasks": [task.name],
        "methods": [_entry(quoted.quote, task) for quoted in quotes],
        "seeds": list(range(max(runs, default=RUNS))),
        "budget": largest,
        "method_budgets": {method: count for method, count in counts.items() if count != largest},
        "points": POINTS,
    }
    study["methods"] = [each for place, each in enumerate(study["methods"]) if each not in study["methods"][:place]]
    pools = {
        card.pool: quoted.quote.pool
        for quoted in quotes
        if (card := find_methods().get(quoted.quote.method)) and card.pool and quoted.quote.pool in SOURCES
    }
    return study | ({"pools": {task.name: pools}} if pools else {})


def _entry(quote: PublishedScore, task: TaskSpec) -> str | Written:
    """A method as a study names it, with the options that its paper's study and the number itself have."""
    options = {**_paper_study(quote.method, task.name), **quote.options}
    return {quote.method: options} if options else quote.method


def _paper_study(method: str, task: str) -> Mapping[str, Any]:
    file = study_files().get(f"paper/{method}")
    loaded = load_study(file) if file else None
    return dict(loaded.entries).get(method, {}) if loaded and task in loaded.tasks else {}


def _own_count(method: str, task: str) -> Written:
    """The count of a method's own paper on a task; empty where there is none."""
    file = study_files().get(f"paper/{method}")
    loaded = load_study(file) if file else None
    return dict(loaded.budget(task, method).limits()) if loaded and task in loaded.tasks else {}


def _narrowed(studies: Iterable[Written], rows: Sequence[str]) -> list[Written]:
    studies = list(studies)
    all_tasks = dict.fromkeys(_name(item) for study in studies for item in study["tasks"])
    all_methods = dict.fromkeys(_name(item) for study in studies for item in study["methods"])
    for row in rows:
        if row not in all_tasks and row not in all_methods:
            raise UserError(f"no row of it has the task or method {row!r}{nearest(row, [*all_tasks, *all_methods])}")
    kept_tasks = [row for row in rows if row in all_tasks] or list(all_tasks)
    kept_methods = [row for row in rows if row in all_methods] or list(all_methods)
    found = []
    for study in studies:
        narrow = {
            **study,
            "tasks": [item for item in study["tasks"] if _name(item) in kept_tasks],
            "methods": [item for item in study["methods"] if _name(item) in kept_methods],
        }
        for key, kept in (("budgets", kept_tasks), ("pools", kept_tasks), ("method_budgets", kept_methods)):
            narrow[key] = {name: value for name, value in study.get(key, {}).items() if name in kept}
        if narrow["tasks"] and narrow["methods"]:
            found.append({key: value for key, value in narrow.items() if value != {}})
    if not found:
        raise UserError(f"no row has one of {', '.join(kept_tasks)} and one of {', '.join(kept_methods)}")
    return found


def _shortened(study: Written, share: float) -> Written:
    """With a share of every budget. A phase's share of a whole budget gives way: a short one would leave no second."""
    if share == 1:
        return study
    short = dict(study, budget=_part(study["budget"], share))
    for key in ("budgets", "method_budgets"):
        if key in study:
            short[key] = {name: _part(budget, share) for name, budget in study[key].items()}
    methods: list[str | Written] = []
    for item in study["methods"]:
        options = {} if isinstance(item, str) else dict(item[_name(item)])
        options.pop("share", None)
        methods.append({_name(item): options} if options else _name(item))
    return short | {"methods": methods}


def _part(budget: Mapping[str, float], share: float) -> Written:
    Budget.parse(budget)
    return {unit: max(1, round(limit * share)) if unit in WHOLE else limit * share for unit, limit in budget.items()}


def _name(item: str | Mapping[str, Any]) -> str:
    if isinstance(item, str):
        return item
    return str(item["name"]) if "name" in item and "data" in item else str(next(iter(item)))


def written(study: Mapping[str, Any], file: Path) -> Path:
    """Write a study to a file."""
    file.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in study.items()), encoding="utf-8")
    return file
