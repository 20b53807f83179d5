"""A submission: a study that has run to its end, as one archive that others can verify.

It holds the records, curves and hashes of the students, the study, its own tasks, the code of methods that are not
built in, and who submits it. :func:`code_of` takes that code out again for ``dfkd verify``, which runs it confined.
"""

from __future__ import annotations

import ast
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from bench._version import __version__
from bench.errors import UserError
from bench.execution.plan import Plan
from bench.models.source import own_file
from bench.records import load_records, read_students
from bench.records.archive import BESIDE_NAMES, files_beside, write_archive
from bench.records.foreign import brief, parse
from bench.records.schema import Record
from bench.records.sheets import Sheets
from bench.spec.method_card import MethodCard
from bench.spec.study import LoadedStudy
from bench.spec.task import get_task
from bench.utils.code_identity import RULE
from bench.utils.text import shown
from bench.utils.user_code import BUILT_IN, own_files
from bench.utils.yaml import Strict, sentence

FILE = "submission.json"
SHOWN = 5  # reasons of one kind that are told in full
LARGEST = 2**20  # bytes of code


class Submission(Strict):
    """What a submission says of itself."""

    by: str = Field(min_length=1, max_length=200)
    link: str = Field(default="", max_length=500)
    note: str = Field(default="", max_length=2000)
    suite: str
    made: str  # the day, as 2026-11-29
    methods: tuple[str, ...] = ()  # the files that declare methods, below methods/


@dataclass(frozen=True)
class Submitted:
    """What was packed: the numbers of trials, of those that succeeded, and the names of methods with their code."""

    trials: int
    ok: int
    methods: tuple[str, ...]
    notes: tuple[str, ...]  # what a verifier will ask


def submit(
    loaded: LoadedStudy,
    plan: Plan,
    target: Path,
    *,
    by: str,
    link: str = "",
    note: str = "",
    sheets: Sheets = "best",
) -> Submitted:
    """Write the submission of a finished study, whole or not at all.

    Args:
        loaded: the study.
        plan: its plan, with the results folder.
        target: the archive to write; it must not exist and end in ``.parquet``.
        by: who submits it.
        link: where the paper or the code is.
        note: what a reader should know.
        sheets: which contact sheets it holds.

    Raises:
        UserError: the study has not run to its end, a record cannot be verified (its method has other code by now, its
            student is gone), or ``by``, ``link`` and ``note`` are not what they should be. All reasons are told.
    """
    if link and not re.match(r"https?://\S+$", link):
        raise UserError(f"--link must be an address that begins with https://, got {brief(link)}")
    ids = {trial.id for trial in plan.trials}
    there = plan.results.is_dir()
    records = [record for record in load_records(plan.results) if record.id in ids] if there else []
    students = read_students(plan.results) if there else {}
    reasons = [*_unfinished(plan, records), *_unverifiable(loaded, records, students)]
    if reasons:
        listed = "\n".join(f"- {each}" for each in reasons)
        raise UserError(f"this cannot be submitted yet; nothing was written\n{listed}")
    used = {record.trial.method for record in records}
    own = sorted({card.file for card in loaded.cards.values() if card.name in used and _is_own(card)})
    code: dict[str, str] = {}
    entries = []
    for number, file in enumerate(own, 1):
        found = _code(file, f"methods/{_plain(file.stem)}" + (f"_{number}" if len(own) > 1 else ""))
        entries.append(next(iter(found)).removeprefix("methods/"))
        code |= found
    try:
        said = Submission(
            by=by.strip(),
            link=link,
            note=note.strip(),
            suite=__version__,
            made=datetime.datetime.now(datetime.UTC).date().isoformat(),
            methods=tuple(entries),
        )
    except ValidationError as error:
        (wrong, *_) = error.errors()
        raise UserError(f"--{wrong['loc'][0]} {sentence(wrong, quote=False)}") from None
    if sum(map(len, code.values())) > LARGEST:
        most = f"{LARGEST // 2**20} MiB"
        raise UserError(f"the code of the methods has more than {most}; weights and images do not belong in it")
    more = {FILE: json.dumps(said.model_dump(mode="json"), indent=1) + "\n", **code}
    count = write_archive(plan.results, target, sheets, [record.id for record in records], more)
    names = tuple(sorted(name for name in used if loaded.cards[name].file in own))
    ok = [record for record in records if record.status == "ok"]
    return Submitted(count, len(ok), names, tuple(_notes(ok)))


def _is_own(card: MethodCard) -> bool:
    return not card.file.is_relative_to(BUILT_IN)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", name)[:50] or "method"


