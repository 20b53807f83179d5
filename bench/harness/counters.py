"""Counting what networks do, from outside: images and multiply-adds, forward and backward."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import register_multi_grad_hook
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from bench.errors import MethodError, Unsupported
from bench.harness.no_tensor import NoTensor, must_be_tensor
from bench.harness.plain_tensors import bare, is_wrapped, plain, repeats, transformed
from bench.harness.sealed import alone, sealed
from bench.models import head, linear_classifier, stages
from bench.models.cost import MultiplyAdds, bare_copy
from bench.models.layer_groups import LayerGroups
from bench.models.taps import HOW
from bench.spec.budget import Meter, TeacherUse

PRICES = 1000  # kinds of calls of one network whose cost is remembered


class BackwardPass:
    """Counts the backward passes through one forward pass, whether they begin at its answer or at inner features."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._counted = False

    def at_answer(self, gradient: Tensor) -> None:
        self._count(repeats(gradient))
        self._counted = True

    def at_features(self, gradient: Tensor) -> None:
        """After the answer, or in its place."""
        if not self._counted:
            self._count(repeats(gradient))
        self._counted = False


@dataclass(eq=False)
class _Network:
    """A network whose calls are counted, and how."""

    name: str
    forward: Callable[[_Call, list[Tensor], list[Tensor]], Callable[[int], None]]  # gives what a backward pass counts
    whole: bool = False  # the harness's own: its parts must not be called by themselves
    named: bool = True  # the harness's own, or kept by the method, or a part of such a one
    spent: Callable[[int], None] = lambda macs: None  # told of the multiply-adds beside the meter  # noqa: ARG005
    prices: dict[Any, int] = field(default_factory=dict)


@dataclass
class _Call:
    """A call that is being made; ``inner`` are the multiply-adds of counted networks that it has called."""

    network: _Network
    inner: int = 0
    made: int = 0  # images that these have made


_HARNESS = _Network("the harness's own", lambda *_: lambda _: None)


