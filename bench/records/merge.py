"""Joining results folders and archives of several machines: exact duplicates once, contradictions refused."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.records.archive import BITS, archive_curves, archive_texts, check_new, files_beside, rows_of, store
from bench.records.folder import check_beside, is_archive, load_record, record_of, sync, write_file, writing
from bench.records.foreign import curve_lines, read_task_list, refuse_links, sha256_of
from bench.records.pack import connect
from bench.records.reading import open_results, read_curves
from bench.records.schema import SCHEMA, SEALS, Record, as_json
from bench.records.sheets import Sheets, name_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SHOWN = 3  # contradictions that are told in full; of the others, the number


@dataclass(frozen=True)
class Merged:
    """What became of the trials of all sources."""

    trials: int
    duplicates: int  # the same trial with the same content again
    replaced: int  # failures of trials that succeeded elsewhere
    extended: int  # the same trial with fewer image metrics


@dataclass(frozen=True)
class _Version:
    """A trial as one source has it."""

    place: int
    record: Record
    digest: str


def merge(sources: Sequence[Path], out: Path, sheets: Sheets = "best") -> Merged:
    """Join results folders and archives into a new folder, or into a new archive if ``out`` ends in ``.parquet``.

    A trial that is there twice with the same record and curve is taken once. As in a results folder, a failure gives
    way to the same trial ended well. A record that differs from another only in having more image metrics (`dfkd
    score` adds them) is taken. Anything else that differs under one id is a contradiction. Nothing is written unless
    all is well, and then whole.

    Args:
        sources: results folders and archives.
        out: the new folder or archive.
        sheets: which contact sheets a new archive holds, see ``SHEETS``; a folder gets all of them.

    Raises:
        UserError: trials or tasks contradict each other (both are shown), ``out`` exists, a source is damaged, or
            ``out`` cannot be written.
    """
    check_new(out, archive=False)
    with connect() as con:
        sources = [open_results(source) for source in sources]
        for place, source in enumerate(sources):
            rows_of(con, source, f"source_{place}")
        chosen, merged = _chosen(con, sources)
        beside = _beside(sources)
        if is_archive(out):
            con.execute(
                "CREATE TEMP TABLE chosen AS SELECT unnest($ids) AS id, unnest($places) AS place",
                {"ids": list(chosen), "places": list(chosen.values())},
            )
            rows = " UNION ALL BY NAME ".join(
                f"SELECT {place} AS place, * FROM source_{place}" for place in range(len(sources))
            )
            store(con, f"SELECT * EXCLUDE (place) FROM ({rows}) JOIN chosen USING (id, place)", out, beside, sheets)
        else:
            _write_folder(con, sources, chosen, beside, out)
    return merged


def _chosen(con: DuckDBPyConnection, sources: Sequence[Path]) -> tuple[dict[str, int], Merged]:
    """The source to take each trial from, by id."""
    copies: dict[str, list[tuple[str, tuple[int, int], int]]] = defaultdict(list)
    for place, source in enumerate(sources):
        files = (
            0 if is_archive(source) else "len(left_out)"
        )  # of those that are left out an archive only knows the names
        held = f"SELECT id, digest, {files}, coalesce(sheet_size, 0) FROM source_{place}"
        for name, digest, count, sheet in con.execute(held).fetchall():
            copies[name].append((digest, (-count, -sheet), place))
    chosen: dict[str, int] = {}
    duplicates = replaced = extended = 0
    contradictions = []
    for name in sorted(copies):
        # Of equal ones the one with the most files and the largest sheet: an archive has no student, and small sheets.
        best = {digest: (files, place) for digest, files, place in sorted(copies[name], reverse=True)}
        duplicates += len(copies[name]) - len(best)
        if len(best) == 1:
            chosen[name] = next(iter(best.values()))[1]
            continue
        versions = [_version(con, place, name, digest) for digest, (_, place) in best.items()]
        versions.sort(key=lambda version: version.place)
        well = [version for version in versions if version.record.status == "ok"]
        if well:
            replaced += len(versions) - len(well)
            versions = well
        taken = max(versions, key=lambda version: len(version.record.image_metrics))
        others = [version for version in versions if version is not taken]
        clash = next((other for other in others if not _extends(taken, other, sources)), None)
        if clash is not None:
            contradictions.append(_contradiction(clash, taken, sources))
        extended += len(others)
        chosen[name] = taken.place
    if contradictions:
        more = f"\n... and {len(contradictions) - SHOWN} more" if len(contradictions) > SHOWN else ""
        raise UserError(
            f"{len(contradictions)} trials differ under the same id; nothing was written. Leave out one of the "
            "sources, or remove the trial from the wrong one\n" + "\n".join(contradictions[:SHOWN]) + more
        )
    return chosen, Merged(len(chosen), duplicates, replaced, extended)


def _version(con: DuckDBPyConnection, place: int, name: str, digest: str) -> _Version:
    row = con.execute(f"SELECT record FROM source_{place} WHERE id = $id", {"id": name}).fetchone()
    assert row is not None
    return _Version(place, record_of(row[0], name), digest)


def _extends(taken: _Version, other: _Version, sources: Sequence[Path]) -> bool:
    """Whether a version has everything that the other has, and differs only in further image metrics."""
    first, second = taken.record, other.record
    same = first.model_copy(update={"image_metrics": {}}) == second.model_copy(update={"image_metrics": {}})
    held = all(first.image_metrics.get(name) == metric for name, metric in second.image_metrics.items())
    if not same or not held:
        return False
    curves = [read_curves(sources[version.place], [first.id]).get(first.id) for version in (taken, other)]
    return curves[0] == curves[1]


def _contradiction(one: _Version, other: _Version, sources: Sequence[Path]) -> str:
    """Both, with what differs between them."""
    first, second = (_flat(json.loads(as_json(version.record))) for version in (one, other))
    differing = [key for key in {**first, **second} if first.get(key, _ABSENT) != second.get(key, _ABSENT)]
    keys = [key for key in differing if key.partition(".")[0] not in SEALS] or ["curve.jsonl"]
    trial = one.record.trial
    lines = [f"{one.record.id}: {trial.method} on {trial.task}, seed {trial.seed}"]
    for version, values in ((one, first), (other, second)):
        said = ", ".join(f"{key} = {values.get(key, _ABSENT)}" for key in keys[:6])
        said = "another curve" if keys == ["curve.jsonl"] else said
        lines.append(f"  {sources[version.place]}: {said}" + (f", and {len(keys) - 6} more" if len(keys) > 6 else ""))
    return "\n".join(lines)


_ABSENT = "absent"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {
        key: each
        for name, item in value.items()
        for key, each in _flat(item, f"{path}.{name}" if path else name).items()
    }


def _beside(sources: Sequence[Path]) -> dict[str, str]:
    """All own tasks and runs of benchmarks; other files where all sources have the same one."""
    beside = [files_beside(source) for source in sources]
    found = {name: content for files in beside for name, content in files.items() if name.startswith("speed/")}
    names = {name for files in beside for name in files if name.startswith("methods/")}
    for name in ("study.yaml", "tracked.json", "submission.json", *sorted(names)):
        if len(contents := {files.get(name) for files in beside}) == 1 and (only := next(iter(contents))) is not None:
            found[name] = only
    known: dict[str, tuple[Any, Path]] = {}
    for source, files in zip(sources, beside, strict=True):
        for task in read_task_list(files.get("tasks.json", "[]"), f"{source}, tasks.json"):
            before, place = known.setdefault(task["name"], (task, source))
            if _placeless(before) != _placeless(task):
                raise UserError(
                    f"{place} and {source} define the task {task['name']!r} differently:\n  {before}\n  {task}"
                )
    if known:
        found["tasks.json"] = json.dumps([task for task, _ in known.values()], indent=1) + "\n"
    return found


def _placeless(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task without the place of the user's images, which differs from machine to machine."""
    own = task.get("own")
    rest = {name: value for name, value in task.items() if name != "own"}
    return rest | ({"own": {**own, "images": ""}} if isinstance(own, Mapping) else {})


