"""What a study stated of a trial's options, as far as it is known; the rest were defaults of the code.

Records say so themselves (``provenance.stated``). For records from before they did, it is read from the copy of the
study that lies beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.records import Record
from bench.spec.rerun import study_of
from bench.utils.yaml import plain, read_yaml_text

KEY = "stated"  # in a record's provenance


def statements_of(record: Record) -> tuple[str, tuple[tuple[str, ...], ...]] | None:
    """The study's settings, and the options that each of its entries for this trial names; None: it is not known."""
    facts = record.provenance.get(KEY)
    if not isinstance(facts, Mapping) or not facts.get("options"):
        return None
    there = record.trial.options
    entries = tuple(tuple(name for name in entry if name in there) for entry in facts["options"])
    return str(facts.get("settings", "paper")), entries


def with_statements(records: Iterable[Record], study: str | None, place: Path) -> list[Record]:
    """The same records; those that do not say what their study stated get it from the study.

    Args:
        records: of one results folder.
        study: the YAML that lies beside them; None where there is none.
        place: where that is, for error messages.
    """
    found = list(records)
    if study is None or all(statements_of(record) for record in found):
        return found
    try:
        text = plain(read_yaml_text(study, place))
    except UserError:  # the records do not depend on it
        return found
    if not isinstance(text, Mapping) or not isinstance(text.get("methods"), Sequence):
        return found
    entries = [_entry(item) for item in text["methods"]]
    return [
        record if statements_of(record) or record.study != text.get("name") else _derived(record, text, entries)
        for record in found
    ]


def as_stated(record: Record) -> dict[str, Any]:
    """The study of one trial that states what its own study did: the other options have each commit's own defaults.

    Where that is not known, every option is written out.

    Raises:
        UserError: its task is not known here.
    """
    study, known = study_of(record), statements_of(record)
    if known is not None:
        settings, entries = known
        stated = {name: record.trial.options[name] for name in entries[0]}
        study |= {"methods": [{record.trial.method: stated}], "settings": settings}
    return study


def _derived(record: Record, study: Mapping[str, Any], entries: Sequence[tuple[str, Mapping[str, Any]]]) -> Record:
    """A method's file may declare any method; an entry names it only where no other entry does."""
    named = [options for name, options in entries if name == record.trial.method]
    named = named or [options for name, options in entries if name.endswith(".py")]
    fitting = [sorted(options) for options in named if _fits(options, record.trial.options)]
    if not fitting:
        return record
    facts = {"settings": study.get("settings", "paper"), "options": [list(each) for each in fitting]}
    return record.model_copy(update={"provenance": {**record.provenance, KEY: facts}})


def _fits(written: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    return all(name in options and _may_be(value, options[name]) for name, value in written.items())


def _may_be(written: Any, value: Any) -> bool:
    """Whether a value may come from what a study says: the value, one of a list, or one of a range."""
    if isinstance(written, Mapping):
        return True
    if isinstance(written, list) and isinstance(value, list):
        return written == value or value in written
    if isinstance(written, list):
        return any(_may_be(each, value) for each in written)
    return bool(written == value) or value == [written]


def _entry(item: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, options),) = item.items()
        return str(name), options if isinstance(options, Mapping) else {}
    return str(item), {}
