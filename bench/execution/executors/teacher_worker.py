"""The process that trains a teacher beside the trials of others, and what its driver sees of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from bench.errors import UserError
from bench.execution.teachers import WantedTeacher, train_teacher
from bench.harness.teachers.progress import TrainingProgress
from bench.records.folder import writing
from bench.spec.trial import Trial
from bench.utils.stopping import Stopped, ask, signal_name
from bench.utils.text import shown

TRAINED, INTERRUPTED, BAD_INPUT = "trained", "interrupted", "bad input"
_ORDER, _PROGRESS, _OUTCOME, _LOG = "teacher.json", "progress.jsonl", "outcome.json", "log.txt"


class Process(Protocol):
    """What an executor has of a worker."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


@dataclass
class Training:
    """A teacher in training, in a process of its own with a folder of its own; ``slots`` trials less run meanwhile."""

    wanted: WantedTeacher
    slots: int
    folder: Path
    process: Process
    told: int = 0  # bytes of the progress that were passed on

    def news(self) -> list[TrainingProgress]:
        """What the process has reported since the last call."""
        file = self.folder / _PROGRESS
        text = file.read_bytes() if file.exists() else b""
        new, self.told = text[self.told : text.rfind(b"\n") + 1], text.rfind(b"\n") + 1
        return [TrainingProgress(**json.loads(line)) for line in new.splitlines()]

    @property
    def saved(self) -> bool:
        """Whether the process, which has ended, left a teacher or a checkpoint."""
        return self._outcome()["outcome"] in (TRAINED, INTERRUPTED)

    def finish(self) -> None:
        """Clear up after a process that has ended.

        Raises:
            UserError: there is no teacher.
        """
        code, said = self.process.returncode or 0, self._outcome()
        log = self.folder / _LOG
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] if log.exists() else []
        self.clear()
        if said["outcome"] == TRAINED:
            return
        if said["outcome"] == BAD_INPUT:
            raise UserError(said["words"])
        how = f"died of {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if said["outcome"] == INTERRUPTED:
            how = "was asked to stop, and not by this run"
        words = f": {shown(last[0][:200])}" if last else ""
        raise UserError(f"training the teacher of {self.wanted.title}: its process {how}{words}")

    def clear(self) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _outcome(self) -> dict[str, str]:
        found = {"outcome": "", "words": ""}
        with contextlib.suppress(OSError, ValueError):
            found |= json.loads((self.folder / _OUTCOME).read_text(encoding="utf-8"))
        return found


def new_folder(wanted: WantedTeacher, data_folder: Path | None) -> Path:
    """A folder with the order to train a teacher.

    Raises:
        UserError: it cannot be written.
    """
    order = {
        "trial": wanted.trial.to_json(),
        "key": wanted.key,
        "anchors": wanted.anchors,
        "data_folder": str(data_folder) if data_folder else None,
    }
    with writing(Path(tempfile.gettempdir())):
        scratch = Path(tempfile.mkdtemp(prefix="dfkd-teacher-"))
        try:
            folder = scratch / wanted.key
            folder.mkdir()
            (folder / _ORDER).write_text(json.dumps(order), encoding="utf-8")
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return folder


def log_of(folder: Path) -> Path:
    return folder / _LOG


def is_order(folder: Path) -> bool:
    """Whether a worker's folder holds the order to train a teacher, and not one for a trial."""
    return (folder / _ORDER).exists()


def run(folder: Path, parent: int) -> None:
    """Train the teacher that the folder's order names, in this process, and say there how it ended.

    When ``parent``, the process that started this one, is gone, the training saves itself and makes room.
    """
    order: dict[str, Any] = json.loads((folder / _ORDER).read_text(encoding="utf-8"))
    wanted = WantedTeacher(Trial.from_json(order["trial"]), order["key"], tuple(order["anchors"]))
    place = Path(order["data_folder"]) if order["data_folder"] else None
    outcome, words = TRAINED, ""
    with (folder / _PROGRESS).open("a", encoding="utf-8", buffering=1) as told:
        try:
            train_teacher(wanted, place, "cpu", lambda done: _tell(told, done, parent))
        except Stopped:
            outcome = INTERRUPTED
        except UserError as error:
            outcome, words = BAD_INPUT, str(error)
    (folder / _OUTCOME).write_text(json.dumps({"outcome": outcome, "words": words}), encoding="utf-8")


def _tell(file: IO[str], progress: TrainingProgress, parent: int) -> None:
    file.write(json.dumps(dataclasses.asdict(progress)) + "\n")
    if os.getppid() != parent:
        ask("its driver is gone")
