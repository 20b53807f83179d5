"""The judge of a method that runs in another process: it answers, counts, refuses, scores and saves.

Whatever arrives here was written by code that may want to deceive: all of it is checked, and nothing of it is run. Its
objects stand where a :class:`~bench.harness.trial_context.TrialContext` stands for a method in this process.
"""

from __future__ import annotations

import copy
import json
import math
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

import torch
from torch import Tensor, nn

from bench import errors
from bench.data import Split
from bench.data.batches import RealImages
from bench.data.image_spec import Augmentation, ImageSpec
from bench.errors import AccessDenied, DataLeak, Diverged, MethodError, UserError
from bench.harness.classes import classes_of
from bench.harness.clock import Clock, IdleCheck
from bench.harness.counters import CountedTeacher, Question, TeacherAnswer
from bench.harness.image_sample import Capture
from bench.harness.isolation.channel import COUNTS, HALF, BrokenMessage, Channel, Kind, Message
from bench.harness.isolation.remote import (
    AUTOCAST,
    BFLOAT16,
    CREATE_GRAPH,
    PARTS,
    POOLED,
    REPORTED,
    WANTS_GRADIENTS,
)
from bench.harness.teacher_trajectory import TeacherTrajectory
from bench.models import classifier_bias, classifier_weight
from bench.models.cost import bare_copy
from bench.spec.budget import Budget, Meter, TeacherUse, restore_uses
from bench.spec.method import Access, Data

GRAPHS = 1024  # of the teacher's answers that a method may hold at a time
OVERRUN = 10_000  # teacher images by which a step may always go beyond its budget
STATE = 2**34  # bytes of everything that a method keeps
LOGS = 10_000
LARGEST = 2**62
MORE = 1  # flag: the rest of a long tensor follows

JUDGED = ("seconds", "steps", "teacher_images", "teacher_backward", "real_images", "evaluation_seconds")


class Wanted(IntFlag):
    """What the judge wants from the method's process before it continues: flags of an answer."""

    NOTHING = 0
    STUDENT = 1
    STATE = 2
    STOP = 4
    RESUME = 8


class MethodFailed(MethodError):
    """An error in a method's process that is none of the suite's own; the text is a record's reason."""


@dataclass
class Averaged:
    """The average of the student's weights, as a module."""

    module: nn.Module


@dataclass
class Course:
    """Who decides how a trial continues; the clock stands still in ``score`` and ``save``."""

    after_step: Callable[[], Wanted]
    on_phase: Callable[[str], Wanted]
    score: Callable[[], None]
    save: Callable[[Tensor], None]
    resume: Callable[[], None]
    idle: Callable[[], None]
    still: Callable[[bool], None] = lambda still: None  # noqa: ARG005
    kept: Tensor | None = None  # what the method's process saved when the trial was stopped, uint8
    setup: Mapping[str, Any] = field(default_factory=dict)


