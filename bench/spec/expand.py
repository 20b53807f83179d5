"""From a study to its trials: every task with every method, every cell of its options and every seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.data.pool import content_name, locate
from bench.errors import MissingData
from bench.spec.grid import axis_of
from bench.spec.method_card import MethodCard
from bench.spec.metric_names import image_metrics
from bench.spec.options import check_value, value_words
from bench.spec.presets import preset
from bench.spec.study import SUITE, LoadedStudy, find_pool
from bench.spec.task import TaskSpec, get_task
from bench.spec.teacher_key import check_several, teacher_keys
from bench.spec.trial import Trial


def expand(
    loaded: LoadedStudy, device: str = "cpu", altered_data: bool = False, data_folder: Path | None = None
) -> list[Trial]:
    """All trials of a study: by task, then method, then option cell, then seed.

    Entries that give the same trial (such as an option set to its default) make it once.
    """
    study = loaded.study
    trials: dict[str, Trial] = {}
    hashes = {name: loaded.cards[name].sha for name in dict(loaded.entries)}
    for task_name in loaded.tasks:
        task = get_task(task_name)
        keys = study.teacher_keys(task_name) or teacher_keys(
            task, quick=study.teacher == "quick", altered_data=altered_data
        )
        check_several(task, keys)
        task_sha = task.sha
        own_task = None if task.built_in else task.model_dump(mode="json")
        for name, written in loaded.entries:
            card = loaded.cards[name]
            budget = loaded.budget(task_name, name).limits()  # 4e4 steps are 40,000 steps: one trial, one id
            base = {**card.defaults(), **preset(card, task, study.settings)}
            pool, pool_path = _pool(loaded, card, task, data_folder)
            for cell in _grid(card, written):
                options = {**base, **cell}
                label = name + (f" ({_short(cell)})" if cell else "")
                for seed in study.seeds:
                    trial = Trial(
                        suite=SUITE,
                        task=task_name,
                        task_sha=task_sha,
                        teacher=keys[0],
                        teachers=keys if task.teachers else (),
                        method=name,
                        method_sha=hashes[name],
                        options=options,
                        budget=budget,
                        seed=seed,
                        device=device,
                        threads=study.threads,
                        precision=study.precision,
                        memory_format=study.memory_format,
                        deterministic=study.deterministic,
                        altered_data=altered_data,
                        points=study.points,
                        selection=study.selection,
                        pool=pool,
                        pool_path=pool_path,
                        study=study.name,
                        label=label,
                        image_metrics=image_metrics(study.image_metrics),
                        real_images=study.real_images,
                        timeout=study.timeout,
                        method_files=loaded.method_files,
                        own_task=own_task,
                        settings=study.settings,
                        average=study.average,
                        stated=(tuple(sorted(cell)),),
                    )
                    known = trials.setdefault(trial.id, trial)
                    if trial.stated[0] not in known.stated:
                        trials[trial.id] = replace(known, stated=(*known.stated, *trial.stated))
    return list(trials.values())


def _pool(loaded: LoadedStudy, card: MethodCard, task: TaskSpec, data_folder: Path | None) -> tuple[str, Path | None]:
    """The pool of a method on a task as the trial's identity has it, and where it is unless it is a data set."""
    named = {**task.pools, **loaded.study.pools.get(task.name, {})}
    pool = next((each for role, each in named.items() if role == card.pool), "")
    if not pool:
        return "", None
    path = find_pool(pool, loaded.folder)
    try:
        path = locate(pool, data_folder) if path is None else path
        return (pool, None) if path is None else (content_name(path), path)
    except MissingData:  # the trial's record will say so
        return pool, None


def _grid(card: MethodCard, written: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    specs = {spec.name: spec for spec in card.specs}
    axes = []
    for name, value in written.items():
        values = axis_of(specs[name].is_sequence, value)
        axes.append([(name, check_value(specs[name], item)) for item in (values if values is not None else [value])])
    for cell in itertools.product(*axes):
        yield dict(cell)


def _short(cell: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value_words(value)}" for name, value in cell.items())
