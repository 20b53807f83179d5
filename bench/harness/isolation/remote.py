"""The teacher and the real images as a method's process has them: questions to the judge, in the places of both."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx

from bench import errors
from bench.errors import MethodError
from bench.harness.counters import Pooled, Question, TeacherAnswer
from bench.harness.isolation.channel import Channel, Kind, Message
from bench.harness.plain_tensors import plain
from bench.harness.sealed import BATCHED, FORWARD
from bench.models.layer_groups import Shape
from bench.spec.budget import Meter, TeacherUse

# what the judge counts itself and tells with each answer, in the order of a message's counts
COUNTED = ("teacher_images", "teacher_backward", "macs")
# what a method's process reports with each question: its own part of these, beside the judge's
REPORTED = (
    *("teacher_images", "teacher_backward", "student_images", "student_backward"),
    *("optimizer_steps", "synthesised_images", "macs"),
)
WANTS_GRADIENTS, AUTOCAST, BFLOAT16 = 1, 2, 4  # flags of a question
CREATE_GRAPH = 8
POOLED: tuple[Pooled | None, ...] = (None, "batch_norm", "stages")
PARTS = ("logits", "labels", "features", "statistics", "running", "means", "groups", "penultimate", "maps")

_BUILT_IN = {kind.__name__: kind for kind in (RuntimeError, ValueError, TypeError, IndexError, AttributeError)}


class Spent(BaseException):
    """The judge answers no more: the budget is used up."""


class Remote:
    """The judge, as a method's process speaks to it: one question at a time."""

    def __init__(self, channel: Channel) -> None:
        self.anchors = 0  # how many can be asked about
        self.meter = Meter()
        self.teachers: Sequence[RemoteTeacher] = ()
        self.uses: list[TeacherUse] = []  # of copies of the teachers in this process, by teacher
        self.learning: Callable[[], None] = lambda: None  # told of each backward pass
        self._channel = channel
        self._counted = dict.fromkeys(COUNTED, 0)  # the judge's part of the meter
        self._dropped: list[int] = []
        self._told: Sequence[int] = (0,) * len(COUNTED)
        self._told_uses = b""
        self.seconds = 0.0  # on the judge's clock, at its last answer

    def meet(self, builders: Sequence[Callable[[], nn.Module]]) -> None:
        """Know the teachers, by what builds the network of each."""
        self.teachers = [RemoteTeacher(self, which, build) for which, build in enumerate(builders)]
        self.uses = [TeacherUse() for _ in builders]

    def request(self, message: Message) -> Message:
        """The judge's answer; its refusals are raised here."""
        self.tell(message)
        meter, counted = self.meter, self._counted
        answer = self._channel.receive()
        self._told = answer.counts
        for name, value in zip(COUNTED, answer.counts, strict=False):
            if value != counted[name]:
                setattr(meter, name, getattr(meter, name) + value - counted[name])
                counted[name] = value
        self.seconds = answer.seconds
        if answer.kind is Kind.SPENT:
            raise Spent
        if answer.kind is Kind.ERROR:
            raise _error(answer)
        return answer

    def tell(self, message: Message) -> None:
        """Send what needs no answer."""
        meter, counted = self.meter, self._counted
        message.counts = tuple(getattr(meter, name) - counted.get(name, 0) for name in REPORTED)
        message.seconds = meter.seconds
        before = b""
        if len(self.uses) > 1 and (uses := packed_uses(self.uses)) != self._told_uses:
            before = self._channel.encoded(Message(Kind.USES, payload=uses))
            self._told_uses = uses
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            for start in range(0, len(dropped), 1000):
                some = dropped[start : start + 1000]
                before += self._channel.encoded(Message(Kind.FREE, payload=struct.pack(f"<{len(some)}q", *some)))
        self._channel.send(message, before)

    def settled(self) -> None:
        """The meter was set from a checkpoint: what it holds beside the judge's counts is reported from now on."""
        self._counted = dict(zip(COUNTED, self._told, strict=False))

    def drop(self, token: int) -> None:
        """Nobody needs a graph any more; the judge is told with the next question."""
        self._dropped.append(token)

    def fact(self, name: str, which: int = 0) -> Any:
        """What the judge knows, of a teacher where it is about one."""
        return json.loads(self.request(Message(Kind.FACTS, token=which, payload=json.dumps(name).encode())).payload)

    # ---- graphs ----------------------------------------------------------------------------------------------------

    def pull(
        self, token: int, present: Sequence[int], gradients: Sequence[Tensor], create_graph: bool
    ) -> tuple[int, list[int], Sequence[Tensor], Sequence[int]]:
        """The gradients of a graph's inputs: the new graph's token, their places, they themselves, their marks."""
        self.learning()
        message = Message(
            Kind.BACKWARD,
            CREATE_GRAPH if create_graph else 0,
            token,
            payload=struct.pack(f"<{len(present)}H", *present),
            tensors=gradients,
        )
        answer = self.request(message)
        places = struct.unpack(f"<{len(answer.payload) // 2}H", answer.payload)
        return answer.token, list(places), answer.tensors, answer.marks


