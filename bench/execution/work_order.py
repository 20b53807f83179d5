"""``python -m bench.execution.work_order ORDER FOLDER [EARLIER ...]``: a worker, which knows an order and nothing else.

It runs the order's trials into ``FOLDER/results``, each in a process of its own. EARLIER are the folders of attempts
before: what ended there is not run again, and what was saved there goes on. SIGTERM and SIGUSR1 save what runs.
Exit code: 0 all have ended, 2 the order cannot be worked on (``FOLDER/error.txt`` says why), 75 stopped and saved.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UserError
from bench.execution.executors import Watcher, Work, get_executor
from bench.execution.progress import Progress
from bench.execution.transport import open_order, take_saved
from bench.harness.teachers.progress import TrainingProgress
from bench.records import Record
from bench.records.foreign import is_there
from bench.spec.trial import Trial
from bench.utils.stopping import SIGNALS, Stopped, listening

DONE, REFUSED, SAVED = 0, 2, 75
ERROR = "error.txt"


class _Quiet:
    def teacher(self, task: str, progress: TrainingProgress) -> None:
        pass

    def update(self, trial: Trial, progress: Progress) -> None:
        pass

    def ended(self, trial: Trial, record: Record) -> None:
        print(f"{record.status} {trial.id}", flush=True)


def work_on(
    file: Path,
    folder: Path,
    earlier: Sequence[Path] = (),
    workers: int = 1,
    watcher: Watcher | None = None,
    signals: Sequence[signal.Signals] = SIGNALS,
) -> int:
    """Work on an order in a new folder; the exit code.

    Args:
        file: the order.
        folder: made if needed.
        earlier: the folders of attempts before.
        workers: trials at a time.
        watcher: told how they come along; without one, their ends are printed.
        signals: which of them save what runs.

    Raises:
        Stopped: a signal came, or the watcher asked for it, and what ran is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    try:
        with listening(signals=signals):
            results = folder.resolve() / "results"
            order = open_order(file.resolve(), folder.resolve() / "order", results)
            waiting = [trial for trial in order.trials if not _ended(trial, earlier)]
            for trial in waiting:
                _take_last(trial, [before.resolve() / "results" for before in earlier], results)
            os.chdir(order.folder)
            around = (order.data_folder, order.checkpoint_seconds, workers, None, order.weights, order.isolation)
            work = Work(results, *around)
            get_executor("processes")(waiting, work, watcher or _Quiet())
    except UserError as error:
        part = folder / f".{ERROR}"
        part.write_text(str(error), encoding="utf-8", errors="backslashreplace")
        part.replace(folder / ERROR)
        print(error, file=sys.stderr, flush=True)
        return REFUSED
    finally:
        os.chdir(before)
    return DONE


def _ended(trial: Trial, earlier: Sequence[Path]) -> bool:
    return any((before / "results" / "trials" / trial.id / "record.json").is_file() for before in earlier)


def _take_last(trial: Trial, earlier: Sequence[Path], results: Path) -> None:
    """Go on from the latest checkpoint of all attempts: one that was given up may still be alive."""
    saved = [place / "work" / trial.id for place in (*earlier, results)]
    there = [folder for folder in saved if is_there(folder / "checkpoint.pt")]
    if there:
        latest = max(there, key=lambda folder: (folder / "checkpoint.pt").stat().st_mtime)
        if latest.parent.parent != results:
            take_saved(latest, results, trial.id)


def main() -> None:
    """Start as a process."""
    order, folder, *earlier = map(Path, sys.argv[1:])
    try:
        code = work_on(order, folder, earlier)
    except Stopped as stop:
        print(f"stopped ({stop.reason}), and saved", flush=True)
        code = SAVED
    sys.exit(code)


if __name__ == "__main__":
    main()
