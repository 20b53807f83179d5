"""Everything known about a trial, in words: what `dfkd show` prints and the trial's page in a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.records import ImageMetric, Record
from bench.records.comparable import AGREEMENTS, SYNTHETIC_AGREEMENT
from bench.records.selection import RULES
from bench.spec.budget import in_words
from bench.spec.options import value_words

Fact = str | tuple[str, str]  # a value, and a remark where there is one


@dataclass(frozen=True)
class RecordSection:
    """Facts of one kind: name, value and, where there is one, a remark."""

    title: str
    rows: tuple[tuple[str, str, str], ...]


def sections(record: Record) -> dict[str, RecordSection]:
    """By a short name: scores, spent, options, method, identity, teacher, images, pool, provenance; no empty ones."""
    found = {
        "scores": _section(f"scores ({record.metric}{_on(record)})", _scores(record)),
        "spent": _section("spent", _spent(record)),
        "options": _section("options", {name: value_words(value) for name, value in record.trial.options.items()}),
        "method": _section("method", _method(record)),
        "identity": _section("identity", _identity(record)),
        "teacher": _section("teacher", _teacher(record)),
        "images": _section("images that the student was trained on", _images(record)),
        "pool": _section("other real images", _pool(record)),
        "provenance": _section("provenance", {name: _flat(value) for name, value in record.provenance.items()}),
    }
    return {name: section for name, section in found.items() if section.rows}


def _section(title: str, facts: Mapping[str, Fact]) -> RecordSection:
    whole = {name: (fact, "") if isinstance(fact, str) else fact for name, fact in facts.items()}
    return RecordSection(title, tuple((name, *fact) for name, fact in whole.items()))


def _plain(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """The names of a record's fields as words; options, metrics and rules are called by their names."""
    return {name.replace("_", " "): fact for name, fact in facts.items()}


def _on(record: Record) -> str:
    if record.metric == SYNTHETIC_AGREEMENT:
        return " with the teacher on made images"
    return " with the teacher on the test images" if record.metric in AGREEMENTS else " on the test images"


def _scores(record: Record) -> dict[str, Fact]:
    """Every rule's score with what the rule is; the headline is marked."""
    if record.status != "ok":
        return {"none": "the trial did not succeed"}
    found: dict[str, Fact] = {}
    for rule, score in record.scores.items():
        mark = ", the headline" if rule == record.headline else ""
        found[rule] = (_percent(score), f"{RULES.get(rule, '')}{mark}")
    if record.agreement is not None and record.metric not in AGREEMENTS:
        found["agreement"] = (_percent(record.agreement), "test images on which this student agrees with the teacher")
    return found | {name: _percent(share) for name, share in record.test_metrics.items()}


def _spent(record: Record) -> dict[str, Fact]:
    times = f"{record.resumed:,} time{'' if record.resumed == 1 else 's'}"
    meter = {name: _number(value) for name, value in record.meter.model_dump().items()}
    return _plain({**meter, "stopped_by": record.stopped_by, "resumed": times})


def _method(record: Record) -> dict[str, Fact]:
    facts = record.method
    return {"title": facts.title, "paper": facts.paper, "real data": facts.data, "teacher access": facts.access}


def _identity(record: Record) -> dict[str, Fact]:
    rest = record.trial.model_dump(exclude={"options", "method", "task", "seed", "budget"})
    rest["identity_rule"] = record.trial.identity_rule  # the first is not written out
    rest["memory_format"] = record.trial.memory_format  # nor is contiguous
    words: dict[str, Fact] = {name: value_words(value) for name, value in rest.items() if value != ""}
    return _plain({"study": record.study, "budget": in_words(record.trial.budget), **words})


def _teacher(record: Record) -> dict[str, Fact]:
    teacher = record.teacher
    if teacher is None:
        return {}
    network = f"{teacher.network}, recipe {teacher.recipe}, seed {value_words(teacher.seed)}"
    score = {} if record.metric in AGREEMENTS else {"test score": f"{_percent(teacher.score)} {record.metric}"}
    found: dict[str, Fact] = {"network": network, **score, "sha256": teacher.sha256}
    if record.ensemble is None:
        return found
    for number, each in enumerate(record.ensemble.teachers[1:], 2):
        words = f"{each.network}, recipe {each.recipe}, seed {value_words(each.seed)}"
        found[f"teacher {number}"] = (f"{words}, {_percent(each.score)}", each.sha256)
    found["together"] = (f"{_percent(record.ensemble.score)} {record.metric}", "the mean of their softmax")
    for number, each in enumerate(record.ensemble.teachers, 1):
        words = f"{each.images:,} images, {each.backward:,} backward, {each.gmacs:,.2f} gmacs"
        found[f"asked of teacher {number}"] = words
    return found


def _images(record: Record) -> dict[str, Fact]:
    metrics = {name: _measured(metric) for name, metric in record.image_metrics.items()}
    images = record.images
    different = {} if images.different is None else {"different": f"{images.different:,}"}
    return {"kept": f"{images.count:,}", **different, "clipped": _percent(images.clipped), **metrics}


def _pool(record: Record) -> dict[str, Fact]:
    pool = record.pool
    if pool is None:
        return {}
    return {
        "name": pool.name,
        "images": f"{pool.images:,}",
        **({"of types that are not read": _counted(pool.skipped)} if pool.skipped else {}),
        "nearly identical to a test image": f"{pool.near_duplicates:,}",
        "sha256": pool.fingerprint,
        **{name: _measured(metric) for name, metric in pool.image_metrics.items()},
    }


def _counted(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {ending}" for ending, count in skipped.items())


def _measured(metric: ImageMetric) -> Fact:
    status = "" if metric.status == "ok" else f"{metric.status}: "
    remark = f"{status}{metric.note}".removesuffix(": ")
    return ("-" if metric.value is None else f"{metric.value:.4f}", remark)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items() if not _empty(item))
    return value_words(value)


def _empty(value: Any) -> bool:
    """Whether there is nothing to say of it; a list of nothing but empty lists is empty, too."""
    return value in (None, "") or (isinstance(value, list) and all(each == [] for each in value))