class RemoteTeacher:
    """One of the teachers, 0 the first; as :class:`bench.harness.counters.CountedTeacher`."""

    def __init__(self, remote: Remote, which: int, build: Callable[[], nn.Module]) -> None:
        self._remote = remote
        self._which = which
        self._build = build
        self._layers: RemoteLayers | None = None

    def ask(self, images: Tensor, question: Question, anchor: int | None, *, gradients: bool) -> TeacherAnswer:
        """As :meth:`bench.harness.counters.CountedTeacher.ask`."""
        images = plain(images)
        refuse_transforms(images)
        asked = _Asked(self._remote, self._which, question, anchor)
        if gradients and images.requires_grad and torch.is_grad_enabled():
            asked.wants_gradients = True
            return asked.answer(_Ask.apply(asked, images))  # type: ignore[no-untyped-call]
        return asked.answer(asked.forward(images))

    @property
    def layers(self) -> RemoteLayers:
        if self._layers is None:
            self._layers = RemoteLayers(self._remote.fact("layers", self._which))
        return self._layers

    def pooled_size(self, pooled: Pooled) -> int:
        return int(self._remote.fact(f"pooled {pooled}", self._which))

    def weights(self, what: str) -> Sequence[Tensor]:
        """``weight``, ``bias`` (one or none) of the classifier, or ``all`` in the order of the state_dict."""
        message = Message(Kind.WEIGHTS, token=self._which, payload=json.dumps(what).encode())
        return self._remote.request(message).tensors

    def classifier_weight(self) -> Tensor:
        return self.weights("weight")[0]

    def classifier_bias(self) -> Tensor | None:
        found = self.weights("bias")
        return found[0] if found else None

    def network(self, fresh: bool) -> nn.Module:
        """The teacher's network, with fresh weights or with its own."""
        if fresh:
            self.weights("none")  # the judge agrees, or not
            return self._build()
        values = self.weights("all")
        with torch.random.fork_rng(devices=[]):
            network = self._build()
        names = network.state_dict().keys()
        network.load_state_dict(dict(zip(names, values, strict=True)))
        return network.eval().requires_grad_(False)


def packed_uses(uses: Sequence[TeacherUse]) -> bytes:
    """Images, backward passes and multiply-adds of each teacher, as a message carries them."""
    numbers = [number for use in uses for number in (use.images, use.backward, use.macs)]
    return struct.pack(f"<{len(numbers)}q", *numbers)


class RemoteLayers:
    """As :class:`bench.models.layer_groups.LayerGroups`, of a network that is elsewhere."""

    def __init__(self, shapes: Any) -> None:
        self.shapes: tuple[tuple[Shape, ...], ...] = tuple(
            tuple((int(c), int(h), int(w)) for c, h, w in group) for group in shapes
        )

    def grouped(self, maps: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ...]:
        order = iter(maps)
        return tuple(tuple(next(order) for _ in group) for group in self.shapes)


class _GraphElsewhere:
    """A graph at the judge, as long as this side has a use for it."""

    remote: Remote
    token = 0
    marks: Sequence[int] = ()

    def __del__(self) -> None:
        if self.token:
            self.remote.drop(self.token)


class _Asked(_GraphElsewhere):
    """One question, and what came back."""

    def __init__(self, remote: Remote, which: int, question: Question, anchor: int | None) -> None:
        self.remote = remote
        self.wants_gradients = False
        self._which = which
        self._question = question
        self._anchor = anchor
        self._layout: tuple[int, ...] = ()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        asked = self._question
        kind = images.device.type
        flags = WANTS_GRADIENTS if self.wants_gradients else 0
        if torch.is_autocast_enabled(kind):
            flags |= AUTOCAST | (BFLOAT16 if torch.get_autocast_dtype(kind) == torch.bfloat16 else 0)
        switches = (
            *(asked.features, asked.batch_norm, POOLED.index(asked.pooled)),
            *(asked.groups, asked.penultimate, asked.layers, self._which),
        )
        anchor = -1 if self._anchor is None else self._anchor
        answer = self.remote.request(
            Message(Kind.ASK, flags, anchor, payload=bytes(map(int, switches)), tensors=[images])
        )
        self.token, self.marks = answer.token, answer.marks
        self._layout = struct.unpack(f"<{len(answer.payload) // 2}H", answer.payload)
        return tuple(answer.tensors)

    def answer(self, found: Sequence[Tensor]) -> TeacherAnswer:
        """The tensors in their places; one that is in several places came once."""
        sizes, places = self._layout[: len(PARTS)], iter(self._layout[len(PARTS) :])
        parts = {name: [found[next(places)] for _ in range(size)] for name, size in zip(PARTS, sizes, strict=True)}
        return TeacherAnswer(
            logits=parts["logits"][0] if parts["logits"] else torch.empty(0),
            labels=parts["labels"][0] if parts["labels"] else None,
            features=parts["features"],
            statistics=_pairs(parts["statistics"]),
            running=_pairs(parts["running"]),
            means=parts["means"],
            groups=parts["groups"],
            penultimate=parts["penultimate"],
            maps=parts["maps"],
        )


