"""Running trials of a results folder again, each isolated, and comparing what comes out with what was recorded."""

from __future__ import annotations

import datetime
import hashlib
import math
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench._version import __version__
from bench.data.pool import content_name
from bench.errors import UserError
from bench.execution.executors import Work, require_executor
from bench.execution.isolation import isolated
from bench.execution.plan import finished_of
from bench.execution.run_study import (
    CHECKPOINT_SECONDS,
    Audience,
    Silence,
    locked,
    refusals,
    run_trials,
)
from bench.execution.submit import code_of
from bench.records import Record, is_archive, load_records, loaded, open_results, read_curves, read_students
from bench.records.archive import replace_in_archive
from bench.records.folder import replace_record
from bench.records.verified import KEY, Outcome
from bench.spec.custom_tasks import register_saved_tasks
from bench.spec.method_registry import find_methods
from bench.spec.study import SUITE
from bench.spec.task import get_task, tasks
from bench.spec.teacher_key import teacher_keys
from bench.spec.trial import OUTSIDE, Trial
from bench.utils.code_identity import RULE
from bench.utils.hardware import usable_cores
from bench.utils.paths import PACKAGE
from bench.utils.provenance import provenance, versions

TOLERANCE = 0.02  # of a score between 0 and 1, where another machine or other versions give other bits
_TIMES = ("seconds", "evaluation_seconds", "peak_memory_mib")  # of the meter: a machine's, and different each time
_SAME = ("suite", "platform", "device", "threads", "deterministic")  # of the provenance: the same bits need the same


@dataclass(frozen=True)
class Verification:
    """What running one trial again showed.

    ``details`` is one sentence: what differs, by how much, or why nothing was compared. ``bits`` says why the same
    bits could not be expected; empty where they could.
    """

    record: Record
    outcome: Outcome
    details: str = ""
    bits: str = ""


def choose(records: Iterable[Record], sample: int | None, seed: int, ids: Sequence[str] = ()) -> list[Record]:
    """The successful trials to run again: those named, or a random sample, or all where ``sample`` is None."""
    there = sorted((record for record in records if record.status == "ok"), key=lambda record: record.id)
    if ids:
        return [record for record in there if record.id in ids]
    if sample is None or sample >= len(there):
        return there
    return sorted(random.Random(seed).sample(there, sample), key=lambda record: record.id)


def verify(
    results: Path,
    chosen: Sequence[Record],
    again: Path,
    *,
    total: int,
    method_files: Sequence[Path] = (),
    pool: Path | None = None,
    tolerance: float = TOLERANCE,
    executor: str = "processes",
    workers: int | None = None,
    data_folder: Path | None = None,
    weights: Path | None = None,
    audience: Audience | None = None,
) -> list[Verification]:
    """Run trials again, each isolated, and write into their records what that showed.

    Args:
        results: the results folder or archive that the records are of.
        chosen: the records, see :func:`choose`.
        total: how many successful trials the folder has; kept beside how many were chosen.
        again: where the trials run. What an interrupted verification by the same code left in it is not run again; it
            is removed at the end.
        method_files: the files of methods that are not built in; a submission brings its own.
        pool: the folder of a pool that is no data set.
        tolerance: how far a score may lie from the recorded one where the same bits cannot be expected.
        executor, workers, data_folder, weights, audience: as in :func:`bench.execution.run_study.run_study`.

    Raises:
        UserError: this machine cannot isolate a method, or the folder cannot be used.
    """
    require_executor(executor)
    isolated("process", "cpu")
    register_saved_tasks(results)
    open_results(again, create=True)
    files = [*method_files, *code_of(results, again / "code")]
    trials: dict[str, Trial] = {}
    reasons: dict[str, str] = {}
    for record in chosen:
        try:
            trials[record.id] = _trial_of(record, files, pool)
        except UserError as error:
            reasons[record.id] = str(error)
    refused = refusals(list(trials.values()), data_folder)
    count = 1 if executor == "inline" else workers or max(1, usable_cores())
    with locked(again):
        _only_of_this_code(again)
        waiting = [trial for trial in trials.values() if trial.id not in finished_of(again, [trial])]
        work = Work(again, data_folder, CHECKPOINT_SECONDS, count, None, weights, "process")
        run_trials(waiting, refused, work, executor, audience or Silence())
    found = _compared(results, chosen, again, reasons, tolerance)
    _write(results, found, again, tolerance, total)
    shutil.rmtree(again)
    return found


