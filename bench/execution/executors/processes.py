"""One process for each trial: threads pinned, and a crash ends only its own trial."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

from bench.errors import UserError
from bench.execution.base_record import record_failure
from bench.execution.executors import Executor, Watcher, Work, teacher_worker
from bench.execution.executors.fork_server import close_server, fork_server
from bench.execution.executors.teacher_worker import Process, Training
from bench.execution.executors.worker import BAD_INPUT, INTERRUPTED, RECORD, outcome_file
from bench.execution.gpu_memory import GpuPlaces, places_for
from bench.execution.progress import Progress, read_progress, work_folder
from bench.execution.teachers import WantedTeacher
from bench.records import Record, load_record
from bench.records.folder import writing
from bench.spec.trial import Trial
from bench.utils.stopping import Stopped, asked, signal_name

POLL_SECONDS = 0.2
# The worker finds the very modules that this process found, and none in the folder that the user happens to be in.
_WORKER = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from pathlib import Path
from bench.execution.executors.worker import main
main(Path(sys.argv[1]), int(sys.argv[2]))
"""
GRACE_SECONDS = 20.0  # for a worker to save itself, or to notice its own timeout


class Processes(Executor):
    trains_teachers: ClassVar[bool] = True

    def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
        run(trials, work, watcher)


@dataclass
class _Job:
    trial: Trial
    work: Path
    process: Process
    started: float
    killed_for_time: bool = False


