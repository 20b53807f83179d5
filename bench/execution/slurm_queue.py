"""Talking to Slurm's commands: ``sbatch``, ``squeue``, ``scancel`` and ``scontrol``. Imports no torch."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.utils.text import shown

PREFIX = "slurm-"  # of the folders of jobs below a results folder's work/
JOB = "job.txt"
SECONDS = 60.0  # a command may take so long: the controller of a busy site is slow


@dataclass(frozen=True)
class Task:
    """A task of an array job in the queue: its own id, and its state and reason in Slurm's words."""

    id: str
    state: str
    reason: str


def submit(script: Path) -> str:
    """Hand a script to ``sbatch``; the id of the array job.

    Raises:
        UserError: there is no ``sbatch``, or it refuses, in its own words.
    """
    done = _call("sbatch", "--parsable", str(script))
    if done.returncode:
        raise UserError(f"sbatch refuses {script}: {shown(done.stderr.strip())[:500]}")
    return done.stdout.strip().partition(";")[0]


def tasks_of(job: str) -> list[Task] | None:
    """The tasks of a job that are in the queue; None where nobody can tell at the moment."""
    done = _call("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%i|%T|%r")
    if done.returncode:
        return [] if "Invalid job id" in done.stderr else None
    return [Task(*line.strip().split("|", 2)) for line in done.stdout.splitlines() if line.count("|") >= 2]


def job_named(name: str) -> str | None:
    """The id of the job with a name, where it is in the queue."""
    done = _call("squeue", "--noheader", f"--name={name}", "--format=%F")
    return next(iter(done.stdout.split()), None)


def start_again(tasks: Sequence[Task]) -> None:
    """Have tasks that were requeued wait no longer: Slurm holds them back for two minutes."""
    for task in tasks:
        if task.state == "PENDING" and task.reason == "BeginTime":
            _call("scontrol", "update", f"JobId={task.id}", "StartTime=now")


def requeue(task: str) -> None:
    """Put a running task back into the queue. It is killed, and begins again."""
    _call("scontrol", "requeue", task)


def stop(job: str) -> None:
    """Take a job's waiting tasks from the queue, and tell the running ones to save themselves."""
    _call("scancel", "--state=PENDING", job)
    _call("scancel", "--signal=USR1", "--batch", job)


def queue_words(results: Path) -> list[str]:
    """A sentence on each Slurm job of a results folder that is in the queue."""
    found = []
    for file in sorted((results / "work").glob(f"{PREFIX}*/{JOB}")):
        if shutil.which("squeue") is None:
            return ["its trials are in a Slurm queue, which cannot be asked here: there is no squeue"]
        job = file.read_text(encoding="ascii", errors="replace").strip()
        tasks = tasks_of(job) if job.isdecimal() else []
        if tasks is None:
            found.append(f"Slurm job {job}: the queue does not answer")
        elif tasks:
            states = Counter(task.state.lower() for task in tasks)
            counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            found.append(f"Slurm job {job}: {counts}")
    return found


def _call(command: str, *words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command) is None:
        raise UserError(f"there is no `{command}` here: the executor slurm runs where Slurm's commands are")
    try:
        return subprocess.run(
            [command, *words], capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([command], 1, "", f"{command} did not answer")
