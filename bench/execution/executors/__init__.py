"""How trials are run: one small module for each way.

An executor runs trials to their records and knows nothing of what is in them. Importing this imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import ValidationError

from bench.errors import UserError, nearest
from bench.execution.gpu_memory import MemoryNeeds
from bench.execution.progress import Progress
from bench.execution.teachers import WantedTeacher
from bench.harness.teachers.progress import TrainingProgress
from bench.spec.trial import Trial
from bench.utils.text import shown
from bench.utils.yaml import Strict, sentence

if TYPE_CHECKING:
    from bench.records import Record


@dataclass(frozen=True)
class Work:
    """What an executor needs besides the trials."""

    results: Path
    data_folder: Path | None
    checkpoint_seconds: float
    workers: int
    gpu: int | None = None  # the number of the GPU to use; None: all, or where trials run one by one, the first
    weights: Path | None = None  # where to look first for the weights of image metrics
    isolation: str = "auto"  # whether methods run in processes of their own: auto, process or none
    teachers: tuple[WantedTeacher, ...] = ()  # those that are missing, for an executor that trains them
    needs: MemoryNeeds = field(default_factory=MemoryNeeds)  # what finished trials tell of those on a GPU
    # the fingerprints of the data sets that orders name: each is read once in a run, and not again for every order
    fingerprints: dict[Any, str] = field(default_factory=dict, compare=False)


class Watcher(Protocol):
    """Told how trials come along, and the teachers that an executor trains."""

    def update(self, trial: Trial, progress: Progress) -> None: ...

    def ended(self, trial: Trial, record: Record) -> None: ...

    def teacher(self, task: str, progress: TrainingProgress) -> None:
        """A task's teacher is being trained; told at the start, every few seconds, and at the end."""


class Executor(Strict):
    """Runs trials, each to its record. The fields are its options, each with a type, a default and a description.

    Only the process that calls it writes into the study's results.
    """

    # Whether it trains the missing teachers of its work; for others they are trained before it is called.
    trains_teachers: ClassVar[bool] = False

    def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
        """Run all trials.

        Raises:
            Stopped: :func:`bench.utils.stopping.asked` says so, and what runs is saved.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Look whether what it needs is installed here.

        Raises:
            UserError: something is missing; the sentence says what to install.
        """

    def dry_run(self, trials: Sequence[Trial], work: Work) -> str:
        """What it would hand to another program, as text; nothing is written."""
        del trials, work
        return ""


ENTRY_POINTS = "dfkd.executors"  # a class of a site's own, by name
EXECUTORS: Mapping[str, str] = {
    "inline": "trials one after the other in this process",
    "processes": "one process per trial, so a crash ends only its own trial",
    "slurm": "array jobs of Slurm, such as slurm:partition=gpu,time=2h",
    "ray": "a task of Ray per trial, on this machine or a cluster, such as ray:address=head:6379",
}
_CLASSES = {
    "inline": "bench.execution.executors.inline:Inline",
    "processes": "bench.execution.executors.processes:Processes",
    "slurm": "bench.execution.executors.slurm:Slurm",
    "ray": "bench.execution.executors.ray:Ray",
}


def get_executor(words: str) -> Executor:
    """The executor of words such as ``processes`` or ``slurm:partition=gpu,time=2h``.

    Raises:
        UserError: no such executor, option or value; the sentence has the nearest name.
    """
    name, _, rest = words.partition(":")
    kind = _class(name)
    options: dict[str, str] = {}
    for word in filter(None, rest.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"executor {name}: an option is written NAME=VALUE, not {word!r}")
        if key in options:
            raise UserError(f"executor {name}: the option {key!r} is there twice")
        if key not in kind.model_fields:
            known = nearest(key, kind.model_fields) if kind.model_fields else "; it takes none"
            raise UserError(f"executor {name} has no option {key!r}{known}")
        options[key] = value
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"executor {name}: {key} {sentence(first, quote=False)}") from None


def check_executor(words: str) -> None:
    """Raise UserError as :func:`get_executor` does; of the built-in ones without options, nothing is imported."""
    if words not in _CLASSES:
        get_executor(words)


def require_executor(words: str) -> None:
    """Raise UserError as :func:`get_executor` does, and where what the executor needs is not installed here."""
    get_executor(words).check()


def _class(name: str) -> type[Executor]:
    if name in _CLASSES:
        place, _, found = _CLASSES[name].partition(":")
        kind: type[Executor] = getattr(importlib.import_module(place), found)
        return kind
    entries = {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if name not in entries:
        raise UserError(f"unknown executor {name!r}{nearest(name, [*EXECUTORS, *entries])}")
    origin = f"executor {name!r}, entry point {entries[name].value!r} ({ENTRY_POINTS})"
    try:
        loaded = entries[name].load()
    except Exception as error:
        raise UserError(f"{origin}: importing it fails with {type(error).__name__}: {shown(str(error))}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Executor)):
        raise UserError(f"{origin} is no bench.execution.executors.Executor")
    return loaded
