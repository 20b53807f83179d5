"""The process of one trial."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

RECORD, INTERRUPTED, BAD_INPUT = "record", "interrupted", "bad input"


def outcome_file(folder: Path) -> Path:
    """Where a worker says how its trial ended; beside the trial's work folder, which goes with the record.

    The exit code says nothing: a method may end the process with any.
    """
    return folder.with_name(f".{folder.name}.outcome")


def main(folder: Path) -> None:
    """Run the trial that the folder's order describes, and say how it ended."""
    import torch

    from bench.errors import UserError
    from bench.execution.isolation import isolated
    from bench.execution.progress import write_progress
    from bench.execution.run_trial import Setting, run_trial
    from bench.execution.status import Interrupted
    from bench.harness.isolation.template import use_fork
    from bench.spec.trial import Trial
    from bench.utils.memory import keep_freed_memory

    keep_freed_memory()
    order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
    how = isolated(order["isolation"], order["trial"]["device"])
    if how.way is not None:
        use_fork()  # before this process knows anything that a method must not
    asked: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the user's goes to the parent
    if order["gpu"] is not None:
        torch.cuda.set_device(order["gpu"])
    setting = Setting(
        results=Path(order["results"]),
        data_folder=Path(order["data_folder"]) if order["data_folder"] else None,
        weights=Path(order["weights"]) if order["weights"] else None,
        checkpoint_seconds=order["checkpoint_seconds"],
        report=lambda progress: write_progress(folder, progress),
        stop=lambda: bool(asked) or os.getppid() != order["parent"],  # an orphan saves itself and makes room
        isolation=how.way,
        not_isolated=how.why,
    )
    outcome = RECORD
    try:
        run_trial(Trial.from_json(order["trial"]), setting)
    except Interrupted:
        outcome = INTERRUPTED
    except UserError as error:
        (folder / "error.txt").write_text(str(error), encoding="utf-8", errors="backslashreplace")
        outcome = BAD_INPUT
    outcome_file(folder).write_text(outcome, encoding="utf-8")
