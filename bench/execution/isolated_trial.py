"""A trial whose method runs in a process of its own, confined to code: see docs/threats.md."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bench.errors import UserError
from bench.execution.live_trial import LiveTrial
from bench.execution.prepare import PreparedTrial
from bench.execution.progress import Progress
from bench.execution.status import Interrupted
from bench.harness.checkpoint import save_checkpoint
from bench.harness.isolation.channel import BrokenMessage, Channel, Gone, Kind
from bench.harness.isolation.judge_side import JUDGED, Course, JudgeSide, MethodFailed, Wanted
from bench.harness.isolation.template import MethodProcess, start
from bench.harness.peak_memory import reset_peak_memory
from bench.models.source import own_file, placed
from bench.spec.method_card import MethodCard
from bench.spec.method_fence import fenced_folders
from bench.spec.task import get_task
from bench.spec.trial import Trial
from bench.utils.confinement import Way
from bench.utils.stopping import SIGNALS, signal_name

if TYPE_CHECKING:
    from bench.execution.run_trial import Setting

TOGETHER = 0.3  # seconds within which one signal reaches all processes


def start_method(trial: Trial, card: MethodCard, setting: Setting, way: Way, log: Path) -> MethodProcess:
    """The process of a trial's method, confined; it imports the method's file meanwhile."""
    task = get_task(trial.task)
    networks = [own_file(name) for name in dict.fromkeys(task.networks)]
    data, teachers = fenced_folders(setting.data_folder, setting.results, task.images_folder)
    order = {
        "trial": trial.to_json(),
        "file": str(card.file),
        "module": card.module,
        "name": card.name,
        "networks": [str(file) for file in networks if file is not None],
        "data": [str(folder) for folder in data],
        "teachers": [str(folder) for folder in teachers],
        "watch": setting.watch is not None,
    }
    return start(order, way, log)


class IsolatedTrial(LiveTrial):
    """Evaluates, saves, resumes and stops a method in another process; what remains of it is as of any trial."""

    context: JudgeSide

    def __init__(self, prepared: PreparedTrial, setting: Setting, started: float, process: MethodProcess) -> None:
        super().__init__(prepared, setting, started, isolated=True)
        self.process = process
        self._enforced = ""
        self.context = JudgeSide(
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
            others=prepared.others,
            anchors=prepared.anchors,
        )
        self.judge, self.curve = self._judged_by(self.context)

    def play(self) -> None:
        """Serve the method's process until it has ended."""
        prepared, context = self.prepared, self.context
        reset_peak_memory(context.device)
        course = Course(
            after_step=self._after_step,
            on_phase=self._on_phase,
            score=self._score,
            save=self._save,
            resume=self._resume,
            idle=self._check_time,
            still=self.process.still,
            kept=None if self._checkpoint is None else self._checkpoint["method"],
            setup={
                "classes": prepared.classes,
                "image": prepared.task.image.model_dump(mode="json"),
                "student": placed(prepared.task.student),
                "taps": dict(prepared.task.places("student")),
                "dense": prepared.dataset.dense,
                "teachers": [placed(teacher.passport["network"]) for teacher in prepared.teachers],
                "anchors": len(prepared.anchors) + 1 if prepared.anchors else 0,
                "resumes": self._checkpoint is not None,
            },
        )
        if self.setting.watch is not None:
            self.setting.watch(self)
        channel: Channel = self.process.channel
        try:
            self._enforced = _enforced(channel, self._check_time)
            context.serve(channel, course)
        except Gone:
            raise self._death() from None
        finally:
            self.process.end()
        self.curve.close()

    def _death(self) -> BaseException:
        """What it stands for that the method's process has ended without a word."""
        status = self.process.ended()
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number in SIGNALS and self._asked_too():
                self.stopping = True
                return Interrupted()
            if number == signal.SIGKILL:
                return MemoryError("killed by the system (SIGKILL), most likely out of memory")
            return MethodFailed(f"the method's process died of {signal_name(number)}")
        return MethodFailed(f"the method's process ended with exit code {os.WEXITSTATUS(status)} before the trial did")

    def _asked_too(self) -> bool:
        """Whether the signal that ended the method's process came to this one as well: somebody stops all of them."""
        deadline = time.perf_counter() + TOGETHER
        while not (stop := self.setting.stop()) and time.perf_counter() < deadline:
            time.sleep(0.01)
        return stop

    # ---- the course --------------------------------------------------------------------------------------------------

    def _on_phase(self, phase: str) -> Wanted:
        if self._checkpoint is not None:
            return Wanted.RESUME if phase == self._checkpoint["judge"]["phase"] else Wanted.NOTHING
        return Wanted.NOTHING if self.curve.rows else Wanted.STUDENT

    def _resume(self) -> None:
        assert self._checkpoint is not None
        self.context.restore(self._checkpoint["judge"])
        self.curve.restore(self._checkpoint["curve"])
        self.resumed = int(self._checkpoint["resumed"]) + 1
        self._checkpoint = None

    def _after_step(self) -> Wanted:
        due = self.curve.due()
        now = time.perf_counter()
        self.stopping = self.setting.stop()
        wanted = Wanted.STUDENT if due else Wanted.NOTHING
        if self.stopping or now - self._saved > self.setting.checkpoint_seconds:
            wanted |= Wanted.STATE
        else:
            self._check_time()
        if not due and now - self._shown > 0.25:
            self._show()
        return wanted

    def _score(self) -> None:
        if self.curve.rows:
            self.curve.evaluate()
        else:
            self.curve.begin()
        self._show()

    def _save(self, kept: Tensor) -> None:
        state = {
            "judge": self.context.state(),
            "curve": self.curve.state(),
            "resumed": self.resumed,
            "method": kept,
        }
        save_checkpoint(self.prepared.work, self.prepared.trial.id, state)
        self._saved = time.perf_counter()
        if self.stopping:
            raise Interrupted
        self._check_time()

    def _show(self) -> None:
        self._shown = time.perf_counter()
        seconds = self.context.meter.seconds
        self.setting.report(Progress("running", self.context.progress, self.curve.latest, seconds))

    # ---- the record --------------------------------------------------------------------------------------------------

    def _elsewhere_mib(self) -> float:
        return self.process.memory_mib

    def isolation(self) -> dict[str, Any]:
        """For the record's provenance: what held the method, and whose word the meter is."""
        meter = self.context.meter.as_record()
        reported = [name for name in meter if name not in (*JUDGED, "peak_memory_mib")]
        return {
            "mode": "process",
            "enforced_by": self._enforced,
            "reported_by_method": reported,
            "method_cpu_seconds": round(self.process.cpu_seconds, 3),
        }


def _enforced(channel: Channel, idle: Callable[[], None]) -> str:
    """What holds the method's process, in its own words: said before anything of the method's was run there."""
    try:
        message = channel.receive(idle)
    except (Gone, BrokenMessage):
        raise UserError(
            "the method's process could not be confined, see the trial's log; --isolation none runs it in one process"
        ) from None
    if message.kind is Kind.CONFINED:
        return message.payload.decode("ascii", errors="replace")
    raise UserError("the method's process could not be confined: it spoke out of turn")
