"""One trial, from its identity to its record."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError

from bench.errors import AccessDenied, UserError
from bench.execution.base_record import base_record
from bench.execution.finalize import FinishedTrial, artifacts, judged
from bench.execution.isolated_trial import IsolatedTrial, start_method
from bench.execution.isolation import ASKED
from bench.execution.live_trial import LiveTrial
from bench.execution.prepare import PreparedTrial, prepare
from bench.execution.progress import Progress, progress_files, work_folder
from bench.execution.status import Ending, Interrupted, ending_of
from bench.harness import checkpoint
from bench.harness.checkpoint import save_checkpoint
from bench.harness.isolation.template import MethodProcess
from bench.harness.peak_memory import reset_peak_memory
from bench.harness.precision import computing
from bench.harness.process_state import ProcessState
from bench.harness.sealed import alone
from bench.harness.session import session_for
from bench.harness.teachers.cache import weights_hash
from bench.harness.trial_context import BudgetSpent, Hooks, TrialContext
from bench.records import Record, write_trial
from bench.spec.method import Method
from bench.spec.method_card import MethodCard
from bench.spec.method_fence import method_fence
from bench.spec.method_registry import card_of
from bench.spec.task import get_task
from bench.spec.trial import Trial
from bench.utils.confinement import Way
from bench.utils.data_guard import lifted
from bench.utils.tracebacks import told

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
    lasting: list[str] = field(default_factory=list)  # what methods changed of the process and nobody can undo
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
    running: _TrialInProcess | IsolatedTrial | None = None
    process: MethodProcess | None = None
    with _noticing_ctrl_c() as asked:
        try:
            with contextlib.ExitStack() as around:
                if setting.isolation is not None:
                    process = start_method(trial, card, setting, setting.isolation, work / "log.txt")
                    prepared = prepare(trial, card, work, setting.data_folder, setting.report, isolated=True)
                    running = IsolatedTrial(prepared, setting, started, process)
                else:
                    guard = _Guard(trial, setting, around)
                    prepared = prepare(trial, card, work, setting.data_folder, setting.report, guard.begin)
                    running = _TrialInProcess(prepared, setting, started, guard.state)
                running.play()
        except BaseException as error:
            users = isinstance(error, KeyboardInterrupt) and (
                bool(asked) or setting.stop() or setting.isolation is not None
            )
            if users or (isinstance(error, Interrupted) and running is not None and running.stopping):
                raise
            # What the method's own process raised comes here in words of the judge's, who raises it himself.
            from_method = isinstance(running, _TrialInProcess) and error is not running.own_error
            ended = ending_of(error, card.file, from_method=from_method)
            if ended is None:
                raise
            ending = ended
            with (work / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as log:
                log.write(_traceback(error))
        finally:
            if process is not None:
                process.end()
    return _finish(trial, card, work, running, ending, setting)


class _Guard:
    """Puts up the fence before the method's file is run, and afterwards undoes what the method did to the process."""

    def __init__(self, trial: Trial, setting: Setting, around: contextlib.ExitStack) -> None:
        self._images = get_task(trial.task).images_folder
        self._setting = setting
        self._around = around
        self.state: ProcessState

    def begin(self) -> None:
        self._around.enter_context(method_fence(self._setting.data_folder, self._setting.results, self._images))
        self.state = ProcessState()
        self._around.callback(self._end)

    def _end(self) -> None:
        _, lasting = self.state.undo()
        self._setting.lasting += lasting


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # an error of a method's own may do anything when it is asked what it says
        return "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}\n"


