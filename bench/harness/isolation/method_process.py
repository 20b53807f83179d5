"""The process of a method: it holds the student and what the method makes, and asks the judge for everything else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.image_spec import ImageSpec
from bench.errors import DataLeak, MethodError
from bench.harness import checkpoint
from bench.harness.image_sample import Capture, EvenSample
from bench.harness.isolation.channel import HALF, Channel, Gone, Kind, Message
from bench.harness.isolation.judge_side import MORE, Wanted
from bench.harness.isolation.probe import Probe
from bench.harness.isolation.remote import Remote, RemoteImages, Spent
from bench.harness.precision import computing
from bench.harness.remedies import remedy
from bench.harness.session import session_for
from bench.harness.trial_context import BudgetSpent, Hooks, TrialContext
from bench.models import build
from bench.models.taps import tap
from bench.spec.method import Access, Data, Method
from bench.spec.method_loader import load_declared
from bench.spec.task import tasks
from bench.spec.trial import Trial
from bench.utils import data_guard
from bench.utils.determinism import only_deterministic
from bench.utils.rng import derive, seed_everything
from bench.utils.tracebacks import leaves_of, place, printable, told

_NAMED = ("AccessDenied", "DataLeak", "Diverged", "Unsupported", "MethodError", "UserError", "MemoryError")
_TEXT, _TRACE = 4_000, 100_000  # letters of a message and of a traceback that are told


@cache
def warm_up() -> None:
    """Do what every trial's process would do, once: before any fork, and not again in it.

    These are late imports of torch's, and the tasks' files.
    """
    only_deterministic(True)  # imports torch's compiler; what a trial wants is set by itself
    tasks()
    import torch.utils.flop_counter
    from torch.optim import Adam

    parameter = nn.Parameter(torch.zeros(1))
    parameter.square().backward()
    Adam([parameter]).step()


def run(order: Mapping[str, Any], channel: Channel) -> None:
    """Run the trial of an order, and tell the judge how it ended. This process must be confined by now."""
    remote = Remote(channel)
    try:
        with data_guard.fenced(map(Path, order["data"]), map(Path, order["teachers"])):
            last = _run(order, remote)
        remote.tell(last)  # not before the fence has said that nothing was caught
    except Gone:
        return
    except BaseException as error:
        words = _told(_leak(error, order["data"]) or error, Path(order["file"]))
        with contextlib.suppress(Gone):
            remote.tell(Message(Kind.FAILED, payload=json.dumps(words).encode()))


def _run(order: Mapping[str, Any], remote: Remote) -> Message:
    """Run the trial; what remains to be told at its end."""
    method = load_declared(Path(order["file"]), order["module"], order["name"])
    trial = Trial.from_json(order["trial"])
    setup = json.loads(remote.request(Message(Kind.READY)).payload)
    return _TrialHere(method, trial, remote, setup, bool(order["watch"])).play()


class _TrialHere:
    """A trial as far as it runs in this process."""

    def __init__(self, method: Method, trial: Trial, remote: Remote, setup: Mapping[str, Any], watch: bool) -> None:
        self._method, self._trial, self._remote = method, trial, remote
        self._kept: dict[str, Any] | None = self._saved() if setup["resumes"] else None
        image = ImageSpec.model_validate(setup["image"])
        torch.set_num_threads(trial.threads)
        only_deterministic(trial.deterministic)
        classes = int(setup["classes"])
        device = torch.device(trial.device)
        seed_everything(derive(trial.seed, "student"))
        student = build(setup["student"], image, classes)
        tap(student, "taps of the student", image.shape, setup["taps"])
        seed_everything(derive(trial.seed, "method"))
        remote.anchors = int(setup["anchors"])
        remote.meet([partial(build, name, image, classes) for name in setup["teachers"]])
        limits = trial.limits
        self._context = TrialContext(
            image=image,
            teacher=remote,
            student=student,
            budget=limits.for_blind_method() if method.access is Access.NONE else limits,
            access=method.access,
            data=method.data,
            device=device,
            seed=trial.seed,
            real=None if method.data is Data.NONE else RemoteImages(remote),
            precision=trial.precision,
            memory_format=trial.memory_format,
            hooks=Hooks(after_step=self._after_step, on_phase=self._on_phase, on_keep=self._on_keep),
            skip_phases=() if self._kept is None else tuple(self._kept["phases"][:-1]),
        )
        self._session = session_for(image, classes, bool(setup["dense"]), len(setup["teachers"]))
        self._probe = Probe(self._context) if watch else None

    def play(self) -> Message:
        """Run the method until it returns or its budget is spent."""
        context, trial = self._context, self._trial
        options = self._method.make_options(trial.options)
        self._remote.request(Message(Kind.START))
        process = os.getpid()
        with context, computing(trial.precision, context.device):
            context.clock.start()
            try:
                self._method.run(self._session, options)
            except (BudgetSpent, Spent):
                pass
            finally:
                context.clock.stop()
                if os.getpid() != process:  # a fork that came back: its parent has the trial
                    os._exit(1)
            context.check_counting()
        context.check_finite(now=True)
        context.check_end()
        told = {
            "logs": context.take_logs(),
            "capture": _rows_of(context.capture),
            "access": int(context.used),
            "probe": None if self._probe is None else self._probe.told(),
        }
        tensors = [*self._students(), *_images_of(context.capture)]
        return Message(Kind.DONE, payload=json.dumps(told).encode(), tensors=tensors)

    # ---- what the judge wants to know on the way ---------------------------------------------------------------------

    def _on_keep(self, name: str, thing: Any) -> None:
        """While resuming, code before the resumed loop already sees the saved state."""
        if self._kept is not None and name in self._kept["kept"]:
            checkpoint.restore_into(thing, self._kept["kept"][name])

    def _on_phase(self, phase: str) -> None:
        self._follow(self._remote.request(Message(Kind.PHASE, payload=json.dumps(phase).encode())))

    def _after_step(self) -> None:
        told = b"" if self._probe is None else json.dumps({"student": self._probe.digest()}).encode()
        self._follow(self._remote.request(Message(Kind.STEP, payload=told)))

    def _follow(self, answer: Message) -> None:
        """Do what the judge wants; this clock follows its own."""
        context = self._context
        wanted = Wanted(answer.flags)
        if not wanted:
            context.meter.seconds = self._remote.seconds
            context.clock.restart()
            return
        running = context.clock.stop()
        if Wanted.RESUME in wanted:
            if self._kept is None:
                raise MethodError("the judge resumes a trial that was never saved")
            context.restore(self._kept)
            self._kept = None
            self._remote.settled()
        if Wanted.STUDENT in wanted:
            logs = json.dumps(context.take_logs()).encode()
            self._remote.request(Message(Kind.STUDENT, payload=logs, tensors=self._students()))
        if Wanted.STATE in wanted:
            self._save()
        self._remote.request(Message(Kind.GO))
        context.meter.seconds = self._remote.seconds
        if running:
            context.clock.start()

    def _students(self) -> list[Tensor]:
        return [value for weights in self._context.weights() for value in weights.values()]

    def _save(self) -> None:
        data = io.BytesIO()
        torch.save(self._context.state(), data)
        whole = torch.frombuffer(data.getbuffer(), dtype=torch.uint8)
        part = HALF // 2
        for start in range(0, len(whole), part):
            flags = MORE if start + part < len(whole) else 0
            self._remote.request(Message(Kind.STATE, flags, tensors=[whole[start : start + part]]))

    def _saved(self) -> dict[str, Any]:
        parts: list[Tensor] = []
        while True:
            answer = self._remote.request(Message(Kind.STATE, token=sum(map(len, parts))))
            parts.append(answer.tensors[0])
            if not answer.flags & MORE:
                break
        data = io.BytesIO(torch.cat(parts).numpy().tobytes())
        state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
        return state


def _rows_of(capture: Capture) -> dict[str, Any]:
    return {
        "training": _places(capture.training),
        "held_out": _places(capture.held_out),
        "outside": float(capture._outside),
        "seen": capture._seen,
    }


def _places(sample: EvenSample) -> list[list[int]]:
    return [[turn, step, len(next(iter(tensors.values())))] for turn, step, tensors in sample.rows]


def _images_of(capture: Capture) -> list[Tensor]:
    shape = capture.image.shape
    images, held = capture.training.column("images"), capture.held_out.column("images")
    labels = capture.held_out.column("labels")
    return [
        torch.zeros(0, *shape, dtype=torch.uint8) if images is None else images,
        torch.zeros(0, *shape) if held is None else held,
        torch.zeros(0, dtype=torch.int64) if labels is None else labels,
    ]


def _leak(error: BaseException, folders: Sequence[str]) -> DataLeak | None:
    """What an error comes from, if that is a file of real data that the kernel did not show to this process."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(error, DataLeak):
        name = seen.filename if isinstance(seen, OSError) else None
        if isinstance(name, str) and os.path.realpath(name).startswith(tuple(f"{each}{os.sep}" for each in folders)):
            return DataLeak(f"the method reached for real data: {Path(name).name}").with_traceback(error.__traceback__)
        seen = seen.__cause__ or seen.__context__
    return None


