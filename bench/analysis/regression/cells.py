"""The records of one side sorted into cells: trials of which a study says the same in all but the seed.

Two commits are compared by what the study states. An option that it leaves out has each commit's own default: a changed
default changes the number and not the cell, and an added option changes neither.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.regression.effects import Effect, smallest_effect
from bench.analysis.regression.stated import statements_of
from bench.errors import UserError
from bench.records import Record, short_text, trial_id

CODE = {
    "method_sha": None,
    "identity_rule": None,
    "memory_format": None,
    "seed": None,
}  # of a trial's identity, what two commits may differ in
_UNSAID = ("settings", None)
Renamed = Mapping[str, str]  # METHOD or METHOD.OPTION of older records -> its name in later ones


@dataclass(frozen=True)
class Cell:
    """One method with one statement of options on one task, under one budget and one teacher.

    ``identity`` is what the study states of its trials, without seed and code; ``options`` are all options, defaults
    included; ``known`` says whether it is known what was stated: if not, all options are taken to be.
    """

    key: str
    identity: Mapping[str, Any]
    options: Mapping[str, Any]
    known: bool
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

    @property
    def resolved(self) -> str:
        """A key that cells share whose trials are the same in all but seed and code, however they were stated."""
        return trial_id({**self.identity, "options": self.options, "settings": None})


@dataclass(frozen=True)
class OpenQuestion:
    """Two cells that may be one under another name: for the reader to answer."""

    task: str
    text: str
    answer: str  # the option that says yes


def cells_of(records: Iterable[Record], renamed: Renamed | None = None) -> dict[str, Cell]:
    """Sort records into cells by key.

    Of two records of one seed, with different code, the later one counts; of several sets of options under one
    statement, that of the latest record. A trial that several entries of a study give is in a cell of each.

    Args:
        records: of one side.
        renamed: older names of methods and options, and their names now.
    """
    found: dict[str, dict[int, Record]] = defaultdict(dict)
    facts: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {}
    for record in sorted(records, key=lambda record: (str(record.provenance.get("finished", "")), record.id)):
        identity = {**record.trial.model_dump(mode="json"), "headline": record.headline}
        identity = {name: value for name, value in identity.items() if name not in CODE}
        options = _now(identity["method"], identity["options"], renamed or {})
        identity["method"] = (renamed or {}).get(identity["method"], identity["method"])
        known = statements_of(record)
        settings, entries = known or (None, (tuple(identity["options"]),))
        for entry in entries:
            stated = _now(record.trial.method, {name: identity["options"][name] for name in entry}, renamed or {})
            whole = {**identity, "options": stated, "settings": settings}
            key = trial_id(whole)
            if key in facts and facts[key][1] != options:
                found[key] = {}
            facts[key] = (whole, options, known is not None)
            found[key][record.trial.seed] = record
    return {key: Cell(key, *facts[key], dict(sorted(records.items()))) for key, records in found.items()}


def align(sides: Sequence[Mapping[str, Cell]]) -> list[dict[str, Cell]]:
    """The cells of several sides, oldest first, under keys that a series has on all of them.

    Cells belong together if the study states the same of them. Where it does not (it was rewritten, or older records
    do not say what it stated), they do if all their options are the same.
    """
    names: dict[str, str] = {}  # a cell's key -> the key of its series
    latest: dict[str, str] = {}  # all options -> the key of the series that had them last
    found = []
    for cells in sides:
        here: dict[str, Cell] = {}
        # First those that began a series, then those that were found to belong to one, then new ones.
        for key in sorted(cells, key=lambda key: (key not in names, names.get(key) != key)):
            twin = latest.get(cells[key].resolved)
            if key not in names and twin is not None and twin not in here:
                names[key] = twin
            series = names.setdefault(key, key)
            if series in here:  # it was taken for a part of another series, which is here as well
                series = names[key] = key
            here[series] = cells[key]
        latest.update({cell.resolved: series for series, cell in here.items()})
        found.append(here)
    return found


def labels_of(cells: Mapping[str, Cell]) -> dict[str, str]:
    """By key, a method's name and what tells its cells on one task apart."""
    groups: dict[tuple[str, str], dict[str, Cell]] = defaultdict(dict)
    for key, cell in cells.items():
        groups[cell.task, cell.method][key] = cell
    labels = {}
    for (_, method), group in groups.items():
        flat = {key: _flat(cell.identity) for key, cell in group.items()}
        names = sorted(set().union(*flat.values()))
        apart = [name for name in names if len({_text(values.get(name)) for values in flat.values()}) > 1]
        for key, values in flat.items():
            own = {name: values[name] for name in apart if name in values and (name, values[name]) != _UNSAID}
            labels[key] = f"{method} ({short_text(own)})" if own else method
    return labels


