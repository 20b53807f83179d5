"""One trial after the other in this process: the simplest way, and the one to debug a method with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from bench.execution.executors import Executor, Watcher, Work, processes
from bench.execution.isolation import isolated
from bench.execution.progress import Progress, write_progress
from bench.execution.run_trial import Setting, run_trial
from bench.execution.status import Interrupted
from bench.spec.trial import Trial
from bench.utils.stopping import Stopped, asked


class Inline(Executor):
    def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
        run(trials, work, watcher)


def run(trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
    """Run all trials; where somebody asks, the current one saves itself after its step, and no other begins."""
    if work.gpu is not None:
        torch.cuda.set_device(work.gpu)
    for place, trial in enumerate(trials):
        if reason := asked():
            raise Stopped(reason)
        how = isolated(work.isolation, trial.device)
        setting = Setting(
            results=work.results,
            data_folder=work.data_folder,
            weights=work.weights,
            checkpoint_seconds=work.checkpoint_seconds,
            report=partial(_report, trial, work, watcher),
            stop=lambda: bool(asked()),
            isolation=how.way,
            not_isolated=how.why,
        )
        try:
            record = run_trial(trial, setting)
        except Interrupted:
            raise Stopped(asked()) from None
        watcher.ended(trial, record)
        if setting.lasting and (rest := trials[place + 1 :]):
            # What a method left in this process cannot be undone, and would reach into the next trial.
            processes.run(rest, replace(work, workers=1), watcher)
            return


def _report(trial: Trial, work: Work, watcher: Watcher, progress: Progress) -> None:
    write_progress(work.results / "work" / trial.id, progress)  # for `dfkd status` elsewhere
    watcher.update(trial, progress)
