"""How trials are run: one small module for each way.

An executor runs trials to their records and knows nothing of what is in them. Importing this imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.execution.progress import Progress
from bench.spec.trial import Trial

if TYPE_CHECKING:
    from bench.records import Record


@dataclass(frozen=True)
class Work:
    """What an executor needs besides the trials."""

    results: Path
    data_folder: Path | None
    checkpoint_seconds: float
    workers: int
    gpu: int | None = None  # the number of the GPU to use; None: the first
    weights: Path | None = None  # where to look first for the weights of image metrics
    isolation: str = "auto"  # whether methods run in processes of their own: auto, process or none


class Watcher(Protocol):
    """Told how trials come along."""

    def update(self, trial: Trial, progress: Progress) -> None: ...

    def ended(self, trial: Trial, record: Record) -> None: ...


class Executor(Protocol):
    """Runs trials, each to its record; raises Stopped where :func:`bench.utils.stopping.asked` says so."""

    def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None: ...


EXECUTORS: Mapping[str, str] = {
    "inline": "trials one after the other in this process",
    "processes": "one process per trial, so a crash ends only its own trial",
}


def get_executor(name: str) -> Executor:
    """The executor of a name in ``EXECUTORS``."""
    executor: Executor = importlib.import_module(f"bench.execution.executors.{name}").run
    return executor
