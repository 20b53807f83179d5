"""A trial that goes on step by step, and the bare passes of its networks beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from needed_passes import INPUT, NOTHING, WEIGHTS, Pass
from torch import Tensor, nn

from bench.data import Split
from bench.harness.trial_context import TrialContext
from bench.models.cost import bare_copy


class Enough(BaseException):
    """Ends a method whose trial is not wanted any more."""


class Stepping:
    """The method works in a thread of its own and waits between two steps; never do both threads work at once."""

    def __init__(self, context: TrialContext, run: Callable[[], None], teacher: nn.Module | None = None) -> None:
        """``teacher``: where the context is an older checkout's, which keeps its teacher elsewhere."""
        self.context = context
        self.inputs: dict[str, tuple[int, ...]] = {}  # of each network, without the batch
        self.further: dict[str, tuple[Tensor, ...]] = {}  # arguments that come after the inputs, such as labels
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(run,))
        context.hooks.after_step = self._pause
        context.hooks.on_keep = self._look
        self._look("teacher", context._teachers[0].network if teacher is None else teacher)
        self._look("student", context.student)

    def __enter__(self) -> Stepping:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        self._go.release()
        self._thread.join()

    def advance(self, steps: int = 1) -> None:
        for _ in range(steps):
            self._go.release()
            self._done.acquire()
            if self._error is not None:
                raise self._error

    def _work(self, run: Callable[[], None]) -> None:
        self._go.acquire()
        try:
            if not self._ended:
                run()
                raise AssertionError("the method ended by itself")
        except Enough:
            return
        except BaseException as error:
            self._error = error
        self._done.release()

    def _pause(self) -> None:
        self._done.release()
        self._go.acquire()
        if self._ended:
            raise Enough

    def _look(self, name: str, thing: Any) -> None:
        """Note the shape of what a network gets; its class may take no other."""
        if isinstance(thing, nn.Module):

            def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
                self.inputs.setdefault(name, tuple(given[0].shape[1:]))
                self.further.setdefault(name, tuple(each for each in given[1:] if isinstance(each, Tensor)))

            thing.register_forward_pre_hook(note)


class Floor:
    """Passes on random inputs, with the networks' copies: no losses, no updates, nothing drawn or counted."""

    def __init__(self, stepping: Stepping, passes: Sequence[Pass]) -> None:
        context = self._context = stepping.context
        networks = {"teacher": context._teachers[0].network, "student": context.student, **context.kept}
        copies = {name: bare_copy(networks[name]) for name in {each.network for each in passes}}
        self._plays = [
            self._prepared(each, copies[each.network], stepping.inputs[each.network], stepping.further[each.network])
            for each in passes
        ]

    def play(self) -> None:
        with self._context._counter.silent():  # the trial is running, and these passes are not the method's
            for play in self._plays:
                play()

    def _prepared(
        self, needed: Pass, network: nn.Module, shape: tuple[int, ...], further: tuple[Tensor, ...]
    ) -> Callable[[], None]:
        others = [each[:1].expand(needed.count, *each.shape[1:]) for each in further]
        given = torch.randn(needed.count, *shape, device=self._context.device, requires_grad=needed.to == INPUT)
        training = needed.training and needed.network != "teacher"
        upstream: list[Tensor] = []  # made when the first pass shows its shape

        def play() -> None:
            network.train(training)
            with torch.set_grad_enabled(needed.to != NOTHING):
                answer = network(given, *others)
            if needed.to == NOTHING:
                return
            if not upstream:
                upstream.append(torch.randn_like(answer))
            wanted = list(network.parameters()) if needed.to == WEIGHTS else [given]
            torch.autograd.grad(answer, wanted, upstream[0])

        return play


class Row(NamedTuple):
    """A measurement: times in seconds of processor time, medians over the rounds."""

    method: str
    task: str
    batch: str
    kinds: str
    rounds: int
    step: float
    floor: float
    ratio: float  # the median of the rounds' ratios

    @classmethod
    def of(
        cls, name: str, task: str, options: Any, kinds: Sequence[str], steps: Sequence[float], floors: Sequence[float]
    ) -> Row:
        ratios = [step / floor for step, floor in zip(steps, floors, strict=True)]
        sizes = [
            getattr(options, key) for key in ("batch", "batch_synthesis", "batch_student") if hasattr(options, key)
        ]
        return cls(
            name,
            task,
            "/".join(map(str, sizes)),
            "+".join(kinds),
            len(steps),
            median(steps),
            median(floors),
            median(ratios),
        )


def real_images(shape: tuple[int, int, int], count: int = 4096) -> Split:
    """For the methods on real data: what the images show does not matter."""
    return Split(torch.randint(256, (count, *shape), dtype=torch.uint8), torch.randint(10, (count,)))