def run(trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
    """Run all trials, ``work.workers`` at a time; where somebody asks, the running ones save themselves.

    Missing teachers begin first. A trial waits for its own teachers and for no other, and for room on a GPU.
    """
    waiting, untrained = list(trials), list(work.teachers)
    gpus = places_for(trials, work.gpu, work.needs)
    jobs: list[_Job] = []
    trainings: list[Training] = []
    try:
        while waiting or jobs or untrained or trainings:
            if reason := asked():
                late = _save(jobs, trainings, work, watcher)
                if waiting or jobs or untrained or trainings:
                    jobs.clear()
                    raise Stopped(reason, late)
                return
            free = work.workers - len(jobs) - sum(training.slots for training in trainings)
            while untrained and free >= (slots := min(work.workers, untrained[0].threads)):
                trainings.append(_train(untrained.pop(0), slots, work))
                free -= slots
            while free > 0 and not untrained and (trial := _next(waiting, trainings, gpus)) is not None:
                waiting.remove(trial)
                jobs.append(_start(trial, work, _enter(trial, gpus)))
                watcher.update(trial, Progress())
                free -= 1
            _rest([*jobs, *trainings])
            for training in list(trainings):
                ended = training.process.poll() is not None
                _tell(training, watcher)
                if ended and not asked():
                    trainings.remove(training)
                    training.finish()
            for job in list(jobs):
                if job.process.poll() is not None:
                    if asked():  # whoever stops this run may have told its workers, too
                        break
                    jobs.remove(job)
                    record = _collect(job, work)
                    if gpus is not None and gpus.leave(job.trial, record):
                        waiting.append(job.trial)
                    else:
                        watcher.ended(job.trial, record)
                    continue
                progress = read_progress(job.work)
                if progress is not None:
                    watcher.update(job.trial, progress)
                limit = job.trial.timeout
                if limit is not None and time.monotonic() - job.started > limit + GRACE_SECONDS:
                    job.killed_for_time = True
                    job.process.kill()
    finally:
        _stop([*jobs, *trainings])
        for training in trainings:
            training.clear()


def _next(waiting: Sequence[Trial], trainings: Sequence[Training], gpus: GpuPlaces | None) -> Trial | None:
    """The first trial whose teachers are there, and for which there is room."""
    busy = {training.wanted.key for training in trainings}
    able = (trial for trial in waiting if not busy.intersection(trial.teacher_keys))
    return next((trial for trial in able if gpus is None or gpus.find(trial) is not None), None)


def _enter(trial: Trial, gpus: GpuPlaces | None) -> int | None:
    """The GPU that a trial gets; from now on it is there."""
    number = gpus.find(trial) if gpus is not None else None
    if gpus is not None and number is not None:
        gpus.enter(trial, number)
    return number


def _tell(training: Training, watcher: Watcher) -> None:
    for progress in training.news():
        watcher.teacher(training.wanted.title, progress)


def _rest(running: Sequence[_Job | Training]) -> None:
    """Wait until a worker ends, or for ``POLL_SECONDS`` at most: of short trials, the wait would be a good part."""
    with contextlib.ExitStack() as opened:
        handles = []
        try:
            for each in running:
                handles.append(os.pidfd_open(each.process.pid))
                opened.callback(os.close, handles[-1])
        except ProcessLookupError:
            return  # it has ended
        except (AttributeError, OSError):  # another system, or an old kernel
            time.sleep(POLL_SECONDS)
            return
        select.select(handles, [], [], POLL_SECONDS)


def _start(trial: Trial, work: Work, gpu: int | None) -> _Job:
    folder = work_folder(work.results, trial.id)
    order = {
        "trial": trial.to_json(),
        "results": str(work.results),
        "data_folder": str(work.data_folder) if work.data_folder else None,
        "weights": str(work.weights) if work.weights else None,
        "checkpoint_seconds": work.checkpoint_seconds,
        "gpu": gpu,
        "isolation": work.isolation,
    }
    with writing(folder):
        (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
        (folder / "progress.json").unlink(missing_ok=True)
        outcome_file(folder).unlink(missing_ok=True)
        log = (folder / "log.txt").open("ab")
    with log:
        return _Job(trial, folder, _process(trial, folder, log), time.monotonic())


def _train(wanted: WantedTeacher, slots: int, work: Work) -> Training:
    folder = teacher_worker.new_folder(wanted, work.data_folder)
    try:
        with writing(folder):
            log = teacher_worker.log_of(folder).open("ab")
        with log:
            return Training(wanted, slots, folder, _process(wanted.trial, folder, log))
    except BaseException:
        shutil.rmtree(folder.parent, ignore_errors=True)
        raise


def _process(trial: Trial, folder: Path, log: IO[bytes]) -> Process:
    """A worker for the order in a folder, with the threads of a trial.

    Raises:
        UserError: the system starts no more processes.
    """
    threads = str(trial.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if trial.device.startswith("cuda"):
        environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # A GPU's driver does not outlive a fork.
    try:
        server = fork_server(environment) if trial.device == "cpu" else None
        if server is not None:
            return server.start(folder, environment, log.fileno())
    except OSError:  # it has ended, or did not start: memory ran out, or somebody killed it
        close_server()
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _WORKER, json.dumps(sys.path), str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then asks the workers to stop
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"no worker could be started: {reason}; choose fewer --workers, or free some memory") from error


def _collect(job: _Job, work: Work) -> Record:
    """The record of a trial whose worker has ended."""
    code = job.process.returncode or 0
    folder = work.results / "trials" / job.trial.id
    outcome = _outcome(job)
    if outcome == RECORD:
        return load_record(folder)
    if outcome == BAD_INPUT:
        raise UserError((job.work / "error.txt").read_text(encoding="utf-8"))
    if job.killed_for_time:
        status, reason = "timed_out", f"killed after the study's timeout of {job.trial.timeout:g} s"
    elif code == -signal.SIGKILL:
        status, reason = "out_of_memory", "killed by the system (SIGKILL), most likely out of memory"
    elif outcome == INTERRUPTED:
        status, reason = "crashed", "the process was asked to stop (SIGTERM), and not by this run"
    elif code < 0:
        status, reason = "crashed", f"the process died of {signal_name(-code)}"
    else:
        status, reason = "crashed", f"the process ended with exit code {code} before the trial did"
    record_failure(job.trial, status, reason, work.results, job.work / "log.txt")
    if outcome != INTERRUPTED:  # that one has saved itself
        shutil.rmtree(job.work, ignore_errors=True)
    return load_record(folder)  # a process that dies after its record was written did its work


def _outcome(job: _Job) -> str:
    """How the job's worker says that its trial ended; empty where it said nothing."""
    said = outcome_file(job.work)
    outcome = said.read_text(encoding="utf-8") if said.exists() else ""
    said.unlink(missing_ok=True)
    return outcome


def _save(jobs: list[_Job], trainings: list[Training], work: Work, watcher: Watcher) -> int:
    """Stop the workers. What has ended meanwhile leaves the lists; returns how many others saved nothing now."""
    _stop([*jobs, *trainings])
    late = 0
    for job in list(jobs):
        outcome = _outcome(job)
        if outcome == RECORD:
            jobs.remove(job)
            watcher.ended(job.trial, load_record(work.results / "trials" / job.trial.id))
        late += not outcome
    for training in trainings:
        _tell(training, watcher)
        late += not training.saved
    return late


def _stop(jobs: Sequence[_Job | Training]) -> None:
    """Have the workers save themselves; those that do not manage in time, and all at a second Ctrl-C, are killed."""
    deadline = time.monotonic() + GRACE_SECONDS
    told = -math.inf
    try:
        while time.monotonic() < deadline:
            running = [job for job in jobs if job.process.poll() is None]
            if not running:
                break
            if time.monotonic() - told > 1.0:  # again and again: one that has just started does not listen yet
                told = time.monotonic()
                for job in running:
                    job.process.terminate()
            time.sleep(0.02)
    finally:
        for job in jobs:
            if job.process.poll() is None:
                job.process.kill()
                job.process.wait()