class _CountedHere(threading.local):
    """What a thread is doing."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.parts_allowed = False
        self.last: BackwardPass | None = None  # of the last forward pass that was counted


class Counter:
    """Feeds a meter with every call of a network that is made while it is installed, whoever makes it.

    It stands in the place of ``nn.Module.__call__``, so that a copy of a network carries nothing along and every way to
    call one is seen: any arguments, ``torch.func.functional_call``, a wrapper. The cost of a call is counted on the
    call itself the first time that a network gets arguments of these shapes.

    A backward pass through a network counts twice the multiply-adds of its forward pass (gradients to weights and to
    the input). A pass through gradients themselves (``create_graph``) is not counted on top.
    """

    def __init__(self, meter: Meter, image_shape: tuple[int, int, int], running: Callable[[], bool]) -> None:
        self.before: Callable[[], None] = lambda: None  # told of each call before it is made
        self.learning: Callable[[], None] = lambda: None  # told of each backward pass
        self._meter = meter
        self._image_shape = image_shape
        self._running = running
        self._networks: dict[int, _Network] = {}
        self._parts: dict[int, _Network] = {}  # of networks that are only called whole
        self._modules: list[nn.Module] = []  # those of both: an id stays theirs
        self._others: weakref.WeakKeyDictionary[nn.Module, _Network | None] = weakref.WeakKeyDictionary()
        self._here = _CountedHere()
        self._original: Any = None
        self._installed: Any = None

    # ---- which networks --------------------------------------------------------------------------------------------

    def watch_student(self, student: nn.Module, on_images: Callable[[Tensor, bool], None]) -> None:
        """Count a student; ``on_images`` gets every input batch, counted, and whether it wants a gradient."""
        meter = self._meter

        def forward(_: _Call, inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[int], None]:
            count = self._images_through(inputs, outputs)
            meter.student_images += count
            on_images(bare(inputs[0], self._image_shape), inputs[0].requires_grad)

            def backward(times: int) -> None:
                meter.student_backward += count * times

            return backward

        self._watch(student, _Network("the student", forward, whole=True))

    def watch_copy(self, copy: nn.Module, use: TeacherUse) -> None:
        """Count a trainable copy of a teacher as the teacher: training a copy queries it just as much."""
        meter = self._meter

        def forward(_: _Call, inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[int], None]:
            count = self._images_through(inputs, outputs)
            meter.teacher_images += count
            use.add(images=count)

            def backward(times: int) -> None:
                meter.teacher_backward += count * times
                use.add(backward=count * times)

            return backward

        network = _Network("a copy of the teacher", forward, whole=True, spent=lambda macs: use.add(macs=macs))
        self._watch(copy, network)

    def watch_kept(self, network: nn.Module) -> None:
        """Count any other network of the method; outputs in the shape of images are synthesised images."""
        if id(network) not in self._networks:
            self._watch(network, _Network(type(network).__name__, self._made))

    def _watch(self, module: nn.Module, network: _Network) -> None:
        self._networks[id(module)] = network
        self._modules.append(module)
        if network.whole:
            for part in module.modules():
                self._parts[id(part)] = network
                self._modules.append(part)
        self._others.clear()  # what was a stranger may be a part of this one

    def watch_features(self, *features: Tensor) -> None:
        """Features of the network that was asked last: a loss may begin at any of them, and never reach its answer."""
        last = self._here.last
        wanting = [each for each in features if each.requires_grad]
        if last is not None and wanting:
            register_multi_grad_hook(wanting, last.at_features, mode="any")  # once in a backward pass

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Inside, the harness asks its own network, and counts it separately."""
        self._here.calls.append(_Call(_HARNESS))
        try:
            yield
        finally:
            self._here.calls.pop()

    @contextlib.contextmanager
    def parts(self) -> Iterator[None]:
        """Inside, the harness calls a part of a network, as a method must not."""
        before, self._here.parts_allowed = self._here.parts_allowed, True
        try:
            yield
        finally:
            self._here.parts_allowed = before

    # ---- being there -----------------------------------------------------------------------------------------------

    def install(self) -> None:
        original = self._original = nn.Module.__call__
        networks, parts, here, running = self._networks, self._parts, self._here, self._running

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            network = networks.get(id(module))
            if network is None and here.calls and parts.get(id(module)) in (None, here.calls[-1].network):
                return original(module, *args, **kwargs)
            if not running():  # the harness's own work
                return original(module, *args, **kwargs)
            if network is None:
                network = self._stranger(module)
                if network is None:
                    return original(module, *args, **kwargs)
            return self._count(network, module, args, kwargs)

        self._installed = nn.Module.__call__ = call  # type: ignore[method-assign]

    def remove(self) -> None:
        if self._original is not None:
            nn.Module.__call__ = self._original  # type: ignore[method-assign]
            self._original = None

    @property
    def installed(self) -> bool:
        return nn.Module.__call__ is self._installed

    # ---- a call ----------------------------------------------------------------------------------------------------

    def _count(self, network: _Network, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.before()
        inputs = list(_tensors((args, kwargs)))
        if network.whole:
            self._must_be_images(network.name, inputs, args)
            if type(inputs[0]) is not Tensor:
                args, kwargs = tree_map_only(Tensor, plain, (args, kwargs))
        calls = self._here.calls
        signature = None if transformed() else _signature((module.training, args, kwargs))
        price = network.prices.get(signature) if signature is not None else None
        call = _Call(network)
        calls.append(call)
        try:
            if price is None:
                with MultiplyAdds() as counted:
                    output = self._original(module, *args, **kwargs)
                price = counted.total - call.inner
                if signature is not None and len(network.prices) < PRICES:
                    network.prices[signature] = price
            else:
                output = self._original(module, *args, **kwargs)
        finally:
            calls.pop()
        if isinstance(output, Tensor):
            output = full_precision(output)
        outputs = list(_tensors(output))
        self._meter.macs += price
        network.spent(price)
        on_backward = network.forward(call, inputs, outputs)
        if calls:
            calls[-1].inner += price + call.inner
            calls[-1].made += call.made
        self._here.last = None
        wanting = [each for each in outputs if each.requires_grad]
        if wanting:

            def backward(times: int) -> None:
                self.learning()
                self._meter.macs += 2 * price * times
                network.spent(2 * price * times)
                on_backward(times)

            self._here.last = BackwardPass(backward)
            if len(wanting) == 1:
                wanting[0].register_hook(self._here.last.at_answer)
            else:
                register_multi_grad_hook(wanting, self._here.last.at_answer, mode="any")
        return output

    def _made(self, call: _Call, _: list[Tensor], outputs: list[Tensor]) -> Callable[[int], None]:
        shape = self._image_shape
        images = [each for each in outputs if tuple(each.shape[-3:]) == shape and each.ndim in (3, 4)]
        if images:
            if not call.network.named:
                raise MethodError(
                    f"a network ({call.network.name}) makes images but is not kept: s.keep(name, network)"
                )
            count = sum(len(bare(each, shape)) for each in images)
            self._meter.synthesised_images += count - call.made  # some may be handed on from a network within
            call.made = count
        return lambda _: None

    def _must_be_images(self, who: str, inputs: list[Tensor], args: Sequence[Any]) -> None:
        for each in args:
            if isinstance(each, NoTensor):
                must_be_tensor(each, who)
        shapes = [tuple(plain(each).shape) for each in inputs]
        if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1:] != self._image_shape:
            wanted = ", ".join(map(str, self._image_shape))
            found = " and ".join(map(str, shapes)) or ", ".join(type(each).__name__ for each in args) or "nothing"
            raise MethodError(f"{who} takes images (N, {wanted}), as this task has them, not {found}")

    def _images_through(self, inputs: list[Tensor], outputs: list[Tensor]) -> int:
        """How many images a network was asked about, whatever the tensors say of themselves."""
        count = len(bare(inputs[0], self._image_shape))
        if outputs and is_wrapped(outputs[0]):  # the weights may be batched, and not the images
            count = max(count, len(bare(outputs[0], tuple(outputs[0].shape[1:]))))
        return count

    def _stranger(self, module: nn.Module) -> _Network | None:
        """How to count a network that nobody has named; None for one without its own weights."""
        with contextlib.suppress(KeyError):
            return self._others[module]
        if (whole := self._parts.get(id(module))) is not None:
            if self._here.parts_allowed:
                return None
            raise MethodError(
                f"a part of {whole.name} ({type(module).__name__}) is called by itself: only whole networks are "
                "counted; of the student, call s.student, s.student_features or s.student_head"
            )
        owned = any(part is module for known in self._modules for part in known.modules())
        known = {id(each) for watched in self._modules for each in watched.parameters()}
        parameters = {id(each) for each in module.parameters()}
        own = bool(parameters) and (owned or not parameters <= known)
        found = _Network(type(module).__name__, self._made, named=owned) if own else None
        self._others[module] = found
        return found