def _only_of_this_code(again: Path) -> None:
    """Remove what an interrupted verification left behind, unless this very code made it.

    The code of methods is in their trials' ids; the suite's own is not.
    """
    stamp, code = again / "code.txt", _suite_code()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == code:
        return
    for left in ("trials", "work"):
        shutil.rmtree(again / left, ignore_errors=True)
    open_results(again, create=True)
    stamp.write_text(code, encoding="utf-8")


def _suite_code() -> str:
    """The hash of every line of the suite's code, and of the versions below it."""
    digest = hashlib.sha256(repr(sorted(versions().items())).encode())
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(PACKAGE)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _trial_of(record: Record, method_files: Sequence[Path], pool: Path | None) -> Trial:
    """The trial of a record, as this machine would run it.

    Raises:
        UserError: it would be another trial; the text says what is different.
    """
    identity = record.trial.model_dump(mode="json")
    name = record.trial.task
    if record.trial.device != "cpu":
        raise UserError("it ran on a GPU, where methods are not isolated")
    if record.trial.suite != SUITE:
        raise UserError(f"it was made under the rules of suite {record.trial.suite}, and these are those of {SUITE}")
    if name not in tasks():
        raise UserError(f"its task {name} is not known here; name its file with --tasks")
    task = get_task(name)
    if task.sha != record.trial.task_sha:
        raise UserError(f"the task {name} is defined differently here")
    if teacher_keys(task) != record.trial.teacher_keys:
        raise UserError(f"the teacher of {name} has another recipe here")
    cards = find_methods(method_files)
    if record.trial.method not in cards:
        raise UserError(f"the method {record.trial.method} is not known here; name its file with --method")
    card = cards[record.trial.method]
    if identity.get("identity_rule", 1) != RULE or card.sha != record.trial.method_sha:
        commit = record.provenance.get("commit")
        where = f"; its record was made at commit {str(commit)[:12]}" if commit else ""
        raise UserError(f"the method {card.name} has other code here{where}")
    fixed = {
        **identity,
        "image_metrics": [name for name, metric in record.image_metrics.items() if metric.status == "ok"],
        "real_images": max((each.real_images or 0 for each in record.image_metrics.values()), default=0) or None,
        "method_files": [str(file) for file in method_files],
        "pool_path": None if record.pool is None else _pool_path(record, pool),
        "own_task": None if task.built_in else task.model_dump(mode="json"),
        "study": record.study,
        "settings": "",
        "average": "end",
        "stated": [],
        "label": record.trial.method,
        "timeout": None,
    }
    missing = set(OUTSIDE) - fixed.keys()
    assert not missing, missing
    trial = Trial.from_json(fixed)
    if trial.id != record.id:
        raise UserError("its id is not that of its trial here")
    return trial


def _pool_path(record: Record, pool: Path | None) -> str | None:
    name = record.trial.pool
    if "@" not in name:
        return None  # a data set
    if pool is None:
        raise UserError(f"its pool is the folder {name}; say where it is with --pool")
    if (here := content_name(pool)) != name:
        raise UserError(f"its pool is {name}, and {pool} is {here}")
    return str(pool.absolute())


