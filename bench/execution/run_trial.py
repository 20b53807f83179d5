"""One trial, from its identity to its record."""

from __future__ import annotations

import contextlib
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.data import protected_paths
from bench.errors import AccessDenied, DataLeak, Diverged
from bench.execution.base_record import base_record
from bench.execution.finalize import FinishedTrial, artifacts, judged
from bench.execution.isolated_trial import IsolatedTrial, start_method
from bench.execution.isolation import ASKED
from bench.execution.prepare import PreparedTrial, prepare
from bench.execution.progress import Progress, work_folder
from bench.execution.status import Ending, Interrupted, TimedOut, ending_of
from bench.harness import checkpoint, data_guard
from bench.harness.checkpoint import load_checkpoint, save_checkpoint
from bench.harness.evaluation import Judge
from bench.harness.isolation.template import MethodProcess
from bench.harness.learning_curve import Curve
from bench.harness.peak_memory import peak_memory_mib, reset_peak_memory
from bench.harness.session import session_for
from bench.harness.teachers.cache import weights_hash
from bench.harness.trial_context import BudgetSpent, Hooks, TrialContext
from bench.records import Record, write_trial
from bench.spec.method import Method
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import card_of
from bench.spec.trial import Trial
from bench.utils.confinement import Way
from bench.utils.paths import teacher_folder

CHECKPOINT_SECONDS = 30.0


@dataclass
class Setting:
    """Everything around a trial that changes nothing about its outcome."""

    results: Path
    data_folder: Path | None = None
    weights: Path | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    report: Callable[[Progress], None] = lambda progress: None  # noqa: ARG005
    inspect: Callable[[TrialContext], None] = lambda context: None  # noqa: ARG005
    stop: Callable[[], bool] = lambda: False
    isolation: Way | None = None  # how the method's process is confined; None: it runs in this process
    not_isolated: str = ASKED  # why it does
    watch: Callable[[IsolatedTrial], None] | None = None  # as inspect, for a method in another process