def full_precision(output: Tensor) -> Tensor:
    """float32 instead of the half precision in which a network has computed: losses take sums and logarithms of it."""
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested containers and data classes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif dataclasses.is_dataclass(value):
        yield from _tensors(vars(value))


def _signature(value: Any) -> Any:
    """What the cost of a call depends on: shapes and switches. None where it cannot be told."""
    try:
        return _described(value)
    except TypeError:
        return None


def _described(value: Any) -> Any:
    kind = type(value)
    if kind is Tensor or kind is nn.Parameter:
        return value.shape, value.dtype
    if kind in (bool, int, str) or value is None:
        return value
    if kind is float:
        return kind
    if kind in (tuple, list):
        return tuple([_described(each) for each in value])
    if kind is dict:
        return tuple([(name, _described(each)) for name, each in value.items()])
    raise TypeError


Pooled = Literal["batch_norm", "stages"]


@dataclass(frozen=True)
class Question:
    """What a method wants to know about the teacher besides its logits."""

    features: bool = False
    batch_norm: bool = False
    pooled: Pooled | None = None
    groups: bool = False
    penultimate: bool = False
    layers: bool = False


@dataclass
class TeacherAnswer:
    """The teacher's logits and what was asked for beside them, in the order of the forward pass."""

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: Tensor | None = None  # in the logits' place, where another process answers and no more was declared
    features: list[Tensor] = field(default_factory=list)  # one, the input of the head
    statistics: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # mean, var
    running: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # copies of the stored mean, var
    means: list[Tensor] = field(default_factory=list)  # (N, C) each
    groups: list[Tensor] = field(default_factory=list)  # (N, C, h, w) each
    penultimate: list[Tensor] = field(default_factory=list)  # one, the input of the classifier
    maps: list[Tensor] = field(default_factory=list)  # (N, C, h, w) of each layer

    @property
    def pooled(self) -> Tensor:
        """(N, D), all spatial means side by side."""
        return torch.cat(self.means, 1)

    def tensors(self) -> list[Tensor]:
        """Everything that depends on the images."""
        return [
            self.logits,
            *self.features,
            *itertools.chain.from_iterable(self.statistics),
            *self.means,
            *self.groups,
            *self.penultimate,
            *self.maps,
        ]

    def holding(self, tensors: Sequence[Tensor]) -> TeacherAnswer:
        """The same answer with these in the place of :meth:`tensors`."""
        order = iter(tensors)
        return TeacherAnswer(
            logits=next(order),
            features=[next(order) for _ in self.features],
            statistics=[(next(order), next(order)) for _ in self.statistics],
            running=self.running,
            means=[next(order) for _ in self.means],
            groups=[next(order) for _ in self.groups],
            penultimate=[next(order) for _ in self.penultimate],
            maps=[next(order) for _ in self.maps],
        )