def _write_folder(
    con: DuckDBPyConnection, sources: Sequence[Path], chosen: dict[str, int], beside: dict[str, str], out: Path
) -> None:
    part = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with writing(out.parent):
        try:
            (part / "trials").mkdir(parents=True)
            for place, source in enumerate(sources):
                ids = [name for name, where in chosen.items() if where == place]
                if is_archive(source):
                    _unpack(con, source, place, ids, part / "trials")
                else:
                    for name in ids:
                        _copy(source / "trials" / name, part / "trials" / name)
            for name, content in beside.items():
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                write_file(part / name, content)
            write_file(part / "results.json", json.dumps({"schema": SCHEMA}) + "\n")
            sync(part)
            check_new(out, archive=False)
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _copy(trial: Path, target: Path) -> None:
    """A trial's folder, of which no file has changed since it was written."""
    refuse_links(trial)
    files = load_record(trial).files
    shutil.copytree(trial, target, symlinks=True)
    for file in target.iterdir():
        if file.name in files:
            check_beside(trial, file.name, sha256_of(file), files)


def _unpack(con: DuckDBPyConnection, source: Path, place: int, ids: Sequence[str], trials: Path) -> None:
    curves = archive_curves(source, ids)
    for name, record in archive_texts(source, ids):
        (trials / name).mkdir()
        write_file(trials / name / "record.json", record)
        write_file(trials / name / "curve.jsonl", curve_lines(curves[name]))
        row = con.execute(f"SELECT sheet, student FROM source_{place} WHERE id = $id", {"id": name}).fetchone()
        assert row is not None
        sheet, student = row
        if sheet is not None:
            (trials / name / name_of(sheet)).write_bytes(sheet)
        if student is not None:
            write_file(trials / name / BITS, json.dumps({"student": student}, indent=1) + "\n")
