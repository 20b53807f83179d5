"""Trials on their way to another process or machine as content, and what comes back.

An *order* is a tar file with everything trials need: their method files, the study's own tasks with their networks,
teachers with anchors, and checkpoints. Data sets are named with the checksum of their content, and the worker has them.
An *answer* is a folder of the worker's own: records, and checkpoints of trials that were stopped. Only the driver
writes into the study's results, through :func:`accept`. Neither believes what the other says without a look.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError

from bench import data
from bench._version import __version__
from bench.errors import UserError
from bench.execution.package import (
    LARGEST,
    PackedFile,
    check_names,
    entries_of,
    extract,
    keep_teachers,
    new_teachers,
    teacher_files,
    write_tar,
)
from bench.models.source import own_file
from bench.records import Record, load_record, open_results, read_curve, write_trial
from bench.records.folder import check_beside, load_finished, sync, writing
from bench.records.foreign import brief, is_there, parse, refuse_links, sha256_of
from bench.spec.method_registry import card_of
from bench.spec.task import get_task
from bench.spec.trial import Trial
from bench.utils.scratch import scratch_folder
from bench.utils.user_code import own_files
from bench.utils.yaml import Strict

if TYPE_CHECKING:
    from bench.execution.executors import Work

SCHEMA = 1
MANIFEST, ANSWER = "order.json", "answer.json"


class _Set(Strict):
    """A data set by name, and the checksum of its images and labels at a size."""

    name: str
    test: str = ""  # the set whose test images stand in the place of its own
    size: int
    image: str  # the task's geometry and normalisation, of which a user's own images are a matter
    altered: bool
    sha256: str


class _Listed(Strict):
    schema_: int = Field(alias="schema", strict=True)
    suite: str
    folder: str  # below files/, where paths of networks start
    trials: tuple[Mapping[str, Any], ...]
    data: tuple[_Set, ...]
    data_folder: str | None
    weights: str | None
    checkpoint_seconds: float
    isolation: str
    files: Mapping[str, PackedFile]


class _Answer(Strict):
    schema_: int = Field(alias="schema", strict=True)
    trial: str
    files: Mapping[str, PackedFile]


M = TypeVar("M", bound=Strict)


@dataclass(frozen=True)
class Order:
    """An order that was opened: its trials, what is around them, and the folder to work in, where paths start."""

    trials: tuple[Trial, ...]
    folder: Path
    data_folder: Path | None
    weights: Path | None
    checkpoint_seconds: float
    isolation: str


def write_order(target: Path, trials: Sequence[Trial], work: Work) -> None:
    """Write an order for some trials of a study into a new file, whole or not at all.

    Args:
        target: the file.
        trials: at least one. Their teachers are trained.
        work: the study's; checkpoints in its results go with the order.

    Raises:
        UserError: a data set or teacher is missing or damaged, or a method needs files that cannot travel.
    """
    code, root, here = _code(trials)
    content: dict[str, Path | bytes] = {f"files/{each.relative_to(root).as_posix()}": each for each in code}
    content |= teacher_files({key for trial in trials for key in trial.teacher_keys}, training=False)
    for trial in trials:
        content |= _saved(work.results / "work" / trial.id, trial.id)
    check_names(content)
    manifest = {
        "schema": SCHEMA,
        "suite": __version__,
        "folder": here.relative_to(root).as_posix(),
        "trials": [_on_the_way(trial, root) for trial in trials],
        "data": _data_sets(trials, work),
        "data_folder": str(work.data_folder.resolve()) if work.data_folder else None,
        "weights": str(work.weights.resolve()) if work.weights else None,
        "checkpoint_seconds": work.checkpoint_seconds,
        "isolation": work.isolation,
        "files": entries_of(content),
    }
    write_tar(target, {MANIFEST: json.dumps(manifest).encode(), **content})


def packed_order(trials: Sequence[Trial], work: Work) -> bytes:
    """The content of :func:`write_order`."""
    with scratch_folder("dfkd-order-") as folder:
        write_order(folder / "order.tar", trials, work)
        return (folder / "order.tar").read_bytes()


def _code(trials: Sequence[Trial]) -> tuple[list[Path], Path, Path]:
    """The files of methods and networks that are not the suite's; the folder that they all lie in; the current one."""
    here = Path.cwd().resolve()
    files = {file.resolve() for trial in trials for file in trial.method_files}
    for name in {trial.task for trial in trials}:
        task = get_task(name)
        for network in task.networks:
            if network.rpartition(":")[0].endswith(".py") and (found := own_file(network)) is not None:
                files.add(found.resolve())
    files |= {each for file in files for each in own_files(file)}
    return sorted(files), Path(os.path.commonpath([here, *(each.parent for each in files)])), here


