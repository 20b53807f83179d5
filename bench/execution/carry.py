"""Carrying a study to another machine or folder: everything that ``dfkd run`` needs to go on, in one tar file.

It holds the study and the files that it names (tasks, methods, networks, with the modules beside them), the finished
trials, the checkpoints of unfinished ones, and the teachers, trained or half trained. Data sets, pools and installed
packages are not in it. A package may come from anybody: :func:`unpack` believes no name, size or content of it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, ValidationError

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
from bench.execution.plan import Plan
from bench.execution.run_study import locked
from bench.models.source import own_file
from bench.records import load_record, open_results
from bench.records.folder import check_beside, writing
from bench.records.foreign import brief, is_there, parse, refuse_links, sha256_of
from bench.spec.method_registry import card_of
from bench.spec.study import SUITE, YAML, LoadedStudy
from bench.spec.task import get_task
from bench.utils.paths import ROOT
from bench.utils.user_code import own_files
from bench.utils.yaml import Strict

SCHEMA = 1
MANIFEST = "package.json"
ENDING = ".tar"
NOT_CARRIED = {"digits", "shapes"}  # data sets that every installation has


class _Manifest(Strict):
    """What a package says of itself; written by :func:`pack`."""

    schema_: int = Field(alias="schema", strict=True)
    suite: str
    study: str  # the file, from ``folder``
    folder: str  # below files/, from which the study is run
    methods: tuple[str, ...]  # given on the command line, from ``folder``
    finished: tuple[str, ...]  # ids
    unfinished: tuple[str, ...]
    files: Mapping[str, PackedFile]


@dataclass(frozen=True)
class Package:
    """What a package holds: ids of finished trials, of those with a checkpoint, of all unfinished ones; keys of whole
    and half-trained teachers; what it needs and does not hold, in words. ``command`` goes on with the study."""

    finished: tuple[str, ...]
    saved: tuple[str, ...]
    unfinished: tuple[str, ...]
    teachers: tuple[str, ...]
    training: tuple[str, ...]
    absent: tuple[str, ...] = ()
    folder: Path = Path()
    command: str = ""


# ---- packing -------------------------------------------------------------------------------------------------------


def pack(
    loaded: LoadedStudy,
    file: Path,
    plan: Plan,
    target: Path,
    *,
    method_files: Sequence[Path] = (),
    unfinished: bool = False,
) -> Package:
    """Write a study, and what has become of its trials so far, into a new tar file, whole or not at all.

    Args:
        loaded: the study.
        file: its file.
        plan: its plan.
        target: the tar file.
        method_files: method files that the study does not name (``--method``).
        unfinished: without it, trials that are not finished are an error.

    Raises:
        UserError: the target exists, trials are unfinished, a run is using the results, or the study names a file in a
            way that another machine cannot follow. Nothing is left behind.
    """
    if target.suffix != ENDING:
        raise UserError(f"{target}: the name of a package ends in {ENDING}")
    if os.path.lexists(target):
        raise UserError(f"{target} exists; choose another name, or delete it")
    if plan.waiting and not unfinished:
        raise UserError(
            f"{len(plan.waiting)} of {len(plan.trials)} trials are not finished; add --unfinished to pack them with "
            "what they have saved, or run the study to its end first"
        )
    files, root, here = _study_files(loaded, file, method_files)
    content: dict[str, Path | bytes] = {f"files/{each.relative_to(root).as_posix()}": each for each in files}
    if not plan.results.is_dir():
        raise UserError(f"{plan.results} does not exist: nothing of this study has run there")
    open_results(plan.results)
    with locked(plan.results):
        content |= _result_files(plan)
        teachers = {key for trial in plan.trials for key in trial.teacher_keys}
        content |= teacher_files(teachers)
        check_names(content)
        manifest = {
            "schema": SCHEMA,
            "suite": __version__,
            "study": os.path.relpath(file.resolve(), here),
            "folder": here.relative_to(root).as_posix(),
            "methods": [os.path.relpath(each.resolve(), here) for each in method_files],
            "finished": sorted(plan.finished),
            "unfinished": [trial.id for trial in plan.waiting],
            "files": entries_of(content),
        }
        write_tar(target, {MANIFEST: json.dumps(manifest, indent=1).encode(), **content})
    return _described(_Manifest.model_validate(manifest), absent=_absent(plan, loaded))


def _study_files(loaded: LoadedStudy, file: Path, method_files: Sequence[Path]) -> tuple[list[Path], Path, Path]:
    """The files that the study consists of; the folder that they all lie in; the one to run the study from."""
    files = {file.resolve()}
    for item in loaded.study.tasks:
        if isinstance(item, str) and item.endswith(YAML):
            files.add(_relative(item, file.parent, file))
    for name in (each if isinstance(each, str) else next(iter(each)) for each in loaded.study.methods):
        if name.endswith(".py"):
            files.add(_relative(name, file.parent, file))
    files |= {each.resolve() for each in method_files}
    here = file.resolve().parent
    for task in map(get_task, loaded.tasks):
        for network in task.networks:
            place = network.rpartition(":")[0]
            if place.endswith(".py"):
                files.add(_relative(place, Path(), file))
                here = Path.cwd().resolve()  # such paths start where the command is run
    code = {each for name in files if name.suffix == ".py" for each in own_files(name)}
    files |= {each for each in code if not each.is_relative_to(ROOT / "methods") or each in files}
    root = Path(os.path.commonpath([here, *(each.parent for each in files)]))
    return sorted(files), root, here


def _relative(name: str, folder: Path, study: Path) -> Path:
    if Path(name).is_absolute() or name.startswith("~"):
        raise UserError(
            f"{study} names {name} by an absolute path, which means nothing on another machine; name it by a path "
            "from the study's folder"
        )
    return (folder / name).resolve()


def _result_files(plan: Plan) -> dict[str, Path | bytes]:
    found: dict[str, Path | bytes] = {}
    for name in ("results.json", "study.yaml", "tasks.json"):
        if is_there(plan.results / name):
            found[f"results/{name}"] = plan.results / name
    for trial in plan.trials:
        folder = plan.results / "trials" / trial.id
        if folder.is_dir():
            refuse_links(folder)
            load_record(folder)
            found |= {f"results/trials/{trial.id}/{file.name}": file for file in sorted(folder.iterdir())}
    for trial in plan.waiting:
        folder = plan.results / "work" / trial.id
        if is_there(folder / "checkpoint.pt"):
            refuse_links(folder)
            files = [folder / "checkpoint.pt", folder / "log.txt", *sorted((folder / "points").glob("*.safetensors"))]
            found |= {
                f"results/work/{trial.id}/{file.relative_to(folder).as_posix()}": file
                for file in files
                if file.is_file()
            }
    return found


def _absent(plan: Plan, loaded: LoadedStudy) -> tuple[str, ...]:
    """What the study needs on the other machine, in words."""
    tasks = [get_task(name) for name in loaded.tasks]
    sets = {task.data for task in tasks if not task.own} | {task.test for task in tasks if task.test}
    found = [f"the data set {name}" for name in sorted(sets - NOT_CARRIED)]
    found += sorted({f"the images in {task.own.images}" for task in tasks if task.own and task.own.folder})
    pools = sorted({str(trial.pool_path) if trial.pool_path else trial.pool for trial in plan.trials if trial.pool})
    found += [f"the pool {name}" for name in pools]
    modules = {card_of(trial).module for trial in plan.trials}
    found += [f"the package of {name}" for name in sorted(filter(None, modules)) if not name.startswith("methods.")]
    for task in tasks:
        for network in task.networks:
            place = network.rpartition(":")[0]
            if place and not place.endswith(".py") and own_file(network) is not None:
                found.append(f"the module {place}")
    return tuple(dict.fromkeys(found))


# ---- unpacking -----------------------------------------------------------------------------------------------------


def unpack(file: Path, target: Path) -> Package:
    """Unpack a package into a new folder, and its teachers into the cache, whole or not at all.

    Args:
        file: what :func:`pack` wrote.
        target: the folder; it must not exist.

    Raises:
        UserError: it is damaged or no package, of another version of the suite's rules, names a place outside of the
            folder, or the cache has another teacher under a key.
    """
    if os.path.lexists(target):
        raise UserError(f"{target} exists; choose a folder that does not exist yet")
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
    try:
        manifest = extract(file, part, _manifest_of)
        _check_results(part / "results", file)
        keep_teachers(new_teachers(part / "teachers", file))
        shutil.rmtree(part / "teachers", ignore_errors=True)
        with writing(target.parent):
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    folder = target / "files" / manifest.folder
    results = os.path.relpath(target / "results", folder)
    words = ["dfkd", "run", manifest.study, "--results", results]
    words += [word for name in manifest.methods for word in ("--method", name)]
    return _described(manifest, folder=folder, command=shlex.join(words))


def _manifest_of(member: tarfile.TarInfo, content: Any, file: Path) -> _Manifest:
    if member.name != MANIFEST or member.size > LARGEST:
        raise UserError(f"{file} is not a package of `dfkd pack`: it does not begin with {MANIFEST}")
    values = parse(content.read(LARGEST), f"{MANIFEST} of {file}")
    if values.get("schema") != SCHEMA:
        raise UserError(f"{file} has version {brief(values.get('schema'))}; this version of the suite reads {SCHEMA}")
    try:
        manifest = _Manifest.model_validate(values)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{MANIFEST} of {file}: {brief(place)} is missing or wrong") from None
    if manifest.suite.split(".")[:2] != SUITE.split("."):
        raise UserError(
            f"{file} is of suite {brief(manifest.suite)}, and this is {__version__}, with other rules and other trials"
        )
    check_names(manifest.files, f"{file}: ")
    study = PurePosixPath(os.path.normpath(f"files/{manifest.folder}/{manifest.study}")).as_posix()
    if study not in manifest.files:
        raise UserError(f"{file}: its study {brief(manifest.study)} is not in it")
    for name in manifest.methods:
        if os.path.normpath(f"files/{manifest.folder}/{name}") not in manifest.files:
            raise UserError(f"{file}: its method file {brief(name)} is not in it")
    return manifest


def _check_results(results: Path, file: Path) -> None:
    """Records that are what they say, with the files that were written with them."""
    if not (results / "results.json").is_file():
        raise UserError(f"{file} holds no results")
    open_results(results)
    for folder in sorted((results / "trials").glob("*")):
        files = load_record(folder).files
        for each in sorted(folder.iterdir()):
            if each.name in files:
                check_beside(folder, each.name, sha256_of(each), files)


def _described(manifest: _Manifest, absent: tuple[str, ...] = (), folder: Path = Path(), command: str = "") -> Package:
    kinds = [name.split("/") for name in manifest.files]
    keys = sorted({each[1] for each in kinds if each[0] == "teachers"})
    return Package(
        finished=manifest.finished,
        saved=tuple(sorted({each[2] for each in kinds if each[:2] == ["results", "work"]})),
        unfinished=manifest.unfinished,
        teachers=tuple(key for key in keys if not key.startswith(".")),
        training=tuple(key[1:].removesuffix(".work") for key in keys if key.startswith(".")),
        absent=absent,
        folder=folder,
        command=command,
    )
