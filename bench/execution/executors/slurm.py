"""Array jobs of Slurm: each task works on an order in a folder of its own, and the driver takes over what has ended.

An attempt that Slurm has given up may still be alive: the folder is named by the job and its restart count."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

from bench.errors import UserError
from bench.execution import slurm_queue as queue
from bench.execution.durations import time_limit
from bench.execution.executors import Executor, Watcher, Work
from bench.execution.parts import split
from bench.execution.progress import Progress, read_progress
from bench.execution.transport import accept, write_order
from bench.records.folder import writing
from bench.spec.trial import Trial
from bench.utils.stopping import Stopped, asked, seconds_of
from bench.utils.yaml import SIZE

GRACE_SECONDS = 150.0  # for tasks to save themselves when the driver is asked to stop
CLOSING_SECONDS = 30.0  # for tasks to leave the queue after their last trial


def _seconds(value: object, field: ValidationInfo) -> object:
    return seconds_of(value, f"executor slurm: {field.field_name}") if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_seconds)]


class Slurm(Executor):
    partition: str = Field("", description="the partition; the site's default if not given")
    account: str = Field("", description="the account that is charged")
    qos: str = Field("", description="the quality of service")
    time: Duration = Field(0.0, ge=0, description="the limit of a task, such as 2h; from the budgets if not given")
    parts: int = Field(8, ge=1, le=10_000, description="tasks of the array")
    cpus: int = Field(1, ge=1, description="cores of a task, which runs as many trials at a time as fit")
    gpus: int = Field(0, ge=0, description="GPUs of a task")
    memory: str = Field("", pattern=SIZE, description="memory of a task, such as 8G")
    poll: Duration = Field(5.0, gt=0, description="seconds between looks at the queue")

    def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
        left = {trial.id: trial for trial in trials}
        jobs = sorted((work.results / "work").glob(f"{queue.PREFIX}*"))  # a driver that was killed left them
        while True:
            live = [folder for folder in jobs if not self._look(folder, left, work, watcher)]
            ordered = {name for folder in live for name in (folder / "trials.txt").read_text().split()}
            if not left:
                self._drain(live, left, work, watcher, CLOSING_SECONDS)
                return
            if reason := asked():
                raise Stopped(reason, self._stop(live, left, work, watcher))
            if waiting := [trial for name, trial in left.items() if name not in ordered]:
                gone = [folder for folder in jobs if folder not in live]
                if vain := [folder for folder in gone if not _seen(folder)]:
                    raise UserError(f"a Slurm job ended, and no trial came forward in it; see {vain[0]}/log-*.txt")
                live.append(self._submit(waiting, work))
                for folder in gone:  # what it had is in the new orders
                    shutil.rmtree(folder, ignore_errors=True)
            jobs = live
            watcher.update(next(iter(left.values())), Progress("queued"))
            time.sleep(self.poll)

    def dry_run(self, trials: Sequence[Trial], work: Work) -> str:
        return self._script(work.results / "work" / f"{queue.PREFIX}ID", trials, min(self.parts, len(trials)))

    def _submit(self, trials: Sequence[Trial], work: Work) -> Path:
        folder = (work.results / "work" / f"{queue.PREFIX}{secrets.token_hex(4)}").resolve()
        parts = split(trials, min(self.parts, len(trials)))
        with writing(work.results):
            (folder / "orders").mkdir(parents=True)
            for number, part in enumerate(parts, 1):
                write_order(folder / "orders" / f"{number}.tar", part, work)
            (folder / "trials.txt").write_text("\n".join(trial.id for trial in trials), encoding="ascii")
            (folder / "script.sh").write_text(self._script(folder, trials, len(parts)), encoding="utf-8")
            (folder / queue.JOB).write_text(queue.submit(folder / "script.sh"), encoding="ascii")
        return folder

    def _script(self, folder: Path, trials: Sequence[Trial], parts: int) -> str:
        workers = max(1, self.cpus // max(trial.threads for trial in trials))
        seconds = self.time or time_limit(trials, parts * workers)
        given = {
            "job-name": folder.name,
            "array": f"1-{parts}",
            "output": f"{folder.resolve()}/log-%a.txt",
            "open-mode": "append",
            "signal": "B:USR1@120",
            "cpus-per-task": self.cpus,
            "time": -(-int(seconds) // 60) if seconds else "",  # minutes
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "gres": f"gpu:{self.gpus}" if self.gpus else "",
            "mem": self.memory,
        }
        lines = [f"#SBATCH --{name}={value}" for name, value in given.items() if value != ""]
        path = shlex.quote(os.pathsep.join(place for place in sys.path if place))
        task = shlex.join([sys.executable, "-m", "bench.execution.slurm_task", str(folder.resolve())])
        export = f"export PYTHONPATH={path} DFKD_WORKERS={workers}"
        return "\n".join(["#!/bin/bash", *lines, "#SBATCH --requeue", export, f"exec {task}", ""])  # it gets the signal

    def _look(self, folder: Path, left: dict[str, Trial], work: Work, watcher: Watcher) -> bool:
        """Take over what has ended in a job, and what is saved once it is gone; whether it is gone."""
        file = folder / queue.JOB
        job = file.read_text(encoding="ascii") if file.exists() else queue.job_named(folder.name)
        tasks = queue.tasks_of(job) if job else []
        queue.start_again(tasks or [])
        if not (folder / "trials.txt").exists():  # a driver was killed while it wrote the orders
            shutil.rmtree(folder, ignore_errors=True)
            return True
        attempts = sorted(folder.glob("tasks/*/results"), key=lambda place: place.stat().st_mtime)
        for name in (folder / "trials.txt").read_text(encoding="ascii").split():
            for answer in attempts if name in left else ():
                ended = (answer / "trials" / name).is_dir()
                if not ended and (progress := read_progress(answer / "work" / name)) is not None and tasks:
                    watcher.update(left[name], progress)
                if (ended or tasks == []) and (record := accept(answer, left[name], work.results)) is not None:
                    watcher.ended(left.pop(name), record)
                    break
        if tasks == [] and (said := next(folder.glob("tasks/*/error.txt"), None)) is not None:
            words = said.read_text(encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"a task of Slurm job {job} cannot work here: {words}")
        if tasks == [] and not any(name in left for name in (folder / "trials.txt").read_text().split()):
            shutil.rmtree(folder, ignore_errors=True)
        return tasks == []

    def _stop(self, live: list[Path], left: dict[str, Trial], work: Work, watcher: Watcher) -> int:
        """Have the tasks save themselves and take over what they saved; how many jobs did not manage in time."""
        for folder in live:
            (folder / "stop").touch()
            queue.stop((folder / queue.JOB).read_text(encoding="ascii"))
        return len(self._drain(live, left, work, watcher, GRACE_SECONDS))

    def _drain(self, live: list[Path], left: dict[str, Trial], work: Work, watcher: Watcher, wait: float) -> list[Path]:
        """Wait for jobs to leave the queue; those that have not in time."""
        deadline = time.monotonic() + wait
        while live and time.monotonic() < deadline:
            time.sleep(min(1.0, self.poll))
            live = [folder for folder in live if not self._look(folder, left, work, watcher)]
        return live


def _seen(folder: Path) -> bool:
    """Whether a job that is gone brought its trials forward, or was stopped by its driver."""
    done = (*folder.glob("tasks/*/results/trials/*"), *folder.glob("tasks/*/results/work/*/checkpoint.pt"))
    return not folder.exists() or (folder / "stop").exists() or any(done)
