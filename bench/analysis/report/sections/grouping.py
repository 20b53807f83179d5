"""From a heap of records to the groups that may be compared, and their rows."""

from __future__ import annotations

import gc
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.analysis.report.sections.groups import Group, Row
from bench.records import Comparable, Loaded, Record, comparable, load_records, loaded, open_results, short_text
from bench.spec.published import Published
from bench.spec.task import tasks
from bench.utils.text import cut


def read_groups(
    results: Path, own: Mapping[str, Published] | None = None, ids: Collection[str] | None = None
) -> list[Group]:
    """The groups of all records of a results folder or an archive, or of those of ``ids``.

    Until ``gc.unfreeze()`` the search for cycles leaves them out.

    Raises:
        UserError: a record is damaged.
    """
    with no_cycles():
        groups = group_records(load_records(open_results(results), ids), own)
        gc.freeze()
    return groups


@contextmanager
def no_cycles() -> Iterator[None]:
    """Python's search for cycles is off while millions of objects are made in which there are none.

    It would go through all of them again and again.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def group_records(records: Iterable[Record], own: Mapping[str, Published] | None = None) -> list[Group]:
    """Sort records into groups that may be compared, in a stable order.

    ``own``: published numbers of a user's own tasks, by the task's name; those of the built-in ones are known.
    """
    quoted = {**(own or {}), **{name: task.published for name, task in tasks().items() if task.built_in}}
    records = sorted(records, key=lambda record: record.id)
    given: dict[tuple[Any, ...], set[Loaded]] = defaultdict(set)
    for record in records:
        if record.teacher:
            given[(comparable(record, Loaded()), record.trial.teacher_keys)].add(loaded(record))
    groups: dict[Comparable, list[Record]] = defaultdict(list)
    for record in records:
        # A trial that ended before its teacher was loaded belongs with those of the same recipe.
        recipe = (comparable(record, Loaded()), record.trial.teacher_keys)
        for found in [loaded(record)] if record.teacher else sorted(given.get(recipe, {Loaded()})):
            groups[comparable(record, found)].append(record)
    return [_group(key, group, quoted.get(key.task, Published())) for key, group in sorted(groups.items())]


def _group(key: Comparable, records: list[Record], published: Published) -> Group:
    able = [record for record in records if record.status != "unsupported"] or records
    reasons = sorted({cut(record.reason) for record in records if record.status == "unsupported"})
    left_out = [record for record in records if record.status == "unsupported"] if len(able) < len(records) else []
    teacher = next((record.teacher for record in able if record.teacher), None)
    ensemble = next((record.ensemble for record in able if record.ensemble), None)
    return Group(key, teacher, tuple(_rows(able)), tuple(reasons), published, tuple(_rows(left_out)), ensemble)


def _rows(records: Sequence[Record]) -> list[Row]:
    same: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        same[json.dumps({**vars(record.trial), "seed": None}, sort_keys=True)].append(record)
    settings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for group in same.values():
        settings[group[0].trial.method].append(_settings(group[0]))
    mixed = {"memory format"} if len({record.trial.memory_format for record in records}) > 1 else set()
    differing = {method: _differing(found) | mixed for method, found in settings.items()}
    rows = [
        Row(
            method=group[0].trial.method,
            label=_label(group[0], differing[group[0].trial.method]),
            data=group[0].method.data,
            records=tuple(sorted(group, key=lambda record: record.trial.seed)),
        )
        for group in same.values()
    ]
    return sorted(rows, key=lambda row: (-row.score[0] if row.score else 1.0, row.label))


def _settings(record: Record) -> dict[str, Any]:
    """What may tell two rows of one method apart: the options first of all."""
    return record.trial.options | beside_options(record)


def beside_options(record: Record) -> dict[str, Any]:
    """What may tell two rows of one method apart although their options are the same."""
    trial = record.trial
    return {
        "code": trial.method_sha[:7],
        "identity rule": trial.identity_rule,
        "teacher": "+".join(key[:7] for key in trial.teacher_keys),
        "threads": trial.threads,
        "memory format": trial.memory_format,
        "deterministic": trial.deterministic,
        "altered data": trial.altered_data,
        "pool": trial.pool,
        "selection": "+".join(trial.selection),
    }


def _differing(settings: Sequence[dict[str, Any]]) -> set[str]:
    """The settings that are not the same in all rows of a method."""
    names = {name for each in settings for name in each}
    return {name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)}


def _label(record: Record, differing: set[str]) -> str:
    """The method's name, and those of its settings that are not the same in all its rows."""
    shown = {name: value for name, value in _settings(record).items() if name in differing}
    return f"{record.trial.method} ({short_text(shown)})" if shown else record.trial.method