def _on_the_way(trial: Trial, root: Path) -> dict[str, Any]:
    values = trial.to_json()
    names = [file.resolve().relative_to(root).as_posix() for file in trial.method_files]
    return values | {"method_files": names}


def _data_sets(trials: Iterable[Trial], work: Work) -> list[dict[str, Any]]:
    found = []
    for key, source in sorted(_sources(trials).items(), key=lambda each: each[0]):
        name, test, size, image, altered = key
        if key not in work.fingerprints:
            content = data.load_source(source, size=size, folder=work.data_folder, allow_altered=altered)
            work.fingerprints[key] = content.fingerprint
        facts = {"name": name, "test": test, "size": size, "image": image, "altered": altered}
        found.append({**facts, "sha256": work.fingerprints[key]})
    return found


_Key = tuple[str, str, int, str, bool]


def _sources(trials: Iterable[Trial]) -> dict[_Key, data.Source]:
    """The data sets of trials by name, the set they are tested on, size, geometry, and whether altered files are
    allowed."""
    tasks = [(get_task(trial.task), trial.altered_data) for trial in trials]
    return {
        (task.data, task.test, task.stored_size, task.image.model_dump_json() if task.own else "", altered): task.source
        for task, altered in tasks
    }


def _saved(folder: Path, trial_id: str) -> dict[str, Path | bytes]:
    """What an unfinished trial has saved, by its name in an order."""
    if not is_there(folder / "checkpoint.pt"):
        return {}
    refuse_links(folder)
    files = [folder / "checkpoint.pt", folder / "log.txt", *sorted((folder / "points").glob("*.safetensors"))]
    return {f"results/work/{trial_id}/{each.relative_to(folder).as_posix()}": each for each in files if each.is_file()}


# ---- the worker's side ---------------------------------------------------------------------------------------------


def open_order(file: Path, folder: Path, results: Path) -> Order:
    """Unpack an order into a new folder, its teachers into the cache, and its checkpoints into the worker's results.

    Its tasks are known afterwards. The caller changes to the order's folder before a trial is run.

    Args:
        file: what :func:`write_order` wrote.
        folder: does not exist yet.
        results: the worker's own, for nobody else; made if needed.

    Raises:
        UserError: the order is damaged or of another version of the suite, a data set is missing or another one than
            the driver's, or the cache has another teacher under a key.
    """
    with writing(folder.parent):
        folder.mkdir(parents=True)
    listed = extract(file, folder, _listed)
    keep_teachers(new_teachers(folder / "teachers", file))
    here = folder / "files" / listed.folder
    here.mkdir(parents=True, exist_ok=True)
    data_folder = Path(listed.data_folder) if listed.data_folder and Path(listed.data_folder).is_dir() else None
    before = Path.cwd()
    os.chdir(here)  # a task's network is a path from there
    try:
        trials = tuple(_arrived(values, folder / "files", file) for values in listed.trials)
        for trial in trials:
            card_of(trial)
    finally:
        os.chdir(before)
    sources = _sources(trials)
    for each in listed.data:
        _check_data(each, sources, data_folder)
    open_results(results, create=True)
    for trial in trials:
        if (folder / "results" / "work" / trial.id).is_dir():
            take_saved(folder / "results" / "work" / trial.id, results, trial.id)
    weights = Path(listed.weights) if listed.weights and Path(listed.weights).exists() else None
    return Order(trials, here, data_folder, weights, listed.checkpoint_seconds, listed.isolation)


def write_answer(target: Path, results: Path, trial_id: str) -> None:
    """Write what a worker's results hold of a trial into a new file, for a driver that does not see the folder.

    That is its record, or else its checkpoint, or else nothing.

    Raises:
        FileNotFoundError: the trial has changed meanwhile, as one that runs may.
        UserError: the results hold what no trial leaves there.
    """
    folder = results / "trials" / trial_id
    if folder.is_dir():
        refuse_links(folder)
        content: dict[str, Path | bytes] = {f"results/trials/{trial_id}/{each.name}": each for each in folder.iterdir()}
    else:
        content = _saved(results / "work" / trial_id, trial_id)
    check_names(content)
    manifest = {"schema": SCHEMA, "trial": trial_id, "files": entries_of(content)}
    write_tar(target, {ANSWER: json.dumps(manifest).encode(), **content})


def _listed(member: tarfile.TarInfo, content: Any, file: Path) -> _Listed:
    if member.name != MANIFEST or member.size > LARGEST:
        raise UserError(f"{file} is not an order: it does not begin with {MANIFEST}")
    values = parse(content.read(LARGEST), f"{MANIFEST} of {file}")
    if values.get("suite") != __version__:
        raise UserError(
            f"the order is of version {brief(values.get('suite'))} of the suite, and this worker has {__version__}; "
            "install the same version on both sides"
        )
    listed = _valid(_Listed, values, MANIFEST, file)
    check_names([*listed.files, f"files/{listed.folder}/x.py" if listed.folder != "." else "files/x.py"], f"{file}: ")
    return listed