def _told(error: BaseException, file: Path) -> dict[str, str]:
    """An error in words: its kind, its text, a record's reason, where it happened."""
    leaves = list(leaves_of(error))
    known = next(((leaf, kind) for leaf in leaves if (kind := _kind(leaf)) in _NAMED), None)
    leaf, kind = known or (error, _kind(error))
    text = told(leaf)[:_TEXT]
    inner = "" if leaves == [error] else f" ({', '.join(sorted({type(each).__name__ for each in leaves}))})"
    reason = f"{type(error).__name__}: {told(error)[:_TEXT]}{inner}"
    trace = ""
    with contextlib.suppress(BaseException):
        reason += place(error, file) + remedy(error)
        trace = "".join(traceback.format_exception(error))[-_TRACE:]
    return {"type": kind, "text": text, "reason": printable(reason), "traceback": trace}


def _kind(error: BaseException) -> str:
    """The name of the suite's own error that it is, or of Python's."""
    kinds = [each.__name__ for each in type(error).__mro__ if each.__module__ in ("bench.errors", "builtins")]
    found = next((each for each in kinds if each in _NAMED), None)
    return found or ("RuntimeError" if "RuntimeError" in kinds else type(error).__name__)


def leave() -> None:
    """End this process, whatever threads the method has left."""
    with contextlib.suppress(Exception):
        import sys

        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
