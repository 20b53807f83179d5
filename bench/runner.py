"""One trial, from its identity to its record."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from bench import guard, kept
from bench.anchors import get_anchors
from bench.cards import load_method
from bench.checkpoint import load_checkpoint, save_checkpoint
from bench.closing import Ended, artifacts, judged
from bench.curve import Curve
from bench.data import Dataset, Pool, Split, load, protected_paths
from bench.declare import Access, Data, Method
from bench.desk import BudgetSpent, Desk
from bench.determinism import only_deterministic
from bench.draft import card_of, draft
from bench.errors import AccessDenied, DataLeak, Diverged
from bench.judge import Judge
from bench.memory import peak_memory_mib, reset_peak_memory
from bench.models import build
from bench.other_images import pool_of
from bench.outcome import Outcome, TimedOut, outcome_of
from bench.paths import teacher_folder
from bench.progress import Progress, work_folder
from bench.records import Record, write_trial
from bench.route import Route
from bench.session import session_for
from bench.streams import derive, seed_everything
from bench.task import TaskSpec, get_task
from bench.teachers import Teacher, get_teacher, weights_hash
from bench.training import TrainingProgress
from bench.trial import Trial

CHECKPOINT_SECONDS = 30.0


class Interrupted(BaseException):
    """The user stops the study; the trial is saved and goes on next time."""


@dataclass
class Setting:
    """Everything around a trial that changes nothing about its outcome."""

    results: Path
    data_folder: Path | None = None
    weights: Path | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    report: Callable[[Progress], None] = lambda progress: None  # noqa: ARG005
    inspect: Callable[[Desk], None] = lambda desk: None  # noqa: ARG005
    stop: Callable[[], bool] = lambda: False


def run_trial(trial: Trial, setting: Setting) -> Record:
    """Run a trial to its record, going on from its last checkpoint if there is one.

    Every failure of the method becomes a record with a status. Only an interruption and a mistake of the user's (a
    results folder that cannot be written, a method file that does not load) are raised.
    """
    work = work_folder(setting.results, trial.id)
    run = _Run(trial, setting, work)
    outcome = Outcome()
    started = time.perf_counter()
    try:
        run.prepare()
        run.play(started)
    except (Exception, SystemExit, DataLeak, AccessDenied, Diverged, TimedOut) as error:
        ended = outcome_of(error, run.card.file)
        if ended is None:
            raise
        outcome = ended
        with (work / "log.txt").open("a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)))
    return run.finish(outcome)


class _Run:
    """The parts of one run that its steps share."""

    task: TaskSpec
    method: Method
    dataset: Dataset
    teacher: Teacher
    desk: Desk
    judge: Judge
    curve: Curve
    pool: Pool | None

    def __init__(self, trial: Trial, setting: Setting, work: Path) -> None:
        self.trial = trial
        self.setting = setting
        self.work = work
        self.card = card_of(trial)
        self.resumed = 0
        self.started = False
        self._saved = time.perf_counter()
        self._shown = 0.0
        self._checkpoint: dict[str, Any] | None = None
        self.pool = None

    def prepare(self) -> None:
        trial = self.trial
        self.task = get_task(trial.task)
        self.method = load_method(self.card)
        self.setting.report(Progress("loading"))
        self.dataset = _dataset(self.task.data, self.task.stored_size, self.setting.data_folder, trial.altered_data)
        _settle_torch(trial)
        device = torch.device(trial.device)

        def report(done: TrainingProgress) -> None:
            self.setting.report(Progress(f"teacher {done.epoch:.1f}/{done.epochs}"))

        anchors = get_anchors(self.task, trial.teacher, self.dataset, self.method.anchors, report, device)
        self.teacher = get_teacher(self.task, trial.teacher, self.dataset, report, device)
        classes = len(self.dataset.classes)
        seed_everything(derive(trial.seed, "student"))
        student = build(self.task.student, self.task.image, classes)
        seed_everything(derive(trial.seed, "method"))
        blind = self.method.access is Access.NONE
        self.desk = Desk(
            image=self.task.image,
            teacher=self.teacher.network,
            student=student,
            budget=trial.limits.for_blind_method() if blind else trial.limits,
            access=self.method.access,
            data=self.method.data,
            device=device,
            seed=trial.seed,
            real=self._real(),
            augment=self.task.augment,
            precision=trial.precision,
        )
        if anchors:
            self.desk.route = Route(self.teacher.network, anchors, self.task.image.shape, self.desk.meter)
        self.desk.fresh_teacher = lambda: build(self.teacher.passport["network"], self.task.image, classes)
        self.judge = Judge(
            student, self.teacher.network, self.dataset.test, self.task.image, device, self.dataset.classes
        )
        self.curve = Curve(self.desk, self.judge, trial.points, self.work, "teacher_agreement" in trial.selection)
        self._teacher_hash = weights_hash(self.teacher.network)
        self._checkpoint = load_checkpoint(self.work, trial.id)
        self.started = True

    def _real(self) -> Split | None:
        """The real images that the method declared: its labels, or in a pool each image's place."""
        if self.method.data is Data.NONE:
            return None
        if self.method.data is Data.TRAIN:
            return self.dataset.train
        trial = self.trial
        self.pool = pool_of(trial.pool, trial.pool_path, self.task, self.setting.data_folder, trial.altered_data)
        return Split(self.pool.images, torch.arange(len(self.pool.images)))

    def play(self, started: float) -> None:
        """Run the method inside the fence until it returns or its budget is spent."""
        desk, trial = self.desk, self.trial
        desk.after_step = lambda: self._after_step(started)
        desk.on_keep = self._on_keep
        desk.on_phase = self._on_phase
        if self._checkpoint is not None:
            desk.skip_phases = tuple(self._checkpoint["desk"]["phases"][:-1])
        session = session_for(self.task.image, len(self.dataset.classes), self.dataset.dense)
        options = self.method.make_options(trial.options)
        self.setting.inspect(desk)
        reset_peak_memory(desk.device)
        with desk, self._fence(), _autocast(trial, desk.device):
            desk.clock.start()
            try:
                self.method.run(session, options)
            except BudgetSpent:
                pass
            finally:
                desk.clock.stop()
        desk.check_finite(now=True)
        self.curve.close()
        if weights_hash(self.teacher.network) != self._teacher_hash:
            raise AccessDenied("the method changed the teacher's weights or statistics")

    @contextlib.contextmanager
    def _fence(self) -> Iterator[None]:
        kept_images = self.setting.results  # a method with data leaves real images there
        with guard.fenced([*protected_paths(self.setting.data_folder), kept_images], [teacher_folder()]):
            yield

    def _on_keep(self, name: str, thing: Any) -> None:
        """While resuming, code before the resumed loop already sees the saved state."""
        if self._checkpoint is not None and name in self._checkpoint["desk"]["kept"]:
            kept.restore(thing, self._checkpoint["desk"]["kept"][name])

    def _on_phase(self, phase: str) -> None:
        if self._checkpoint is not None and phase == self._checkpoint["desk"]["phases"][-1]:
            self.desk.restore(self._checkpoint["desk"])
            self.curve.restore(self._checkpoint["curve"])
            self.resumed = int(self._checkpoint["resumed"]) + 1
            self._checkpoint = None
        elif self._checkpoint is None:
            self._pause(self.curve.begin)

    def _after_step(self, started: float) -> None:
        due = self.curve.due()
        now = time.perf_counter()
        stop = self.setting.stop()
        if due:
            self._pause(self.curve.evaluate)
        if stop or now - self._saved > self.setting.checkpoint_seconds:
            self._pause(self._save)
            self._saved = time.perf_counter()
        if stop:
            raise Interrupted
        if self.trial.timeout is not None and now - started > self.trial.timeout:
            raise TimedOut(f"ran longer than the study's timeout of {self.trial.timeout:g} s")
        if due or now - self._shown > 0.25:
            self._shown = now
            meter = self.desk.meter
            self._pause(
                lambda: self.setting.report(Progress("running", self.desk.progress, self.curve.latest, meter.seconds))
            )

    def _pause(self, work: Callable[[], None]) -> None:
        """Do the harness's own work: the clock stands still, the fence is lifted."""
        running = self.desk.clock.stop()
        before = time.perf_counter()
        with guard.lifted():
            work()
        self.desk.meter.evaluation_seconds += time.perf_counter() - before
        if running:
            self.desk.clock.start()

    def _save(self) -> None:
        state = {"desk": self.desk.state(), "curve": self.curve.state(), "resumed": self.resumed}
        save_checkpoint(self.work, self.trial.id, state)

    def finish(self, outcome: Outcome) -> Record:
        """Write the record, whole or not at all, and clear the work folder."""
        values = draft(self.trial, self.card, outcome.status, outcome.reason)
        files: dict[str, Path] = {}
        rows: list[dict[str, Any]] = []
        if self.started:
            desk = self.desk
            desk.meter.peak_memory_mib = peak_memory_mib(desk.device)
            spent, unit = desk.budget.progress(desk.meter)
            names = ("sha256", "network", "recipe", "seed", "score")
            values["teacher"] = {name: self.teacher.passport[name] for name in names}
            values["meter"] = desk.meter.as_record()
            values["resumed"] = self.resumed
            values["provenance"]["data"] = {
                "fingerprint": self.dataset.fingerprint,
                "altered": list(self.dataset.altered),
            }
            if outcome.status == "ok":
                values["stopped_by"] = unit if spent >= 1.0 else "method"
                ended = Ended(
                    self.trial,
                    self.task,
                    self.dataset,
                    self.teacher,
                    desk,
                    self.judge,
                    self.curve,
                    self.work,
                    self.pool,
                )
                values |= judged(ended, self.setting.weights)
                if values["status"] == "ok":
                    files = artifacts(ended)
            rows = self.curve.rows
        if (self.work / "log.txt").exists():
            files["log.txt"] = self.work / "log.txt"
        record = Record.model_validate(values)
        write_trial(self.setting.results, record, rows, files)
        shutil.rmtree(self.work, ignore_errors=True)
        self.setting.report(Progress(record.status, 1.0, record.scores.get(record.headline), record.meter.seconds))
        return record


@lru_cache(maxsize=1)
def _dataset(name: str, size: int, folder: Path | None, allow_altered: bool) -> Dataset:
    """The last data set stays in memory for the next trial of this process."""
    return load(name, size=size, folder=folder, allow_altered=allow_altered)


def _settle_torch(trial: Trial) -> None:
    torch.set_num_threads(trial.threads)
    only_deterministic(trial.deterministic)
    if trial.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = not trial.deterministic
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products need


def _autocast(trial: Trial, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if trial.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, trial.precision))