def _compared(
    results: Path, chosen: Sequence[Record], again: Path, reasons: Mapping[str, str], tolerance: float
) -> list[Verification]:
    ids = [record.id for record in chosen]
    curves, new_curves = read_curves(results, ids), read_curves(again, [name for name in ids if name not in reasons])
    students, new_students = read_students(results), read_students(again)
    records = {record.id: record for record in load_records(again)}
    found = []
    for record in chosen:
        if record.id in reasons:
            found.append(Verification(record, "not compared", reasons[record.id]))
            continue
        before = Facts(record, curves.get(record.id, []), students.get(record.id, ""))
        now = Facts(records[record.id], new_curves.get(record.id, []), new_students.get(record.id, ""))
        found.append(compare(before, now, tolerance))
    return found


@dataclass(frozen=True)
class Facts:
    """What a trial left: its record, its curve, the hash of its student's weights (empty: not known)."""

    record: Record
    curve: Sequence[Mapping[str, Any]]
    student: str


def compare(before: Facts, now: Facts, tolerance: float = TOLERANCE) -> Verification:
    """Whether a trial that ran again is what its record says.

    Bit for bit where processor, versions and threads allow that, else within ``tolerance`` of each score.
    """
    old, new = before.record, now.record
    if new.status in ("missing_data", "unsupported"):
        return Verification(old, "not compared", new.reason)
    if new.status != "ok":
        return Verification(old, "differs", f"here it ends as {new.status.replace('_', ' ')}: {new.reason}")
    if old.teacher is None or new.teacher is None or loaded(old).teacher != loaded(new).teacher:
        return Verification(
            old,
            "not compared",
            "this machine's teacher has other weights; import the one that the trial had (`dfkd teacher import`)",
        )
    why = other_bits(old, new)
    if not why:
        different = _differences(before, now)
        other_sample = "but for its images: the two versions of the suite keep other images of a trial"
        apart = other_sample if _samples_differ(old, new) else ""
        return Verification(old, "differs" if different else "same bits", _in_words(different) or apart)
    far = [
        f"{rule} {100 * old.scores[rule]:.2f} -> {100 * new.scores[rule]:.2f} %"
        for rule in old.scores
        if rule in new.scores and abs(old.scores[rule] - new.scores[rule]) > tolerance
    ]
    far += [f"{rule} has no score here" for rule in old.scores if rule not in new.scores]
    if far:
        return Verification(old, "differs", f"by more than {100 * tolerance:g} points: {_in_words(far)}", why)
    largest = max((abs(old.scores[rule] - new.scores[rule]) for rule in old.scores), default=0.0)
    return Verification(
        old, "within tolerance", f"the largest difference of a score is {100 * largest:.2f} points", why
    )


def other_bits(old: Record, new: Record) -> str:
    """Why the same bits cannot be expected of two runs of a trial; empty where they can."""
    before, now = old.provenance, new.provenance
    reasons = []
    if "seconds" in old.trial.budget:
        reasons.append("a budget in seconds gives another number of steps each time")
    if not old.trial.deterministic:
        reasons.append("deterministic: false")
    reasons += [f"{name} {before.get(name)} -> {now.get(name)}" for name in _SAME if before.get(name) != now.get(name)]
    installed, here = (each.get("versions") or {} for each in (before, now))
    reasons += [
        f"{name} {installed.get(name)} -> {here.get(name)}"
        for name in sorted({*installed, *here})
        if installed.get(name) != here.get(name)
    ]
    return "; ".join(reasons)


