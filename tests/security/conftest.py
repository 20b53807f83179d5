"""Trials of small hostile methods, each in a process of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest

from bench.execution.run_trial import Setting, run_trial
from bench.harness.teachers.cache import get_teacher
from bench.records import Record, open_results, read_curve
from bench.spec.method_registry import find_methods
from bench.spec.study import SUITE
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key
from bench.spec.trial import Trial
from bench.utils.confinement import Way, available, why_not
from bench.utils.paths import teacher_folder

TASK = "digits/lenet5-half"

METHOD = '''
import ctypes, gc, mmap, os, socket, struct, subprocess, sys, threading, time
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, method

JUDGE, SECRET, TEACHER = {places!r}


def gave(attempt):
    """Whether an attempt gives anything; how it fails is its own affair."""
    try:
        return bool(attempt())
    except Exception:
        return False


{top}


@method("attempt", title="Attempt", paper="none: a probe", data=Data.{data}, access=Access.{access})
def attempt(s: Session) -> None:
    opt = s.keep("opt", Adam(s.student.parameters(), 0.005))
{before}
    for _ in s.steps("train"):
        x = s.noise(32, *s.task.image.shape)
{inside}
        s.update(opt, F.cross_entropy(s.student(x), s.teacher(x).labels)){after}
'''


@dataclasses.dataclass
class Ran:
    """A trial's record, and what its method logged as ``got`` over the whole trial (at most)."""

    record: Record
    curve: list[dict[str, object]]
    log: str
    file: Path

    @property
    def got(self) -> float:
        logs = [row["logs"] for row in self.curve]
        return max((float(each["got"]) for each in logs if "got" in each), default=0.0)  # type: ignore[index,operator]


@pytest.fixture(scope="session")
def teacher(cache: Path) -> Path:
    """The weights file of the teacher of these trials."""
    from bench.data import load

    task = get_task(TASK)
    get_teacher(task, teacher_key(task), load(task.data, size=task.stored_size))
    return next((teacher_folder() / teacher_key(task)).glob("*.safetensors"))


@pytest.fixture(scope="session")
def way() -> Way:
    found = available()
    if found is None:
        pytest.skip(why_not())
    return found


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that no method may read."""
    file = tmp_path / "elsewhere" / "secret.bin"
    file.parent.mkdir()
    file.write_bytes(b"secret" * 100)
    return file


@pytest.fixture
def attempt(tmp_path: Path, teacher: Path, way: Way, secret: Path) -> Callable[..., Ran]:
    """Runs a method made of pieces of code: ``top`` of the file, ``before``, ``inside`` and ``after`` its loop."""

    def run(
        inside: str = "",
        *,
        before: str = "",
        top: str = "",
        after: str = "",
        access: str = "LABELS",
        data: str = "NONE",
        budget: dict[str, float] | None = None,
        how: Way | None = way,
        timeout: float | None = None,
        task_name: str = TASK,
        **setting: object,
    ) -> Ran:
        file = tmp_path / "code" / "attempt.py"
        file.parent.mkdir(exist_ok=True)
        text = METHOD.format(
            places=(str(os.getpid()), str(secret), str(teacher)),
            top=dedent(top),
            data=data,
            access=access,
            before=indent(dedent(before), " " * 4),
            inside=indent(dedent(inside), " " * 8),
            after="\n" + indent(dedent(after), " " * 4),
        )
        file.write_text(text, encoding="utf-8")
        card = find_methods([file])["attempt"]
        task = get_task(task_name)
        trial = Trial(
            suite=SUITE,
            task=task_name,
            task_sha=task.sha,
            teacher=teacher_key(task),
            method="attempt",
            method_sha=card.sha,
            options=card.defaults(),
            budget=budget or {"steps": 2},
            seed=0,
            points=2,
            selection=("last",),
            timeout=timeout,
            method_files=(file,),
        )
        results = open_results(tmp_path / "results", create=True)
        record = run_trial(trial, Setting(results, isolation=how, **setting))  # type: ignore[arg-type]
        folder = results / "trials" / trial.id
        log = folder / "log.txt"
        return Ran(record, read_curve(folder), log.read_text(encoding="utf-8") if log.exists() else "", file)

    return run
