"""The records of one side sorted into cells: trials that differ in nothing but seed and code."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.regression.effects import Effect, smallest_effect
from bench.records import Record, short_text, trial_id

CODE = {
    "method_sha": None,
    "identity_rule": None,
    "seed": None,
}  # of a trial's identity, what two commits may differ in


@dataclass(frozen=True)
class Cell:
    """One method with one set of options on one task, under one budget and one teacher."""

    key: str
    identity: Mapping[str, Any]  # of its trials, without seed and code
    records: Mapping[int, Record]  # by seed

    @property
    def task(self) -> str:
        return str(self.identity["task"])

    @property
    def method(self) -> str:
        return str(self.identity["method"])

    @property
    def ok(self) -> dict[int, Record]:
        return {seed: record for seed, record in self.records.items() if record.status == "ok"}


def cells_of(records: Iterable[Record]) -> dict[str, Cell]:
    """Sort records into cells by key. Of two records of one seed, with different code, the later one counts."""
    found: dict[str, dict[int, Record]] = defaultdict(dict)
    identities = {}
    for record in sorted(records, key=lambda record: (str(record.provenance.get("finished", "")), record.id)):
        identity = {**record.trial.model_dump(mode="json"), "headline": record.headline, **CODE}
        key = trial_id(identity)
        identities[key] = {name: value for name, value in identity.items() if name not in CODE}
        found[key][record.trial.seed] = record
    return {key: Cell(key, identities[key], dict(sorted(records.items()))) for key, records in found.items()}


def labels_of(cells: Iterable[Cell]) -> dict[str, str]:
    """By key, a method's name and what tells its cells on one task apart."""
    groups: dict[tuple[str, str], dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        groups[cell.task, cell.method][cell.key] = cell
    labels = {}
    for (_, method), group in groups.items():
        flat = {key: _flat(cell.identity) for key, cell in group.items()}
        names = sorted(set().union(*flat.values()))
        apart = [name for name in names if len({_text(values.get(name)) for values in flat.values()}) > 1]
        for key, values in flat.items():
            own = {name: values[name] for name in apart if name in values}
            labels[key] = f"{method} ({short_text(own)})" if own else method
    return labels


def differences(first: Cell, second: Cell) -> str:
    """In which parts of their identity two cells differ, in words."""
    a, b = _flat(first.identity), _flat(second.identity)
    names = [name for name in sorted({*a, *b}) if _text(a.get(name)) != _text(b.get(name))]
    return ", ".join(f"{name} {_said(a.get(name))} -> {_said(b.get(name))}" for name in names)


def numbers_of(record: Record, own: Mapping[str, Effect] | None = None) -> dict[str, float]:
    """What a trial that ended well was measured to be, by the metric's name: what has a smallest effect that matters,
    be it one of the user's ``own``. The headline score bears the name of its metric."""
    values: dict[str, float | None] = {record.metric: record.scores[record.headline], "agreement": record.agreement}
    values |= record.test_metrics
    values |= {name: metric.value for name, metric in record.image_metrics.items() if metric.status == "ok"}
    values |= record.meter.model_dump()
    return {name: float(value) for name, value in values.items() if value is not None and smallest_effect(name, own)}


def conditions_of(record: Record, name: str) -> str:
    """What an image metric was measured with, in words; numbers with different ones are not comparable."""
    metric = record.image_metrics.get(name)
    if metric is None:
        return ""
    against = f" against {metric.real_images} real ones" if metric.real_images is not None else ""
    through = f" through {metric.extractor[:9]}" if metric.extractor else ""
    return f"{metric.images} images{against}{through}"


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in identity.items():
        flat |= value if name == "options" else {name: value}
    return flat


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return short_text(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "+".join(map(str, value))
    return "none" if value is None else str(value)