class JudgeSide:
    """A running trial without its method."""

    def __init__(
        self,
        *,
        image: ImageSpec,
        teacher: nn.Module,
        student: nn.Module,
        budget: Budget,
        access: Access,
        data: Data,
        device: torch.device,
        seed: int,
        real: Split | None = None,
        augment: Augmentation | None = None,
        others: Sequence[nn.Module] = (),
        anchors: Sequence[Mapping[str, Tensor]] = (),
    ) -> None:
        """As :class:`~bench.harness.trial_context.TrialContext`; the student is a copy that nobody trains."""
        self.image = image
        self.budget = budget
        self.access = access
        self.used = Access.NONE
        self.data = data
        self.device = device
        self.student = bare_copy(student).to(device)
        self.average = Averaged(copy.deepcopy(self.student))
        self.capture = Capture(image)
        self.meter = Meter()
        self.clock = Clock(self.meter, device, exact=budget.seconds is not None)
        self.finished: Mapping[str, Any] = {}  # what the method's process told at its end
        self.told: Mapping[str, Any] = {}  # what it told with its last step
        self._own = Meter()  # the judge's counts of what the teacher did
        self._reported = dict.fromkeys(REPORTED, 0)
        networks = [each.to(device) for each in (teacher, *others)]
        self._teachers = [CountedTeacher(each, image.shape, self._own) for each in networks]
        self._reported_uses = [TeacherUse() for _ in networks]  # of copies in the method's process
        use = self._teachers[0].use
        self._trajectory = TeacherTrajectory(teacher, anchors, image.shape, self._own, use) if anchors else None
        self._real = RealImages(real, image, seed, device, augment) if real is not None else None
        self._graphs: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._tokens = 0
        self._logs: dict[str, float] = {}
        self._phase = ""
        self._over = False
        self._idle = IdleCheck()
        self._started = False

    # ---- what the curve and the record look at ---------------------------------------------------------------------

    @property
    def progress(self) -> float:
        self.clock.read()
        self._combine()
        return min(self.budget.progress(self.meter)[0], 1.0)

    def take_logs(self) -> dict[str, float]:
        logs, self._logs = self._logs, {}
        return logs

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Copies of the student's weights and of their average."""
        networks = (self.student, self.average.module)
        student, average = (
            {name: value.detach().clone() for name, value in network.state_dict().items()} for network in networks
        )
        return student, average

    @property
    def uses(self) -> list[TeacherUse]:
        """What was asked of each teacher: counted here, and of copies in the method's process as it reports."""
        return [
            TeacherUse(own.images + copies.images, own.backward + copies.backward, own.macs + copies.macs)
            for own, copies in zip((each.use for each in self._teachers), self._reported_uses, strict=True)
        ]

    def _combine(self) -> None:
        """The meter is what was counted here and what the method's process reports, added up."""
        own, meter = self._own, self.meter
        for name, value in self._reported.items():
            setattr(meter, name, getattr(own, name) + value)

    def state(self) -> dict[str, Any]:
        """Everything that :meth:`restore` needs; plain data and tensors only."""
        return {
            "phase": self._phase,
            "meter": vars(self.meter).copy(),
            "own": vars(self._own).copy(),
            "reported": dict(self._reported),
            "uses": [vars(each.use).copy() for each in self._teachers],
            "reported_uses": [vars(use).copy() for use in self._reported_uses],
            "real": self._real.state() if self._real is not None else {},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for target, values in ((self.meter, state["meter"]), (self._own, state["own"])):
            for name, value in values.items():
                setattr(target, name, value)
        self._reported = {name: int(state["reported"][name]) for name in REPORTED}
        restore_uses([each.use for each in self._teachers], state.get("uses", ()))
        restore_uses(self._reported_uses, state.get("reported_uses", ()))
        if self._real is not None:
            self._real.restore(state["real"])
        self.clock.restart()

    # ---- the conversation ------------------------------------------------------------------------------------------

    def serve(self, channel: Channel, course: Course) -> None:
        """Answer the method's process until it has ended.

        Raises:
            AccessDenied, DataLeak, Diverged, MethodError, UserError: what it told, or what it did.
            Gone: its process died.
        """
        self._channel, self._course = channel, course
        answers = {
            Kind.READY: self._ready,
            Kind.START: self._start,
            Kind.ASK: self._ask,
            Kind.BACKWARD: self._backward,
            Kind.FACTS: self._facts,
            Kind.WEIGHTS: self._weights,
            Kind.REAL: self._give_real,
            Kind.STATE: self._give_state,
        }
        course_of = {Kind.PHASE: self._begin_phase, Kind.STEP: self._step}
        try:
            while True:
                message = channel.receive(course.idle)
                if self._aside(message):
                    continue
                self._note(message)
                if message.kind is Kind.DONE:
                    self._done(message)
                    return
                if message.kind is Kind.FAILED:
                    self._failed(message)
                if message.kind in course_of:
                    self._send(course_of[message.kind](message))
                elif message.kind in answers:
                    self._answer(answers[message.kind], message)
                else:
                    raise BrokenMessage(f"{message.kind.name} out of turn")
        except BrokenMessage as error:
            raise AccessDenied(f"the method's process broke the rules of speaking to the judge: {error}") from None
        finally:
            self.clock.stop()
            self._graphs.clear()

    def _answer(self, how: Callable[[Message], Message], message: Message) -> None:
        try:
            answer = how(message)
        except _Spent:
            answer = Message(Kind.SPENT)
        except (MethodError, RuntimeError, ValueError, TypeError, IndexError, AttributeError, MemoryError) as error:
            name = type(error).__name__
            answer = self._refusal(name if hasattr(errors, name) or name in _PLAIN else "RuntimeError", str(error))
        except UserError as error:  # a network of no head, and the like
            answer = self._refusal("MethodError", str(error))
        self._send(answer)

    def _refusal(self, kind: str, text: str) -> Message:
        return Message(Kind.ERROR, payload=json.dumps({"type": kind, "text": text[:4000]}).encode())

    def _send(self, answer: Message) -> None:
        own = self._own
        answer.counts = (own.teacher_images, own.teacher_backward, own.macs, *(0,) * (COUNTS - 3))
        answer.seconds = self.clock.read()
        self._channel.send(answer)

    def _expect(self, kind: Kind) -> Message:
        while True:
            message = self._channel.receive(self._course.idle)
            if self._aside(message):
                continue
            self._note(message)
            if message.kind is Kind.FAILED:
                self._failed(message)
            if message.kind is not kind:
                raise BrokenMessage(f"{message.kind.name} instead of {kind.name}")
            return message

    def _aside(self, message: Message) -> bool:
        """Take what needs no answer, and may come before anything else; whether it was that."""
        if message.kind is Kind.FREE:
            self._free(message)
        elif message.kind is Kind.USES:
            self._note_uses(message)
        else:
            return False
        return True

    def _note_uses(self, message: Message) -> None:
        """What copies of each teacher have done; as of :meth:`_note`, it never becomes less."""
        uses = self._reported_uses
        if len(message.payload) != 24 * len(uses):
            raise BrokenMessage("counts of other teachers")
        for use, told in zip(uses, struct.iter_unpack("<3q", message.payload), strict=True):
            before = (use.images, use.backward, use.macs)
            if any(new < old or new > LARGEST for new, old in zip(told, before, strict=True)):
                raise BrokenMessage(f"the counts of a teacher went from {before} to {told}")
            use.images, use.backward, use.macs = told

    def _note(self, message: Message) -> None:
        """Take what the method's process reports of itself; it never becomes less."""
        for name, value in zip(REPORTED, message.counts, strict=True):
            if value < self._reported[name] or value > LARGEST:
                raise BrokenMessage(f"{name} went from {self._reported[name]} to {value}")
            self._reported[name] = value

    # ---- the course of the trial -----------------------------------------------------------------------------------

    def _ready(self, message: Message) -> Message:
        del message
        return Message(Kind.GOOD, payload=json.dumps(dict(self._course.setup)).encode())

    def _start(self, message: Message) -> Message:
        del message
        if self._started:
            raise BrokenMessage("a second start")
        self._started = True
        self.clock.start()
        return Message(Kind.GOOD)

    def _begin_phase(self, message: Message) -> Message:
        self._phase = str(_json(message, str))
        self._over = False
        return self._pause(self._course.on_phase(self._phase))

    def _step(self, message: Message) -> Message:
        if not self._phase:
            raise BrokenMessage("a step of no loop")
        if self._over:
            raise AccessDenied("the method went on with its loop after the budget was spent")
        self.told = _json(message, dict) if message.payload else {}
        self.meter.steps += 1
        spent = self.progress
        self._idle.look(self._phase, spent, self.meter)
        self._over = spent >= 1.0
        return self._pause(self._course.after_step())

    def _pause(self, wanted: Wanted) -> Message:
        """Do the judge's own work between two steps; the method's process, threads and all, stands still meanwhile."""
        if not wanted:
            return Message(Kind.GOOD)
        running = self.clock.stop()
        with self._timed():
            if Wanted.RESUME in wanted:
                self._course.resume()
            self._send(Message(Kind.GOOD, flags=int(wanted)))
            if Wanted.STUDENT in wanted:
                message = self._expect(Kind.STUDENT)
                self._take_student(message.tensors)
                self._logs = _logs(_json(message, dict))
                with self._frozen():
                    self._course.score()
                self._send(Message(Kind.GOOD))
            if Wanted.STATE in wanted:
                kept = self._take_state()
                with self._frozen():
                    self._course.save(kept)
                self._send(Message(Kind.GOOD))
        self._expect(Kind.GO)
        if running:
            self.clock.start()
        return Message(Kind.GOOD)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.meter.evaluation_seconds += time.perf_counter() - before

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        self._course.still(True)
        try:
            yield
        finally:
            self._course.still(False)

    def _take_student(self, values: Sequence[Tensor]) -> None:
        """The student and the average, in the order of their state_dicts."""
        networks = (self.student, self.average.module)
        targets = [each for network in networks for each in network.state_dict().values()]
        if len(values) < len(targets):
            raise BrokenMessage("a student of too few tensors")
        for target, value in zip(targets, values, strict=False):
            if target.shape != value.shape or target.dtype != value.dtype:
                raise BrokenMessage("a student of another shape")
        with torch.no_grad():
            for target, value in zip(targets, values, strict=False):
                target.copy_(value)

    def _take_state(self) -> Tensor:
        parts: list[Tensor] = []
        while True:
            message = self._expect(Kind.STATE)
            if len(message.tensors) != 1 or message.tensors[0].dtype != torch.uint8 or message.tensors[0].ndim != 1:
                raise BrokenMessage("a state that is no text of bytes")
            parts.append(message.tensors[0])
            if sum(map(len, parts)) > STATE:
                raise BrokenMessage(f"the method keeps more than {STATE >> 30} GiB")
            if not message.flags & MORE:
                return torch.cat(parts)
            self._send(Message(Kind.GOOD))

    def _give_state(self, message: Message) -> Message:
        kept = self._course.kept
        start = message.token
        if kept is None or not 0 <= start <= len(kept):
            raise BrokenMessage("a state that is not there")
        part = kept[start : start + HALF // 2]
        return Message(Kind.GOOD, MORE if start + len(part) < len(kept) else 0, tensors=[part])

    def _done(self, message: Message) -> None:
        if not self._started:
            raise BrokenMessage("an end before the start")
        self.clock.stop()
        told = _json(message, dict)
        self._take_student(message.tensors)
        number = sum(len(network.state_dict()) for network in (self.student, self.average.module))
        self._logs = _logs(told.get("logs", {}))
        restore_capture(self.capture, told.get("capture", {}), list(message.tensors[number:]))
        self.finished = told
        self._combine()

    def _failed(self, message: Message) -> None:
        self._combine()
        told = _json(message, dict)
        name, text, reason = (str(told.get(key, "")) for key in ("type", "text", "reason"))
        raise failure(name, text, reason, str(told.get("traceback", "")), started=self._started)

    # ---- the teacher -----------------------------------------------------------------------------------------------

    def _need(self, level: Access, what: str) -> None:
        if self.access < level:
            raise AccessDenied(
                f"the method uses {what}, but declares Access.{self.access.name}, not Access.{level.name}"
            )
        self.used = max(self.used, level)

    def _charge(self) -> None:
        """Refuse what goes beyond the budget: at all between the loops, by more than a step may within one."""
        if not self._started:
            raise MethodError("the teacher can be asked only while the method runs")
        if self._over or (not self._phase and self.progress >= 1.0):
            raise _Spent
        limit = self.budget.teacher_images
        if limit is not None and self._own.teacher_images > limit + max(limit, OVERRUN):
            over = self._own.teacher_images - limit
            raise AccessDenied(f"one step asked the teacher about {over:,} images beyond the budget of {limit:,}")

    def _ask(self, message: Message) -> Message:
        self._charge()
        self._need(Access.LABELS, "the teacher")
        question, which = self._question(message)
        gradients = bool(message.flags & WANTS_GRADIENTS)
        if gradients:
            self._need(Access.GRADIENTS, "gradients through the teacher")
        images = self._images(message)
        teacher = self._teachers[which]
        if message.token != -1:
            if which:
                raise MethodError(f"anchors are of the first teacher, s.teacher, and not of s.teachers[{which}]")
            number = 0 if self._trajectory is None else len(self._trajectory) + 1
            if not 0 <= message.token < number:
                raise MethodError(f"there is no anchor {message.token}: the method declares anchors={number}")
            if self._trajectory is not None and message.token < len(self._trajectory):
                teacher = self._trajectory.at(message.token)
        if gradients and len(self._graphs) >= GRAPHS:
            raise MethodError(f"more than {GRAPHS} answers of the teacher are held with their graphs at a time")
        images.requires_grad_(gradients)
        half = torch.bfloat16 if message.flags & BFLOAT16 else torch.float16
        with torch.autocast(self.device.type, dtype=half, enabled=bool(message.flags & AUTOCAST)):
            answer = teacher.ask(images, question, gradients=gradients)
        if self.access > Access.LABELS:
            self.used = max(self.used, Access.LOGITS)
        parts = _parts(answer, labels_only=self.access == Access.LABELS)
        found: list[Tensor] = []
        places: list[int] = []
        known: dict[int, int] = {}
        for tensors in parts.values():
            for tensor in tensors:
                if id(tensor) not in known:
                    known[id(tensor)] = len(found)
                    found.append(tensor)
                places.append(known[id(tensor)])
        token = self._keep([images], found) if gradients else 0
        sizes = [len(tensors) for tensors in parts.values()]
        marks = [int(tensor.requires_grad) for tensor in found]
        layout = struct.pack(f"<{len(sizes) + len(places)}H", *sizes, *places)
        return Message(Kind.GOOD, token=token, payload=layout, tensors=found, marks=marks)

    def _teacher(self, which: int) -> CountedTeacher:
        if not 0 <= which < len(self._teachers):
            raise BrokenMessage("a question to no teacher")
        return self._teachers[which]

    def _question(self, message: Message) -> tuple[Question, int]:
        """What is asked, and of which teacher."""
        if len(message.payload) != 7 or message.payload[2] >= len(POOLED):
            raise BrokenMessage("a question of no form")
        features, batch_norm, pooled, groups, penultimate, layers, which = message.payload
        self._teacher(which)
        question = Question(
            bool(features), bool(batch_norm), POOLED[pooled], bool(groups), bool(penultimate), bool(layers)
        )
        wants = (
            (question.features, Access.FEATURES, "the teacher's features"),
            (question.batch_norm, Access.BATCH_NORM, "the teacher's batch-norm statistics"),
            (question.pooled == "batch_norm", Access.BATCH_NORM, "the inputs of the teacher's batch-norm layers"),
            (question.pooled == "stages", Access.FEATURES, "the inputs of the teacher's stages"),
            (question.groups, Access.FEATURES, "the teacher's groups"),
            (question.penultimate, Access.FEATURES, "the teacher's penultimate features"),
            (question.layers, Access.FEATURES, "the maps of the teacher's layers"),
        )
        for wanted, level, what in wants:
            if wanted:
                self._need(level, what)
        return question, which

    def _images(self, message: Message) -> Tensor:
        if len(message.tensors) != 1:
            raise BrokenMessage("a question about no batch")
        images = message.tensors[0]
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image.shape:
            raise MethodError(
                f"the teacher takes images (N, {', '.join(map(str, self.image.shape))}), not {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise MethodError(f"the teacher takes normalised images, float32, not {images.dtype}")
        if images.numel() * images.element_size() > HALF:
            raise MethodError(f"a batch of {len(images):,} images is too large")
        return images

    def _keep(self, inputs: list[Tensor], outputs: list[Tensor]) -> int:
        self._tokens += 1
        self._graphs[self._tokens] = (inputs, outputs)
        return self._tokens

    def _free(self, message: Message) -> None:
        for (token,) in struct.iter_unpack("<q", message.payload[: len(message.payload) // 8 * 8]):
            self._graphs.pop(token, None)

    def _backward(self, message: Message) -> Message:
        self._charge()
        self._need(Access.GRADIENTS, "gradients through the teacher")
        if message.token not in self._graphs:
            raise BrokenMessage("a gradient of no graph")
        inputs, outputs = self._graphs[message.token]
        create = bool(message.flags & CREATE_GRAPH)
        places = struct.unpack(f"<{len(message.payload) // 2}H", message.payload[: len(message.payload) // 2 * 2])
        given = list(message.tensors)
        if not places or len(places) != len(given) or len(set(places)) != len(places) or max(places) >= len(outputs):
            raise BrokenMessage("gradients of no outputs")
        wanted = [outputs[place] for place in places]
        for output, gradient in zip(wanted, given, strict=True):
            if output.shape != gradient.shape or output.dtype != gradient.dtype or not output.requires_grad:
                raise BrokenMessage("a gradient of another shape")
        if create:
            if len(self._graphs) >= GRAPHS:
                raise MethodError(f"more than {GRAPHS} answers of the teacher are held with their graphs at a time")
            given = [gradient.requires_grad_() for gradient in given]
        found = torch.autograd.grad(wanted, inputs, given, retain_graph=True, create_graph=create, allow_unused=True)
        there = [(place, each) for place, each in enumerate(found) if each is not None]
        gradients = [each for _, each in there]
        token = self._keep([*inputs, *given], gradients) if create else 0
        payload = struct.pack(f"<{len(there)}H", *(place for place, _ in there))
        marks = [int(each.requires_grad) for each in gradients]
        return Message(Kind.GOOD, token=token, payload=payload, tensors=gradients, marks=marks)

    def _facts(self, message: Message) -> Message:
        name = str(_json(message, str))
        found: Any
        if name == "layers":
            self._need(Access.FEATURES, "the layers of the teacher")
            found = self._teacher(message.token).layers.shapes
        elif name == "pooled batch_norm":
            self._need(Access.BATCH_NORM, "the inputs of the teacher's batch-norm layers")
            found = self._teacher(message.token).pooled_size("batch_norm")
        elif name == "pooled stages":
            self._need(Access.FEATURES, "the inputs of the teacher's stages")
            found = self._teacher(message.token).pooled_size("stages")
        elif name == "real":
            found = len(self._pool())
        else:
            raise BrokenMessage("a fact that nobody knows")
        return Message(Kind.GOOD, payload=json.dumps(found).encode())

    def _weights(self, message: Message) -> Message:
        what = _json(message, str)
        self._need(Access.PARAMETERS, "the teacher's weights")
        network = self._teacher(message.token).network
        if what == "none":
            return Message(Kind.GOOD)
        if what == "weight":
            return Message(Kind.GOOD, tensors=[classifier_weight(network).detach()])
        if what == "bias":
            bias = classifier_bias(network)
            return Message(Kind.GOOD, tensors=[] if bias is None else [bias.detach()])
        if what == "all":
            return Message(Kind.GOOD, tensors=[each.detach() for each in network.state_dict().values()])
        raise BrokenMessage("weights that are not there")

    # ---- real images -----------------------------------------------------------------------------------------------

    def _pool(self) -> RealImages:
        if self.data is not Data.POOL or self._real is None:
            raise DataLeak(f"the method asks for a pool, but declares Data.{self.data.name}")
        return self._real

    def _give_real(self, message: Message) -> Message:
        if not self._started:
            raise MethodError("real images are given only while the method runs")
        if self.data is Data.NONE or self._real is None:
            raise DataLeak("the method asks for real images, but declares Data.NONE")
        asked = _json(message, dict)
        if asked.get("do") == "choose":
            self._choose(message)
            return Message(Kind.GOOD)
        batch = asked.get("batch")
        most = max(1, HALF // (8 * math.prod(self.image.shape)))
        if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= most:
            raise MethodError(f"a batch of real images has 1 to {most:,} of them, not {batch!r}")
        if asked.get("do") == "survey":
            images, places = self._pool().survey(batch)
        else:
            images, places = self._source(asked.get("part")).take(batch)
        self.meter.real_images += len(places)
        return Message(Kind.GOOD, tensors=[images, places])

    def _source(self, part: Any) -> RealImages:
        assert self._real is not None
        if part is None:
            return self._real
        if self.data is not Data.TRAIN:
            raise MethodError("parts are of the training images; with Data.POOL use choose()")
        if not isinstance(part, list) or len(part) != 2 or not all(type(each) is int for each in part):
            raise MethodError(f"a part is (i, n), not {part!r}")
        return self._real.part(part[0], part[1])

    def _choose(self, message: Message) -> None:
        pool = self._pool()
        if len(message.tensors) != 1:
            raise BrokenMessage("a choice of nothing")
        places = message.tensors[0]
        if places.dtype != torch.int64 or places.ndim != 1 or not len(places):
            raise MethodError("choose() takes int64 places (M,), M at least 1")
        if int(places.min()) < 0 or int(places.max()) >= len(pool):
            raise MethodError(f"places in the pool are 0 to {len(pool) - 1}")
        pool.choose(places)


class _Spent(Exception):
    """The budget is used up."""


_PLAIN = frozenset({"RuntimeError", "ValueError", "TypeError", "IndexError", "AttributeError"})


def _parts(answer: TeacherAnswer, labels_only: bool) -> dict[str, list[Tensor]]:
    """The tensors of an answer that a method gets, by what they are."""
    parts: dict[str, list[Tensor]] = {name: [] for name in PARTS}
    if labels_only:
        parts["labels"] = [classes_of(answer.logits)]
        return parts
    parts["logits"] = [answer.logits]
    parts["features"] = answer.features
    parts["statistics"] = [each for entry in answer.statistics for each in entry]
    parts["running"] = [each for entry in answer.running for each in entry]
    parts["means"], parts["groups"] = answer.means, answer.groups
    parts["penultimate"], parts["maps"] = answer.penultimate, answer.maps
    return parts


def _json(message: Message, kind: type) -> Any:
    try:
        value = json.loads(message.payload)
    except (ValueError, RecursionError):
        raise BrokenMessage("a text of no form") from None
    if not isinstance(value, kind):
        raise BrokenMessage("a text of another form")
    return value


def _logs(told: Any) -> dict[str, float]:
    if not isinstance(told, dict) or len(told) > LOGS:
        raise BrokenMessage("logs of no form")
    if not all(isinstance(value, int | float) for value in told.values()):
        raise BrokenMessage("logs that are no numbers")
    return {str(name): float(value) for name, value in told.items()}


def restore_capture(capture: Capture, told: Any, tensors: list[Tensor]) -> None:
    """The sample of images that a method's process took, as :func:`bench.harness.isolation.method_process` sends it."""
    if not isinstance(told, dict) or len(tensors) != 3:
        raise BrokenMessage("a sample of no form")
    images, held, labels = tensors
    shape = capture.image.shape
    if tuple(images.shape[1:]) != shape or tuple(held.shape[1:]) != shape or len(held) != len(labels):
        raise BrokenMessage("a sample of another shape")
    if images.dtype != torch.uint8 or not held.is_floating_point() or labels.dtype != torch.int64:
        raise BrokenMessage("a sample of another type")
    if len(images) > 2 * capture.training.capacity + 1000 or len(held) > 2 * capture.held_out.capacity + 1000:
        raise BrokenMessage("a sample that is too large")
    _fill(capture.training, told.get("training"), {"images": images})
    _fill(capture.held_out, told.get("held_out"), {"images": held, "labels": labels})
    outside, seen = told.get("outside"), told.get("seen")
    if not isinstance(outside, float) or not isinstance(seen, int) or not 0 <= outside <= max(seen, 0):
        raise BrokenMessage("a sample of another share")
    capture._outside, capture._seen = torch.tensor(outside, dtype=torch.float64), seen


def _fill(sample: Any, told: Any, columns: Mapping[str, Tensor]) -> None:
    length = len(next(iter(columns.values())))
    if not isinstance(told, list) or not all(_row(each) for each in told) or sum(row[2] for row in told) != length:
        raise BrokenMessage("a sample of other rows")
    sizes = [row[2] for row in told]
    split = {name: column.split(sizes) for name, column in columns.items()}
    sample.rows = [
        (turn, step, {name: parts[index] for name, parts in split.items()})
        for index, (turn, step, _) in enumerate(told)
    ]


def _row(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 3 and all(type(each) is int and 0 <= each < LARGEST for each in value)
    )


_OURS: Mapping[str, type[BaseException]] = {
    **{"AccessDenied": AccessDenied, "DataLeak": DataLeak, "Diverged": Diverged, "Unsupported": errors.Unsupported},
    **{"MethodError": MethodError, "MemoryError": MemoryError},
}


def failure(name: str, text: str, reason: str, trace: str, *, started: bool) -> BaseException:
    """The error that a method's process told of, to be raised here."""
    error: BaseException
    if name in _OURS:
        error = _OURS[name](text)
    elif name == "UserError" and not started:
        error = UserError(text)
    elif name == "RuntimeError" and ("can't allocate memory" in text or "out of memory" in text):
        error = MemoryError(text)
    else:
        error = MethodFailed(reason)
    if trace:
        error.add_note(f"\nin the method's process:\n{trace}")
    return error