@contextlib.contextmanager
def _noticing_ctrl_c() -> Iterator[list[bool]]:
    """What is yielded is filled when the user presses Ctrl-C; a method may raise KeyboardInterrupt by itself."""
    asked: list[bool] = []
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield asked
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        asked.append(True)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _TrialInProcess(LiveTrial):
    """A trial whose method runs in this process."""

    context: TrialContext

    def __init__(self, prepared: PreparedTrial, setting: Setting, started: float, state: ProcessState) -> None:
        super().__init__(prepared, setting, started, isolated=False)
        self.own_error: BaseException | None = None  # of the harness's own work, and not of the method
        self._state = state
        self._teacher_hashes = self._hashes()
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
            memory_format=prepared.trial.memory_format,
            others=prepared.others,
            anchors=prepared.anchors,
            fresh_teacher=prepared.fresh_teacher,
            hooks=Hooks(self._after_step, self._on_phase, self._on_keep, state.looks_untouched),
            skip_phases=() if self._checkpoint is None else tuple(self._checkpoint["context"]["phases"][:-1]),
        )
        self.judge, self.curve = self._judged_by(self.context)

    def play(self) -> None:
        """Run the method until it returns or its budget is spent, and score what it leaves; inside the fence."""
        prepared, context = self.prepared, self.context
        session = session_for(prepared.task.image, prepared.classes, prepared.dataset.dense, len(prepared.teachers))
        method = prepared.method
        assert isinstance(method, Method)
        options = method.make_options(prepared.trial.options)
        self.setting.inspect(context)
        reset_peak_memory(context.device)
        process = os.getpid()
        with context, computing(prepared.trial.precision, context.device):
            context.clock.start()
            try:
                method.run(session, options)
            except BudgetSpent:
                pass
            finally:
                context.clock.stop()
                if os.getpid() != process:  # a fork that came back: its parent has the trial
                    os._exit(1)
            context.check_counting()
        context.check_finite(now=True)
        context.check_end()
        with self._untouched():
            self.curve.close()
        if self._hashes() != self._teacher_hashes:
            raise AccessDenied("the method changed the teacher's weights or statistics")

    def _hashes(self) -> list[str]:
        """Of the teachers' weights."""
        return [weights_hash(teacher.network) for teacher in self.prepared.teachers]

    @contextlib.contextmanager
    def _untouched(self) -> Iterator[None]:
        """The harness's own work: torch's switches are as it set them, and nothing of the method's listens.

        Raises:
            AccessDenied: the method has replaced functions of torch or the harness with its own.
        """
        if replaced := self._state.replaced():
            more = f" and {len(replaced) - 1} more" if replaced[1:] else ""
            raise AccessDenied(f"the method replaced {replaced[0]}{more}, by which it is counted and scored")
        with self._state.own_switches(), alone():
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
            self._pause(self._begin)

    def _after_step(self) -> None:
        due = self.curve.due()
        now = time.perf_counter()
        stop = self.setting.stop()
        if due:
            self._pause(self._evaluate)
        if stop or now - self._saved > self.setting.checkpoint_seconds:
            self._pause(self._save)
            self._saved = time.perf_counter()
        if stop:
            self.stopping = True
            raise Interrupted
        self._check_time()
        if due or now - self._shown > 0.25:
            self._shown = now
            self._pause(self._show)

    def _show(self) -> None:
        seconds = self.context.meter.seconds
        with lifted(*progress_files(self.prepared.work)):
            self.setting.report(Progress("running", self.context.progress, self.curve.latest, seconds))

    def _pause(self, work: Callable[[], None]) -> None:
        """Do the harness's own work: the clock stands still."""
        running = self.context.clock.stop()
        before = time.perf_counter()
        try:
            work()
        except BaseException as error:
            self.own_error = error
            raise
        self.context.meter.evaluation_seconds += time.perf_counter() - before
        if running:
            self.context.clock.start()

    def _evaluate(self) -> None:
        with self._untouched():
            self.curve.evaluate()

    def _begin(self) -> None:
        with self._untouched():
            self.curve.begin()

    def _save(self) -> None:
        state = {"context": self.context.state(), "curve": self.curve.state(), "resumed": self.resumed}
        save_checkpoint(self.prepared.work, self.prepared.trial.id, state)


def _finish(
    trial: Trial,
    card: MethodCard,
    work: Path,
    running: _TrialInProcess | IsolatedTrial | None,
    ending: Ending,
    setting: Setting,
) -> Record:
    """Write the record, whole or not at all, and clear the work folder."""
    files: dict[str, Path] = {}
    rows: list[dict[str, Any]] = []
    try:
        record, files = _record(trial, card, running, ending, setting)
        rows = running.curve.rows if running is not None else []
    except UserError:
        raise
    except Exception as error:  # counters that are no counts, for one
        with (work / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(_traceback(error))
        reason = f"what the trial left makes no record: {told(error)}"
        if isinstance(error, ValidationError):
            places = sorted({".".join(map(str, each["loc"])) for each in error.errors()})
            reason = f"what the trial left makes no record: {', '.join(places)} out of range"
        values = base_record(trial, card, "crashed", reason)
        values["provenance"]["isolation"] = _isolation(running, setting)
        record = Record.model_validate(values)
    if (work / "log.txt").exists() and (setting.isolation is None or (work / "log.txt").stat().st_size):
        files["log.txt"] = work / "log.txt"
    write_trial(setting.results, record, rows, files)
    shutil.rmtree(work, ignore_errors=True)
    setting.report(Progress(record.status, 1.0, record.scores.get(record.headline), record.meter.seconds))
    return record


def _record(
    trial: Trial,
    card: MethodCard,
    running: _TrialInProcess | IsolatedTrial | None,
    ending: Ending,
    setting: Setting,
) -> tuple[Record, dict[str, Path]]:
    values = base_record(trial, card, ending.status, ending.reason)
    files: dict[str, Path] = {}
    if running is not None:
        dataset = running.prepared.dataset
        values |= running.measured(ending)
        if running.restarted:
            values["provenance"]["restarted"] = running.restarted
        values["provenance"]["data"] = {"fingerprint": dataset.fingerprint, "altered": list(dataset.altered)}
        if test := get_task(trial.task).test:
            values["provenance"]["data"]["test"] = test
        if ending.status == "ok":
            ended = FinishedTrial(running.prepared, running.context, running.judge, running.curve)
            values |= judged(ended, setting.weights)
            if values["status"] == "ok":
                files = artifacts(ended)
    values["provenance"]["isolation"] = _isolation(running, setting)
    return Record.model_validate(values), files


def _isolation(running: _TrialInProcess | IsolatedTrial | None, setting: Setting) -> dict[str, Any]:
    """For the record's provenance."""
    if isinstance(running, IsolatedTrial):
        return running.isolation()
    if setting.isolation is not None:
        return {"mode": "process", "enforced_by": ""}
    return {"mode": "none", "why": setting.not_isolated}