def differences(first: Cell, second: Cell) -> str:
    """In which parts of what is stated of them two cells differ, in words."""
    a, b = _flat(first.identity), _flat(second.identity)
    names = [name for name in sorted({*a, *b}) if _text(a.get(name, "absent")) != _text(b.get(name, "absent"))]
    if not (first.known and second.known):
        a, b = {**a, **first.options}, {**b, **second.options}
        names = [name for name in sorted({*a, *b} - {"settings"}) if _text(a.get(name)) != _text(b.get(name))]
    words = ", ".join(f"{name} {_said(a.get(name))} -> {_said(b.get(name))}" for name in names)
    return words + ("" if first.known and second.known else " (the records do not tell which options were stated)")


def changed_options(first: Cell, second: Cell) -> str:
    """In which options, and memory formats, two cells differ that the study states alike, in words; empty where they do
    not.

    As in ``lr_student 0.005 -> 0.0005 by default, smoothing added (0.1)``.
    """
    a, b = first.options, second.options
    formats = [next(iter(cell.records.values())).trial.memory_format for cell in (first, second)]
    changed = [f"memory format {formats[0]} -> {formats[1]}"] if formats[0] != formats[1] else []
    changed += [
        f"{name} {_said(a[name])} -> {_said(b[name])} by default"
        for name in a
        if name in b and _text(a[name]) != _text(b[name])
    ]
    added = [f"{name} added ({_said(b[name])})" for name in b if name not in a]
    removed = [f"{name} removed ({_said(a[name])})" for name in a if name not in b]
    return ", ".join([*changed, *added, *removed])


def questions_of(before: Mapping[str, Cell], after: Mapping[str, Cell]) -> list[OpenQuestion]:
    """Which of the cells that only the later side has may be renamed ones of those that only the earlier side has.

    Args:
        before, after: both sides, aligned.
    """
    found = []
    methods = [{(cell.task, cell.method) for cell in side.values()} for side in (before, after)]
    for cell in (cell for key, cell in before.items() if key not in after):
        for other in (other for key, other in after.items() if key not in before):
            if _conditions(cell) != _conditions(other):
                continue
            if cell.method == other.method:
                pair = _renamed_option(cell, other)
                if pair:
                    old, now = pair
                    text = f"is the option {now} of {cell.method} the former {old} (both {_said(cell.options[old])})?"
                    found.append(OpenQuestion(cell.task, text, f"--renamed {cell.method}.{old}={now}"))
            elif methods[0] & methods[1] & {(cell.task, cell.method), (other.task, other.method)}:
                continue  # one of the two is on both sides, under its own name
            elif _alike(cell, other):
                text = f"is the method {other.method} the former {cell.method}?"
                found.append(OpenQuestion(cell.task, text, f"--renamed {cell.method}={other.method}"))
    return list(dict.fromkeys(found))


def own_names(written: Iterable[str]) -> dict[str, str]:
    """What a user wrote: ``kd=plain_kd``, or ``kd.lr=lr_student`` for an option.

    Raises:
        UserError: it is not of that form.
    """
    found = {}
    for text in written:
        old, sign, new = (part.strip() for part in text.partition("="))
        if not (old and sign and new) or "." in new:
            raise UserError(
                f"{text!r}: write OLD=NEW for a method, such as kd=plain_kd, or METHOD.OLD=NEW for an option"
            )
        found[old] = new
    return found


def numbers_of(record: Record, own: Mapping[str, Effect] | None = None, rule: str | None = None) -> dict[str, float]:
    """What a trial that ended well was measured to be, by the metric's name: what has a smallest effect that matters,
    be it one of the user's ``own``. The score bears the name of its metric; it is the headline's, or of another
    selection ``rule``."""
    values: dict[str, float | None] = {record.metric: record.scores.get(rule or record.headline)}
    values |= {"agreement": record.agreement}
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


def _now(method: str, options: Mapping[str, Any], renamed: Renamed) -> dict[str, Any]:
    return {renamed.get(f"{method}.{name}", name): value for name, value in options.items()}


def _conditions(cell: Cell) -> dict[str, Any]:
    """Everything that is stated, except method and options."""
    return {name: value for name, value in cell.identity.items() if name not in ("method", "options", "settings")}


def _renamed_option(first: Cell, second: Cell) -> tuple[str, str] | None:
    a, b = first.identity["options"], second.identity["options"]
    old, new = [name for name in a if name not in b], [name for name in b if name not in a]
    same = all(_text(a[name]) == _text(b[name]) for name in a if name in b)
    if len(old) == len(new) == 1 and same and _text(a[old[0]]) == _text(b[new[0]]):
        return old[0], new[0]
    return None


def _alike(first: Cell, second: Cell) -> bool:
    """Whether two methods may be one: the same options are stated, and nearly the same exist."""
    a, b = set(first.options), set(second.options)
    alike = len(a & b) >= 0.8 * len(a | b)
    facts = [next(iter(cell.records.values())).method for cell in (first, second)]
    same_words = facts[0] == facts[1]
    return _text(first.identity["options"]) == _text(second.identity["options"]) and (alike or same_words)


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