def _code(file: Path, folder: str) -> dict[str, str]:
    """A method's file and the modules that it imports, by the names that they get; its own file comes first."""
    files = {path: content for path, content in own_files(file).items() if not path.is_relative_to(BUILT_IN)}
    top = file.resolve().parent
    while (top / "__init__.py").exists():
        top = top.parent
    found = {}
    for path, content in files.items():
        if not path.is_relative_to(top):
            raise UserError(f"{file} imports {path}, which lies outside of its folder {top}: move it there")
        name = f"{folder}/{path.relative_to(top).as_posix()}"
        if not BESIDE_NAMES.fullmatch(name):
            raise UserError(f"{path}: name the file with letters, digits, - and _ to submit it")
        found[name] = content.decode("utf-8")
    return found


def _unfinished(plan: Plan, records: Sequence[Record]) -> list[str]:
    done = {record.id for record in records}
    missing = [trial for trial in plan.trials if trial.id not in done]
    if not missing:
        return []
    some = ", ".join(f"{trial.label} seed {trial.seed} on {trial.task}" for trial in missing[:SHOWN])
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return [
        f"{len(missing)} of {len(plan.trials)} trials of the study have no record in {plan.results} ({some}{more}); "
        "`dfkd run` runs what is missing"
    ]


def _unverifiable(loaded: LoadedStudy, records: Sequence[Record], students: Mapping[str, str]) -> list[str]:
    reasons = []
    names = sorted({record.trial.method for record in records if _other_code(record, loaded.cards)})
    for name in names:
        reasons.append(f"the code of {name} has changed since its trials ran; run them again, or go back to that code")
    lost = [record.id for record in records if record.status == "ok" and record.id not in students]
    if lost:
        others = f" and of {len(lost) - 1} more" if len(lost) > 1 else ""
        reasons.append(f"the student of trial {lost[0]}{others} is gone: nothing to compare with; run it again")
    for name in sorted({record.trial.task for record in records}):
        task = get_task(name)
        networks = [each for each in dict.fromkeys(task.networks) if own_file(each) is not None]
        reasons += [
            f"the task {name} has a network of its own, {each}: whoever verifies would run that code with all rights. "
            "Bring it into the suite (bench/models) first"
            for each in networks
        ]
    if records and not any(record.status == "ok" for record in records):
        reasons.append("no trial succeeded")
    return reasons


def _other_code(record: Record, cards: Mapping[str, MethodCard]) -> bool:
    rule = record.trial.model_dump().get("identity_rule", 1)
    card = cards.get(record.trial.method)
    return card is None or rule != RULE or card.sha != record.trial.method_sha


def _notes(records: Sequence[Record]) -> list[str]:
    notes = []
    if any("seconds" in record.trial.budget for record in records):
        notes.append("a budget in seconds is not the same twice: verification compares within a tolerance")
    if any(record.trial.device != "cpu" for record in records):
        notes.append("trials that ran on a GPU are not verified: methods are not isolated there")
    if pools := sorted({record.trial.pool for record in records if "@" in record.trial.pool}):
        notes.append(f"whoever verifies needs the pool {', '.join(pools)}; say in --note where to get it")
    if any(record.provenance.get("dirty") for record in records):
        notes.append("the checkout had changes when it ran; its records say so")
    return notes


def submission_of(results: Path) -> Submission | None:
    """What a results folder or archive says of itself as a submission; None where it is none.

    Raises:
        UserError: it is damaged.
    """
    text = files_beside(results).get(FILE)
    if text is None:
        return None
    where = f"{FILE} of {results}"
    try:
        return Submission.model_validate(parse(text, where))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{where}: {brief(place)} is missing or wrong") from None


def code_of(results: Path, folder: Path) -> list[Path]:
    """Write the code of a submission's methods below a folder; return the files that declare methods.

    Nothing of it is run or imported. Without a submission nothing is written.

    Raises:
        UserError: it names a file that it does not hold, or one that is no Python.
    """
    said = submission_of(results)
    if said is None:
        return []
    held = {name: text for name, text in files_beside(results).items() if name.startswith("methods/")}
    if sum(map(len, held.values())) > LARGEST:
        raise UserError(f"{shown(str(results))}: the code of its methods has more than {LARGEST // 2**20} MiB")
    for name, text in held.items():
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UserError(f"{shown(str(results))}: {name} is no Python: {shown(str(error))}") from None
        place = folder / name.removeprefix("methods/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    for name in said.methods:
        if f"methods/{name}" not in held:
            raise UserError(f"{FILE} of {results}: there is no file methods/{brief(name)}")
    return [folder / name for name in said.methods]
