"""What is installed, and the command or file that fixes each missing thing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from bench import data
from bench._version import __version__
from bench.errors import UserError
from bench.harness.teachers.passport import passports, weights_state
from bench.metrics.weights import weights_status
from bench.records import SCHEMA
from bench.spec.task import tasks
from bench.spec.teacher_key import teacher_keys
from bench.utils.hardware import gpus, usable_cores
from bench.utils.paths import ROOT, cache_folder, teacher_folder
from bench.utils.provenance import device_name

LIBRARIES = ("torch", "numpy", "scikit-learn", "safetensors", "pandas", "matplotlib", "typer", "rich", "pydantic")
GIB = 2**30
IMPORT_SECONDS = 3.8  # with the rest of the command, less than 5
_ERROR = re.compile(r"[A-Za-z_.]+(Error|Exception|Exit): ")  # the last line of a traceback


@dataclass(frozen=True)
class Fact:
    """One line of the examination; ``fix`` is the command or file that helps where ``ok`` is false.

    ``absent``: it is not broken, only not there yet.
    """

    group: str
    name: str
    value: str
    ok: bool = True
    fix: str = ""
    absent: bool = False


def examine(data_folder: Path | None = None) -> Iterator[Fact]:
    """Look at everything, one fact at a time; nothing is changed or downloaded, and nothing is raised."""
    with _importing() as importing:  # meanwhile: it takes longer than everything else
        rest = [*_data(data_folder), *_cache(), *_teachers(), *_weights()]
        yield from _machine()
        yield from _libraries(importing)
    yield from rest
    yield Fact("results", "schema", f"reads and writes version {SCHEMA}")


@contextmanager
def _importing() -> Iterator[Callable[[], str]]:
    """Import torchvision in a process of its own; what is given tells how that went, after a few seconds at most."""
    code = "from bench.utils.torchvision_compat import torchvision; print(torchvision().__version__)"
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    deadline = time.monotonic() + IMPORT_SECONDS
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:

        def told() -> str:
            try:
                version, errors = process.communicate(timeout=max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                version = importlib.metadata.version("torchvision")
                return f"{version}, not tried: importing it takes more than {IMPORT_SECONDS:g} s at the moment"
            if process.returncode != 0:
                lines = [line for line in errors.splitlines() if line and not line[0].isspace()]
                raise ImportError(next((line for line in lines if _ERROR.match(line)), f"exit {process.returncode}"))
            return f"{version.strip()}, can be imported"

        try:
            yield told
        finally:
            process.kill()


def _machine() -> Iterator[Fact]:
    group = "machine"
    yield Fact(group, "python", platform.python_version())
    yield Fact(group, "system", f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Fact(group, "processor", device_name("cpu"))
    logical = psutil.cpu_count() or 1
    yield Fact(
        group,
        "cores",
        f"{usable_cores()} usable, {logical} threads in total; OMP_NUM_THREADS {_setting('OMP_NUM_THREADS')}",
    )
    memory = psutil.virtual_memory()
    yield Fact(group, "memory", f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB free")
    yield _told(
        group,
        "gpus",
        lambda: ", ".join(gpus()) or "none: trials run on the CPU",
        "pip install --force-reinstall torch",
    )


def _setting(name: str) -> str:
    return os.environ.get(name) or "not set"


def _libraries(torchvision: Callable[[], str]) -> Iterator[Fact]:
    group = "libraries"
    yield Fact(group, "dfkd", __version__)
    for name in LIBRARIES:
        yield _told(group, name, partial(importlib.metadata.version, name), f"pip install {name}")
    yield _told(group, "torchvision", torchvision, "pip install --force-reinstall torch torchvision")


def _data(folder: Path | None) -> Iterator[Fact]:
    group = "data sets"
    yield Fact(group, "searched in", ", ".join(str(each) for each in data.search_folders(folder)))
    for name in data.NAMES:
        source, found = data.find(name), data.status(name, folder)
        bad = [each for each in found if each.state != "ok"]
        where = next((each.path.parent for each in found if each.path is not None), None)
        if not bad:
            yield Fact(group, name, f"complete, {where or 'generated'}")
            continue
        by_hand = f"by hand: see `dfkd data status {name}`"
        fetch = source.how_to_place if not source.files else f"dfkd data fetch {name}   ({by_hand})"
        if len(bad) == len(found) and all(each.state == "missing" for each in bad):
            yield Fact(group, name, "missing", ok=False, fix=fetch, absent=True)
        else:
            yield Fact(group, name, "; ".join(each.message for each in bad), ok=False, fix=fetch)


def _cache() -> Iterator[Fact]:
    folder = cache_folder()
    free = _free_bytes(folder)
    room = f", {free / GIB:.1f} GiB free" if free is not None else ""
    ok = _writable(folder)
    fix = "" if ok else "set DFKD_CACHE to a writable folder"
    yield Fact("cache", "folder", f"{folder}, {'writable' if ok else 'not writable'}{room}", ok, fix)


def _nearest_existing(folder: Path) -> Path:
    return next((each for each in (folder, *folder.absolute().parents) if each.exists()), Path("/"))


def _writable(folder: Path) -> bool:
    place = _nearest_existing(folder)
    return place.is_dir() and os.access(place, os.W_OK)


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(_nearest_existing(folder)).free
    except OSError:
        return None


def _teachers() -> Iterator[Fact]:
    group = "teachers"
    try:
        known = {str(passport["key"]): passport for passport in passports()}
    except UserError as error:
        yield Fact(group, "cache", str(error), ok=False, fix=f"delete the folder named here, in {teacher_folder()}")
        return
    own = {key: task.name for task in tasks().values() if task.trains_teachers for key in teacher_keys(task)}
    for key, name in own.items():
        if key not in known:
            yield Fact(
                group,
                name,
                "not trained yet",
                ok=False,
                fix=f"dfkd teacher train {name}   (`dfkd run` also does this)",
                absent=True,
            )
    for key, passport in known.items():
        state, title = weights_state(passport), own.get(key, key)
        again = f"delete {teacher_folder() / key}, then train or import it again"
        score = f"{key}, test score {100 * float(passport['score']):.1f} %"
        yield Fact(
            group,
            title,
            score if state == "ok" else f"{score}: weights {state}",
            state == "ok",
            "" if state == "ok" else again,
        )


def _weights() -> Iterator[Fact]:
    for each in weights_status():
        fix = "" if each.state == "ok" else f"dfkd weights fetch {each.file.name}   (for {each.file.used_by})"
        value = {"ok": f"complete, {each.path}", "missing": "missing"}.get(each.state, each.message)
        yield Fact("weights", each.file.name, value, each.state == "ok", fix, absent=each.state == "missing")


def _told(group: str, name: str, look: Callable[[], str], fix: str) -> Fact:
    """A fact that may be impossible to find out: a broken library must not hide the other facts."""
    try:
        return Fact(group, name, look())
    except Exception as error:  # importing third-party code may raise anything
        first = str(error).partition("\n")[0]
        known = first if isinstance(error, ImportError) and _ERROR.match(first) else f"{type(error).__name__}: {first}"
        return Fact(group, name, known, ok=False, fix=fix)