def _pairs(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tensors[::2], tensors[1::2], strict=True))


class _Ask(torch.autograd.Function):
    """The teacher in a graph of this process: forward asks, backward asks for the gradient to the images."""

    @staticmethod
    def forward(asked: _Asked, images: Tensor) -> tuple[Tensor, ...]:
        return asked.forward(images)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _remember(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        return (None, *_pull(ctx.graph, ctx.saved_tensors, gradients))


class _Pulled(_GraphElsewhere):
    """One backward pass through a graph at the judge, which is a graph itself."""

    def __init__(self, graph: _GraphElsewhere, present: Sequence[int], inputs: int) -> None:
        self.remote = graph.remote
        self.places: list[int] = []
        self.inputs = inputs
        self._graph = graph
        self._present = present

    def forward(self, gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
        answer = self.remote.pull(self._graph.token, self._present, gradients, True)
        self.token, self.places, found, self.marks = answer
        return tuple(found)


class _Pull(torch.autograd.Function):
    """A backward pass of which derivatives may be taken: graphs of any order."""

    @staticmethod
    def forward(pulled: _Pulled, *tensors: Tensor) -> tuple[Tensor, ...]:
        return pulled.forward(tensors[pulled.inputs :])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _remember(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        return (None, *_pull(ctx.graph, ctx.saved_tensors, gradients))


def _remember(ctx: FunctionCtx, graph: _GraphElsewhere, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    ctx.graph = graph  # type: ignore[attr-defined]
    ctx.save_for_backward(*inputs)
    ctx.mark_non_differentiable(*(each for each, mark in zip(outputs, graph.marks, strict=True) if not mark))
    ctx.set_materialize_grads(False)


def _pull(graph: _GraphElsewhere, inputs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of a graph's inputs, given those of its outputs."""
    present = [place for place, each in enumerate(gradients) if each is not None]
    given = [each for each in gradients if each is not None]
    result: list[Tensor | None] = [None] * len(inputs)
    if not given:
        return result
    refuse_transforms(*given)
    if torch.is_grad_enabled():
        pulled = _Pulled(graph, present, len(inputs))
        found: Sequence[Tensor] = _Pull.apply(pulled, *inputs, *given)  # type: ignore[no-untyped-call]
        places = pulled.places
    else:
        _, places, found, _ = graph.remote.pull(graph.token, present, given, False)
    for place, gradient in zip(places, found, strict=True):
        result[place] = gradient
    return result


def refuse_transforms(*tensors: Tensor) -> None:
    """Raise MethodError inside vmap and forward-mode derivatives, which would hide how much the teacher is asked."""
    functorch = torch._C._functorch
    names = [str(level.key()).rpartition(".")[2] for level in functorch.get_interpreter_stack() or ()]
    if "Jvp" in names:
        raise MethodError(FORWARD)
    if any(name != "Grad" for name in names):
        raise MethodError(BATCHED)
    for tensor in tensors:
        if functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor):
            raise MethodError(BATCHED)
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
            raise MethodError(FORWARD)


class RemoteImages:
    """As :class:`bench.data.batches.RealImages`: the real images that the method declared, a batch at a time."""

    def __init__(self, remote: Remote, part: tuple[int, int] | None = None) -> None:
        self._remote = remote
        self._part = part

    def __len__(self) -> int:
        return int(self._remote.fact("real"))

    def take(self, batch: int) -> tuple[Tensor, Tensor]:
        return self._two({"do": "take", "batch": batch, "part": self._part})

    def part(self, index: int, of: int) -> RemoteImages:
        return RemoteImages(self._remote, (index, of))

    def survey(self, batch: int) -> tuple[Tensor, Tensor]:
        return self._two({"do": "survey", "batch": batch})

    def choose(self, places: Tensor) -> None:
        self._remote.request(Message(Kind.REAL, payload=json.dumps({"do": "choose"}).encode(), tensors=[places]))

    def _two(self, what: dict[str, Any]) -> tuple[Tensor, Tensor]:
        images, places = self._remote.request(Message(Kind.REAL, payload=json.dumps(what).encode())).tensors
        return images, places

    def state(self) -> dict[str, Any]:
        """The judge keeps their place."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """The judge has done so."""


def _error(answer: Message) -> BaseException:
    told = json.loads(answer.payload)
    name, text = str(told["type"]), str(told["text"])
    kind = _BUILT_IN.get(name) or getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return kind(text)
    return RuntimeError(f"{name}: {text}")