def run_trial(trial: Trial, setting: Setting) -> Record:
    """Run a trial to its record, going on from its last checkpoint if there is one.

    Every failure of the method becomes a record with a status. Only an interruption and a mistake of the user's (a
    results folder that cannot be written, a method file that does not load) are raised.
    """
    work = work_folder(setting.results, trial.id)
    card = card_of(trial)
    started = time.perf_counter()
    ending = Ending()
    running: _RunningTrial | IsolatedTrial | None = None
    process: MethodProcess | None = None
    try:
        if setting.isolation is not None:
            process = start_method(trial, card, setting, setting.isolation, work / "log.txt")
            prepared = prepare(trial, card, work, setting.data_folder, setting.report, isolated=True)
            running = IsolatedTrial(prepared, setting, started, process)
        else:
            prepared = prepare(trial, card, work, setting.data_folder, setting.report)
            running = _RunningTrial(prepared, setting, started)
        running.play()
    except (Exception, SystemExit, DataLeak, AccessDenied, Diverged, TimedOut) as error:
        ended = ending_of(error, card.file)
        if ended is None:
            raise
        ending = ended
        with (work / "log.txt").open("a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)))
    finally:
        if process is not None:
            process.end()
    return _finish(trial, card, work, running, ending, setting)


class _RunningTrial:
    """A trial whose method runs: evaluated, saved, resumed and stopped on the way."""

    def __init__(self, prepared: PreparedTrial, setting: Setting, started: float) -> None:
        self.prepared = prepared
        self.setting = setting
        self.started = started  # as time.perf_counter() has it; the study's timeout counts from here
        self.resumed = 0
        self._saved = time.perf_counter()
        self._shown = 0.0
        self._checkpoint = load_checkpoint(prepared.work, prepared.trial.id)
        self._teacher_hash = weights_hash(prepared.teacher.network)
        self.context = TrialContext(
            image=prepared.task.image,
            teacher=prepared.teacher.network,
            student=prepared.student,
            budget=prepared.budget,
            access=prepared.method.access,
            data=prepared.method.data,
            device=prepared.device,
            seed=prepared.trial.seed,
            real=prepared.real,
            augment=prepared.task.augment,
            precision=prepared.trial.precision,
            anchors=prepared.anchors,
            fresh_teacher=prepared.fresh_teacher,
            hooks=Hooks(after_step=self._after_step, on_phase=self._on_phase, on_keep=self._on_keep),
            skip_phases=() if self._checkpoint is None else tuple(self._checkpoint["context"]["phases"][:-1]),
        )
        self.judge = Judge(
            prepared.student,
            prepared.teacher.network,
            prepared.dataset.test,
            prepared.task.image,
            prepared.device,
            prepared.dataset.classes,
        )
        selects = "teacher_agreement" in prepared.trial.selection
        self.curve = Curve(self.context, self.judge, prepared.trial.points, prepared.work, selects)

    def play(self) -> None:
        """Run the method inside the fence until it returns or its budget is spent."""
        prepared, context = self.prepared, self.context
        session = session_for(prepared.task.image, prepared.classes, prepared.dataset.dense)
        method = prepared.method
        assert isinstance(method, Method)
        options = method.make_options(prepared.trial.options)
        self.setting.inspect(context)
        reset_peak_memory(context.device)
        with context, self._fence(), _autocast(prepared.trial, context.device):
            context.clock.start()
            try:
                method.run(session, options)
            except BudgetSpent:
                pass
            finally:
                context.clock.stop()
        context.check_finite(now=True)
        self.curve.close()
        if weights_hash(prepared.teacher.network) != self._teacher_hash:
            raise AccessDenied("the method changed the teacher's weights or statistics")

    @contextlib.contextmanager
    def _fence(self) -> Iterator[None]:
        kept_images = self.setting.results  # a method with data leaves real images there
        with data_guard.fenced([*protected_paths(self.setting.data_folder), kept_images], [teacher_folder()]):
            yield

    def _on_keep(self, name: str, thing: Any) -> None:
        """While resuming, code before the resumed loop already sees the saved state."""
        if self._checkpoint is not None and name in self._checkpoint["context"]["kept"]:
            checkpoint.restore_into(thing, self._checkpoint["context"]["kept"][name])

    def _on_phase(self, phase: str) -> None:
        if self._checkpoint is not None and phase == self._checkpoint["context"]["phases"][-1]:
            self.context.restore(self._checkpoint["context"])
            self.curve.restore(self._checkpoint["curve"])
            self.resumed = int(self._checkpoint["resumed"]) + 1
            self._checkpoint = None
        elif self._checkpoint is None:
            self._pause(self.curve.begin)

    def _after_step(self) -> None:
        due = self.curve.due()
        now = time.perf_counter()
        stop = self.setting.stop()
        timeout = self.prepared.trial.timeout
        if due:
            self._pause(self.curve.evaluate)
        if stop or now - self._saved > self.setting.checkpoint_seconds:
            self._pause(self._save)
            self._saved = time.perf_counter()
        if stop:
            raise Interrupted
        if timeout is not None and now - self.started > timeout:
            raise TimedOut(f"ran longer than the study's timeout of {timeout:g} s")
        if due or now - self._shown > 0.25:
            self._shown = now
            self._pause(self._show)

    def _show(self) -> None:
        seconds = self.context.meter.seconds
        self.setting.report(Progress("running", self.context.progress, self.curve.latest, seconds))

    def _pause(self, work: Callable[[], None]) -> None:
        """Do the harness's own work: the clock stands still, the fence is lifted."""
        running = self.context.clock.stop()
        before = time.perf_counter()
        with data_guard.lifted():
            work()
        self.context.meter.evaluation_seconds += time.perf_counter() - before
        if running:
            self.context.clock.start()

    def _save(self) -> None:
        state = {"context": self.context.state(), "curve": self.curve.state(), "resumed": self.resumed}
        save_checkpoint(self.prepared.work, self.prepared.trial.id, state)

    def measured(self, ending: Ending) -> dict[str, Any]:
        """The fields of the record that every trial has whose method began."""
        prepared, context = self.prepared, self.context
        context.meter.peak_memory_mib = peak_memory_mib(context.device)
        spent, unit = context.budget.progress(context.meter)
        names = ("sha256", "network", "recipe", "seed", "score")
        values = {
            "teacher": {name: prepared.teacher.passport[name] for name in names},
            "meter": context.meter.as_record(),
            "resumed": self.resumed,
        }
        if ending.status == "ok":
            values["stopped_by"] = unit if spent >= 1.0 else "method"
        return values


def _finish(
    trial: Trial,
    card: MethodCard,
    work: Path,
    running: _RunningTrial | IsolatedTrial | None,
    ending: Ending,
    setting: Setting,
) -> Record:
    """Write the record, whole or not at all, and clear the work folder."""
    values = base_record(trial, card, ending.status, ending.reason)
    values["provenance"]["isolation"] = _isolation(running, setting)
    files: dict[str, Path] = {}
    rows: list[dict[str, Any]] = []
    if running is not None:
        dataset = running.prepared.dataset
        values |= running.measured(ending)
        values["provenance"]["data"] = {"fingerprint": dataset.fingerprint, "altered": list(dataset.altered)}
        if ending.status == "ok":
            ended = FinishedTrial(running.prepared, running.context, running.judge, running.curve)
            values |= judged(ended, setting.weights)
            if values["status"] == "ok":
                files = artifacts(ended)
        rows = running.curve.rows
    if (work / "log.txt").exists() and (setting.isolation is None or (work / "log.txt").stat().st_size):
        files["log.txt"] = work / "log.txt"
    record = Record.model_validate(values)
    write_trial(setting.results, record, rows, files)
    shutil.rmtree(work, ignore_errors=True)
    setting.report(Progress(record.status, 1.0, record.scores.get(record.headline), record.meter.seconds))
    return record


def _isolation(running: _RunningTrial | IsolatedTrial | None, setting: Setting) -> dict[str, Any]:
    """For the record's provenance."""
    if isinstance(running, IsolatedTrial):
        return running.isolation()
    if setting.isolation is not None:
        return {"mode": "process", "enforced_by": ""}
    return {"mode": "none", "why": setting.not_isolated}


def _autocast(trial: Trial, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if trial.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, trial.precision))
