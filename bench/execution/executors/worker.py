"""The process of one trial."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import NoneType
from typing import Any

from bench.errors import UserError
from bench.execution.executors import teacher_worker
from bench.records.foreign import parse, read_text
from bench.spec.trial import Trial
from bench.utils.stopping import Stopped, asked, listening
from bench.utils.text import shown

_KINDS: dict[str, tuple[type, ...]] = {
    "results": (str,),
    "data_folder": (str, NoneType),
    "weights": (str, NoneType),
    "gpu": (int, NoneType),
    "isolation": (str,),
    "checkpoint_seconds": (int, float),
}
RECORD, INTERRUPTED, BAD_INPUT = "record", "interrupted", "bad input"


def outcome_file(folder: Path) -> Path:
    """Where a worker says how its trial ended; beside the trial's work folder, which goes with the record.

    The exit code says nothing: a method may end the process with any.
    """
    return folder.with_name(f".{folder.name}.outcome")


def main(folder: Path, parent: int) -> None:
    """Run the trial, or train the teacher, that the folder's order describes, and say how it ended.

    ``parent`` is the process that started this one: when it is gone, the trial saves itself and makes room.
    """
    with listening(signals=(signal.SIGTERM, signal.SIGUSR1)):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the user's goes to the parent
        if teacher_worker.is_order(folder):
            teacher_worker.run(folder, parent)
        else:
            _run(folder, parent)


def _run(folder: Path, parent: int) -> None:
    import torch

    from bench.execution.isolation import isolated
    from bench.execution.progress import write_progress
    from bench.execution.run_trial import Setting, run_trial
    from bench.execution.status import Interrupted
    from bench.harness.isolation.template import use_fork
    from bench.utils.memory import keep_freed_memory

    try:
        trial, order = read_order(folder)
    except UserError as error:
        return _say(folder, BAD_INPUT, error)
    keep_freed_memory()
    how = isolated(order["isolation"], trial.device)
    if how.way is not None:
        use_fork()  # before this process knows anything that a method must not
    if order["gpu"] is not None:
        torch.cuda.set_device(order["gpu"])
    setting = Setting(
        results=Path(order["results"]),
        data_folder=Path(order["data_folder"]) if order["data_folder"] else None,
        weights=Path(order["weights"]) if order["weights"] else None,
        checkpoint_seconds=order["checkpoint_seconds"],
        report=lambda progress: write_progress(folder, progress),
        stop=lambda: bool(asked()) or os.getppid() != parent,
        isolation=how.way,
        not_isolated=how.why,
    )
    outcome = RECORD
    try:
        if asked():
            raise Interrupted
        run_trial(trial, setting)
    except (Interrupted, Stopped):
        outcome = INTERRUPTED
    except UserError as error:
        return _say(folder, BAD_INPUT, error)
    return _say(folder, outcome)


def read_order(folder: Path) -> tuple[Trial, dict[str, Any]]:
    """The trial of a work folder's ``order.json``, and the order.

    Raises:
        UserError: it is no order, or for another trial than the folder's.
    """
    file = folder / "order.json"
    order = parse(read_text(file), str(file))
    try:
        trial = Trial.from_json(order["trial"])
        wrong = [name for name, kinds in _KINDS.items() if not isinstance(order[name], kinds)]
        found = trial.id
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is no order for a trial: {shown(str(error).partition(chr(10))[0])[:200]}") from None
    if wrong or found != folder.name:
        raise UserError(
            f"{file} is no order for the trial {folder.name}" + (f": {wrong[0]!r} is wrong" if wrong else "")
        )
    return trial, order


def _say(folder: Path, outcome: str, error: UserError | None = None) -> None:
    if error is not None:
        (folder / "error.txt").write_text(str(error), encoding="utf-8", errors="backslashreplace")
    outcome_file(folder).write_text(outcome, encoding="utf-8")