def _differences(before: Facts, now: Facts) -> list[str]:
    """What is not bit for bit the same."""
    old, new = before.record, now.record
    pairs: list[tuple[str, Any, Any]] = [
        *((f"score of {rule}", value, new.scores.get(rule)) for rule, value in old.scores.items()),
        *((name, value, new.test_metrics.get(name)) for name, value in old.test_metrics.items()),
        ("agreement", old.agreement, new.agreement),
        *([] if _samples_differ(old, new) else [("images", old.images, new.images)]),
        ("stopped_by", old.stopped_by, new.stopped_by),
        ("pool", old.pool and old.pool.fingerprint, new.pool and new.pool.fingerprint),
    ]
    if old.ensemble is not None and new.ensemble is not None:
        asked, again = (
            [(each.images, each.backward) for each in found.teachers] for found in (old.ensemble, new.ensemble)
        )
        pairs += [
            ("the teachers' score", old.ensemble.score, new.ensemble.score),
            ("asked of each teacher", asked, again),
        ]
    meters = old.meter.model_dump(), new.meter.model_dump()
    pairs += [(name, meters[0][name], meters[1][name]) for name in meters[0] if name not in _TIMES]
    measured = {} if _samples_differ(old, new) else old.image_metrics
    for name, metric in measured.items():
        other = new.image_metrics.get(name)
        if metric.status == "ok" and other is not None and other.status == "ok" and metric.extractor == other.extractor:
            pairs.append((name, metric.value, metric.value if _near(metric.value, other.value) else other.value))
    different = [f"{name} {_short(old)} -> {_short(new)}" for name, old, new in pairs if old != new]
    lines = [[_timeless(point) for point in each.curve] for each in (before, now)]
    same = len(lines[0]) == len(lines[1]) and all(map(_same_point, *lines))
    if not same:
        pairs_of = enumerate(zip(*lines, strict=False))
        place = next((i for i, pair in pairs_of if not _same_point(*pair)), min(map(len, lines)))
        different.append(f"the curve, from its line {place + 1} on")
    # Where the file is gone, the record still has its checksum; records of earlier versions have none.
    student = before.student or old.files.get("student.safetensors", "")
    if student and student != now.student:
        different.append("the student's weights")
    return different


def _samples_differ(old: Record, new: Record) -> bool:
    """Whether one of them is of a version whose samples had copies in the place of held-out images."""
    return bool(old.images.count) and (old.images.different is None) != (new.images.different is None)


def _near(old: float | None, new: float | None) -> bool:
    """Whether an image metric is the same: `dfkd score` may have added up its sums in another order."""
    return old is not None and new is not None and math.isclose(old, new, rel_tol=1e-5, abs_tol=1e-7)


def _timeless(point: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if name != "seconds"}


def _same_point(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two lines of a curve say the same; one may lack the average's scores, which not all take."""
    lacking = old.get("score_ema") is None or new.get("score_ema") is None
    out = {"score_ema", "agreement_ema", "details_ema"} if lacking else set()
    return {k: v for k, v in old.items() if k not in out} == {k: v for k, v in new.items() if k not in out}


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _in_words(different: Sequence[str], most: int = 4) -> str:
    more = f" and {len(different) - most} more" if len(different) > most else ""
    return ", ".join(different[:most]) + more


def _write(results: Path, found: Sequence[Verification], again: Path, tolerance: float, total: int) -> None:
    """Write what was found into the provenance of the records."""
    new = {record.id: record for record in load_records(again)}
    compared = [each for each in found if each.outcome != "not compared"]
    changed = {}
    for each in compared:
        values = each.record.model_dump(mode="json", by_alias=True)
        told = _told(each, new[each.record.id], tolerance)
        values["provenance"][KEY] = {**told, "trials": len(compared), "of": total}
        changed[each.record.id] = Record.model_validate(values)
    if is_archive(results):
        replace_in_archive(results, list(changed.values()))
    else:
        for name, record in changed.items():
            replace_record(results / "trials" / name, record)


def _told(each: Verification, new: Record, tolerance: float) -> dict[str, Any]:
    here = provenance(threads=new.trial.threads, deterministic=new.trial.deterministic)
    told = {
        "outcome": each.outcome,
        "details": each.details,
        "scores": dict(new.scores),
        "suite": __version__,
        "commit": here["commit"],
        "dirty": here["dirty"],
        "device": here["device"],
        "isolation": new.provenance.get("isolation", {}).get("enforced_by", ""),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if each.bits:
        told |= {"other_bits": each.bits, "tolerance": tolerance}
    return told