class CountedTeacher:
    """A frozen teacher in evaluation mode, its answers counted."""

    def __init__(
        self, network: nn.Module, image_shape: tuple[int, int, int], meter: Meter, use: TeacherUse | None = None
    ) -> None:
        """``use`` counts this teacher alone, beside the meter of the whole trial."""
        self.network = network.eval().requires_grad_(False)
        self.use = TeacherUse() if use is None else use
        self.learning: Callable[[], None] = lambda: None  # told of each backward pass
        self._prices: dict[int, int] = {}  # by the number of images
        self._image_shape = image_shape
        self._meter = meter

    def ask(self, images: Tensor, question: Question, *, gradients: bool) -> TeacherAnswer:
        """The network's answer to normalised images (N, C, H, W); only what is asked for is computed.

        Nothing in it leads to the network: what a gradient needs stays here (:mod:`bench.harness.sealed`).

        Raises:
            MethodError: the images are not of the task's size.
            Unsupported: the network has no batch norm, no stages, no layers or no linear classifier, and the question
                is about them.
        """
        images = plain(images)
        if images.ndim != 4 or tuple(images.shape[1:]) != self._image_shape:
            wanted = ", ".join(map(str, self._image_shape))
            raise MethodError(
                f"the teacher takes images (N, {wanted}), as this task has them, not {tuple(images.shape)}"
            )
        count = len(images)
        # Without declared gradients nothing could use a graph; with them one is built if the images want it.
        if gradients and torch.is_grad_enabled() and images.requires_grad:
            found: list[TeacherAnswer] = []

            def work(entry: Tensor) -> list[Tensor]:
                found.append(self._answer(entry, question))
                return found[-1].tensors()

            tensors = sealed(work, images, lambda: self._count_backward(count))
            answer = found[0].holding(tensors)
        else:
            with alone(), torch.no_grad():
                answer = self._answer(images, question)
        self._meter.teacher_images += count
        self._meter.macs += self._prices[count]
        self.use.add(images=count, macs=self._prices[count])
        return answer

    def _answer(self, images: Tensor, question: Question) -> TeacherAnswer:
        count = len(images)
        answer = TeacherAnswer()
        hooks = self._tap(question, answer)
        try:
            if count in self._prices:
                answer.logits = full_precision(self.network(images))
            else:
                with MultiplyAdds() as counted:
                    answer.logits = full_precision(self.network(images))
                self._prices[count] = counted.total
        finally:
            for hook in hooks:
                hook.remove()
        return answer

    @cached_property
    def layers(self) -> LayerGroups:
        return LayerGroups(self.network, self._image_shape)

    def pooled_size(self, pooled: Pooled) -> int:
        """The length D of :attr:`TeacherAnswer.pooled`; no image is asked about, and nothing is counted."""
        ghost = CountedTeacher.__new__(CountedTeacher)
        ghost.network = bare_copy(self.network).to("meta")
        answer = TeacherAnswer()
        ghost._tap(Question(pooled=pooled), answer)
        with torch.no_grad():
            ghost.network(torch.empty(1, *self._image_shape, device="meta"))
        return answer.pooled.shape[1]

    def _tap(self, question: Question, answer: TeacherAnswer) -> list[RemovableHandle]:
        network = self.network
        hooks = []
        if question.features:
            hooks.append(head(network).register_forward_pre_hook(lambda _, args: answer.features.append(args[0])))
        if question.batch_norm:

            def note(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
                answer.statistics.append(_moments(args[0]))
                answer.running.append(_stored(layer))

            hooks += [layer.register_forward_pre_hook(note) for layer in _norms(network)]
        if question.pooled is not None:
            hooks += [
                module.register_forward_pre_hook(lambda _, args: answer.means.append(_spatial_mean(args[0])))
                for module in (_norms(network) if question.pooled == "batch_norm" else tapped_stages(network))
            ]
        if question.groups:
            hooks += tap_groups(network, answer.groups)
        if question.penultimate:
            hooks.append(tap_penultimate(network, answer.penultimate))
        if question.layers:
            hooks += self.layers.tap(answer.maps)
        return hooks

    def _count_backward(self, count: int) -> None:
        self.learning()
        self._meter.teacher_backward += count
        self._meter.macs += self._prices[count]
        self.use.add(backward=count, macs=self._prices[count])


def tap_groups(network: nn.Module, into: list[Tensor]) -> list[RemovableHandle]:
    """Hooks that put the outputs of a network's stages into a list, until they are removed."""
    return [stage.register_forward_hook(lambda *call: into.append(call[2])) for stage in tapped_stages(network)]


def tap_penultimate(network: nn.Module, into: list[Tensor]) -> RemovableHandle:
    """A hook that puts the input of a network's linear classifier into a list, until it is removed."""
    return linear_classifier(network).register_forward_pre_hook(lambda _, args: into.append(args[0]))


def tapped_stages(network: nn.Module) -> list[nn.Module]:
    """The network's stages.

    Raises:
        Unsupported: it names none.
    """
    found = stages(network)
    if not found:
        raise Unsupported(f"{type(network).__name__} names no stages, and the method needs its groups; {HOW}")
    return found


def _norms(network: nn.Module) -> list[nn.Module]:
    norm = nn.modules.batchnorm._BatchNorm
    found: list[nn.Module] = [module for module in network.modules() if isinstance(module, norm)]
    if not found:
        raise Unsupported(f"{type(network).__name__} has no batch norm, and the method needs its statistics")
    return found


def _spatial_mean(value: Tensor) -> Tensor:
    """(N, C) of (N, C, ...)."""
    return value.flatten(2).mean(2) if value.ndim > 2 else value


def _stored(layer: nn.Module) -> tuple[Tensor, Tensor]:
    running_mean, running_var = layer.running_mean, layer.running_var
    assert isinstance(running_mean, Tensor)
    assert isinstance(running_var, Tensor)
    return running_mean.clone(), running_var.clone()


def _moments(value: Tensor) -> tuple[Tensor, Tensor]:
    if value.device.type == "cpu" and value.dtype in (torch.float32, torch.float64):
        moments: tuple[Tensor, Tensor] = _Moments.apply(value)  # type: ignore[no-untyped-call]
        return moments
    var, mean = torch.var_mean(value, dim=_all_but_channels(value), correction=0)
    return mean, var


def _all_but_channels(value: Tensor) -> list[int]:
    return [axis for axis in range(value.ndim) if axis != 1]


class _Moments(torch.autograd.Function):
    """Mean and biased variance of each channel, in two passes: on a CPU torch's ``var_mean`` takes five times as long,
    its gradient included, and one is taken for each batch norm of the teacher."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        axes = _all_but_channels(value)
        mean = value.mean(axes, keepdim=True)
        ctx.save_for_backward(value, mean)
        return mean.flatten(), (value - mean).square_().mean(axes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_var: Tensor) -> Tensor:
        value, mean = ctx.saved_tensors
        count = value.numel() // mean.numel()
        slope = (of_var * (2 / count)).view_as(mean)
        return torch.addcmul(of_mean.view_as(mean) / count - slope * mean, slope, value)
