"""What runs on the nodes of a Ray cluster: a task for each trial.

A task works on its trial's order as any worker does, with the trial in a process of its own. So Ray's threads, patches
and environment are not the trial's, and Ray's worker, which keeps a process with torch to fork trials from, serves one
trial after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.execution.progress import Progress
from bench.execution.ray_cluster import Key
from bench.execution.transport import take_saved, write_answer
from bench.execution.work_order import ERROR, REFUSED, work_on
from bench.harness.teachers.progress import TrainingProgress
from bench.records import Record
from bench.spec.trial import Trial
from bench.utils.scratch import scratch_folder
from bench.utils.stopping import Stopped, ask

TELL_SECONDS = 0.5  # between messages of a trial without a new checkpoint
DRIVER = "the driver"


def work(order: Sequence[Any], key: Key, mailbox: Any, niceness: int) -> tuple[bytes, str]:
    """Work on an order for one trial; the answer, or why this node cannot work on it.

    The answer holds the trial's record, its checkpoint where the driver wants it to stop, or nothing yet. ``order`` is
    Ray's reference to the content of the order, alone in a list.
    """
    import ray

    with contextlib.suppress(OSError):  # Ray's workers are nicer; only some may be less nice again
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    with scratch_folder("dfkd-ray-") as folder:
        watcher = _Telling(folder / "worker" / "results", key, mailbox)
        if not watcher.wants_to_stop(Progress()):
            (folder / "order.tar").write_bytes(ray.get(order[0]))
            with contextlib.suppress(Stopped):
                # Ray's own handler of SIGTERM stays: it ends the worker, and the driver has the last checkpoint.
                code = work_on(folder / "order.tar", folder / "worker", watcher=watcher, signals=())
                if code == REFUSED:
                    return b"", (folder / "worker" / ERROR).read_text(encoding="utf-8")
        write_answer(folder / "answer.tar", folder / "worker" / "results", key[0])
        return (folder / "answer.tar").read_bytes(), ""


class _Telling:
    """Sends the driver a trial's progress and each new checkpoint; in the worker's own thread, and not the trial's."""

    def __init__(self, results: Path, key: Key, mailbox: Any) -> None:
        self._results, self._key, self._mailbox = results, key, mailbox
        self._told = 0.0
        self._sent: tuple[int, int] | None = None

    def wants_to_stop(self, progress: Progress, answer: bytes = b"") -> bool:
        import ray

        self._told = time.monotonic()
        return bool(ray.get(self._mailbox.tell.remote(self._key, dataclasses.asdict(progress), answer)))

    def teacher(self, task: str, progress: TrainingProgress) -> None:
        del task, progress  # an order holds its teacher: none is trained here

    def update(self, trial: Trial, progress: Progress) -> None:
        del trial
        answer = self._new_checkpoint()
        if (answer or time.monotonic() - self._told > TELL_SECONDS) and self.wants_to_stop(progress, answer):
            ask(DRIVER)

    def ended(self, trial: Trial, record: Record) -> None:
        del trial, record

    def _new_checkpoint(self) -> bytes:
        """An answer with the checkpoint, if it is a new one; it is sent whole, or at the next look."""
        name = self._key[0]
        file = self._results / "work" / name / "checkpoint.pt"
        with contextlib.suppress(FileNotFoundError), tempfile.TemporaryDirectory(dir=self._results.parent) as copy:
            there = _stamp(file)
            if there == self._sent:
                return b""
            take_saved(file.parent, Path(copy), name)
            if _stamp(file) == there:  # otherwise the copy may lack what the newer one needs
                write_answer(Path(copy) / "answer.tar", Path(copy), name)
                self._sent = there
                return (Path(copy) / "answer.tar").read_bytes()
        return b""


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_ino
