"""What a study is about, in its own words: from the ``study.yaml`` that is kept with its records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.report.sections.groups import Group
from bench.errors import UserError
from bench.records import Record, read_beside
from bench.utils.yaml import plain, read_yaml_text

STUDY = "study.yaml"


@dataclass(frozen=True)
class StudyWords:
    """A study's name and question; ``text`` is its file, empty where none was kept or where it cannot be read."""

    name: str = ""
    description: str = ""
    text: str = ""


def read_study(results: Path) -> StudyWords:
    """What the results keep of their study; a file that is no YAML says nothing, and stops no report."""
    text = read_beside(results, STUDY)
    if not text:
        return StudyWords()
    try:
        study = plain(read_yaml_text(text, results / STUDY))
    except UserError:
        return StudyWords()
    if not isinstance(study, dict):
        return StudyWords()
    return StudyWords(_line(study.get("name")), _line(study.get("description")), text)


def study_name(words: StudyWords, groups: Sequence[Group]) -> str:
    """The study's own name, or the names that its records have."""
    names = sorted({record.study for record in records_of(groups) if record.study})
    return words.name or ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def records_of(groups: Iterable[Group]) -> list[Record]:
    """Every record of the groups once, in the order in which they finished."""
    found = {record.id: record for group in groups for row in (*group.rows, *group.left_out) for record in row.records}
    return sorted(found.values(), key=lambda record: (finished(record), record.id))


def finished(record: Record) -> str:
    """When a trial ended, as ISO 8601; empty where it is not known."""
    return str(record.provenance.get("finished") or "")


def commits_of(records: Iterable[Record]) -> list[str]:
    """The commits in the order of the records, shortened; a + where the checkout had changes."""
    found = [
        f"{str(commit)[:9]}{'+' if record.provenance.get('dirty') else ''}"
        for record in records
        if (commit := record.provenance.get("commit"))
    ]
    return list(dict.fromkeys(found))


def _line(value: object) -> str:
    return " ".join(str(value or "").split())