def _valid(kind: type[M], values: Mapping[str, Any], name: str, file: Path) -> M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{name} of {file}: {brief(place)} is missing or wrong") from None


def _arrived(values: Mapping[str, Any], files: Path, file: Path) -> Trial:
    try:
        trial = Trial.from_json(values)
        name = trial.id
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{file} holds no trial that this version reads") from None
    for each in trial.method_files:
        if each.is_absolute() or ".." in each.parts or not (files / each).is_file():
            raise UserError(f"{file} lacks the method file {brief(str(each))} of the trial {name}")
    return replace(trial, method_files=tuple(files / each for each in trial.method_files))


def _check_data(wanted: _Set, sources: Mapping[_Key, data.Source], folder: Path | None) -> None:
    key = (wanted.name, wanted.test, wanted.size, wanted.image, wanted.altered)
    source = sources.get(key) or data.find(wanted.name)
    found = data.load_source(source, size=wanted.size, folder=folder, allow_altered=wanted.altered)
    if found.fingerprint != wanted.sha256:
        raise UserError(
            f"the data set {wanted.name} is another one here than on the driver's side: its checksum is "
            f"{found.fingerprint[:12]}, and the order says {brief(wanted.sha256)[:12]}"
        )


# ---- the driver's side ---------------------------------------------------------------------------------------------


def open_answer(file: Path, folder: Path) -> Path:
    """Unpack what :func:`write_answer` wrote below a folder that exists; the results folder in it, for :func:`accept`.

    Raises:
        UserError: it is damaged, or no answer.
    """
    with writing(folder):
        extract(file, folder, _answered)
    return folder / "results"


def _answered(member: tarfile.TarInfo, content: Any, file: Path) -> _Answer:
    if member.name != ANSWER or member.size > LARGEST:
        raise UserError(f"{file} is not an answer: it does not begin with {ANSWER}")
    answer = _valid(_Answer, parse(content.read(LARGEST), f"{ANSWER} of {file}"), ANSWER, file)
    places = (f"results/trials/{answer.trial}/", f"results/work/{answer.trial}/")
    if other := next((name for name in answer.files if not name.startswith(places)), None):
        raise UserError(f"{file} answers for the trial {brief(answer.trial)}, and holds {brief(other)}")
    check_names(answer.files, f"{file}: ")
    return answer


def accept(answer: Path, trial: Trial, results: Path) -> Record | None:
    """Take what a worker left of a trial into the study's results: its record, or else its checkpoint.

    A worker may still be writing, and may have been given up: what is not whole is left alone.

    Args:
        answer: the worker's results folder.
        trial: as it was ordered.
        results: the study's.

    Returns:
        The record; None where the trial has not ended.

    Raises:
        UserError: a record is damaged or of another trial, or the results cannot be written.
    """
    source = answer / "trials" / trial.id
    if source.is_dir():
        record = load_finished(source)
        if record.id != trial.id:
            raise UserError(f"{source} is the record of another trial")
        refuse_links(source)
        for name in record.files:
            check_beside(source, name, sha256_of(source / name), record.files)
        files = {name: source / name for name in record.files if name != "curve.jsonl"}
        if (source / "log.txt").is_file():
            files["log.txt"] = source / "log.txt"
        folder = write_trial(results, record, read_curve(source, record.files), files)
        shutil.rmtree(results / "work" / trial.id, ignore_errors=True)
        return load_record(folder)
    saved = answer / "work" / trial.id
    if is_there(saved / "checkpoint.pt"):
        take_saved(saved, results, trial.id)
    return None


def accept_packed(answer: bytes, trial: Trial, results: Path) -> Record | None:
    """:func:`accept` for the content of an answer's file."""
    with scratch_folder("dfkd-answer-") as folder:
        (folder / "answer.tar").write_bytes(answer)
        return accept(open_answer(folder / "answer.tar", folder), trial, results)


def take_saved(source: Path, results: Path, trial_id: str) -> None:
    """Copy an unfinished trial's checkpoint to its work folder; the checkpoint itself last, so that it has its files.

    Where it is not whole, the trial finds that out by its checksum and starts from the beginning.
    """
    refuse_links(source)
    target = results / "work" / trial_id
    with writing(results):
        (target / "points").mkdir(parents=True, exist_ok=True)
        names = [f"points/{each.name}" for each in sorted((source / "points").glob("*.safetensors"))]
        for name in [*names, "log.txt", "checkpoint.pt"]:
            if not (source / name).is_file():
                continue
            part = target / f"{name}.part"
            with contextlib.suppress(FileNotFoundError):  # the worker has just ended the trial
                shutil.copyfile(source / name, part)
                sync(part)
                part.replace(target / name)
