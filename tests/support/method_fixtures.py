"""A context and its session as the runner sets them up, around small untrained networks or the digits' real teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.data import Dataset, Split, load
from bench.data.image_spec import ImageSpec
from bench.harness.session import Session, session_for
from bench.harness.teachers.cache import get_teacher
from bench.harness.trial_context import TrialContext
from bench.models import build
from bench.spec.budget import Budget
from bench.spec.method import Access, Data, Method
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key
from bench.utils.rng import seed_everything

IMAGE = ImageSpec(channels=1, size=32, mean=(0.3,), std=(0.25,))
CPU = torch.device("cpu")


def lenet(seed: int, name: str = "lenet5") -> nn.Module:
    """An untrained network on :data:`IMAGE`; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(name, IMAGE, 10)


class Listening(nn.Module):
    """A network that remembers every batch it is asked about."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = network.head
        self.heard: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "meta":
            self.heard.append(images.detach().clone())
        logits: Tensor = self.network(images)
        return logits


def kin() -> nn.Module:
    """A student that predicts as ``lenet(1, "lenet5bn")`` does, but is less sure: adversarial terms are not 0."""
    network = lenet(1, "lenet5bn")
    for parameter in network.head[-1].parameters():  # type: ignore[union-attr,operator,index]
        parameter.data.mul_(0.5)
    return network


def images_of(count: int, seed: int = 0) -> Split:
    stream = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, *IMAGE.shape), generator=stream, dtype=torch.uint8)
    return Split(pixels, torch.randint(10, (count,), generator=stream))


@contextmanager
def trial(
    *,
    steps: int | None = None,
    teacher_images: int | None = None,
    access: Access = Access.PARAMETERS,
    data: Data = Data.NONE,
    train: Split | None = None,
    teacher: nn.Module | None = None,
    student: nn.Module | None = None,
    image: ImageSpec = IMAGE,
    seed: int = 0,
    loops: bool = False,
    **around: Any,
) -> Iterator[tuple[Session, TrialContext]]:
    """One trial, its clock running; seeds torch's global random state as the runner does.

    With ``loops`` what is trained outside a loop is refused, as in a real trial. ``around`` goes to the context:
    anchors, hooks and the like.
    """
    with torch.random.fork_rng():
        seed_everything(seed)
        context = TrialContext(
            image=image,
            teacher=teacher if teacher is not None else lenet(1),
            student=student if student is not None else lenet(2, "lenet5-half"),
            budget=Budget(steps=steps, teacher_images=teacher_images),
            access=access,
            data=data,
            device=CPU,
            seed=seed,
            real=train,
            **around,
        )
        if not loops:
            context.learning = lambda: None  # most tests look at a single call, and need no loop around it
        with context:
            context.clock.start()
            yield session_for(image, 10), context


def run(method: Method, options: dict[str, object], *, train: Split | None = None, **around: object) -> TrialContext:
    """Run a built-in method to the end of its budget, with what it declares; returns the context it leaves."""
    with trial(access=method.access, data=method.data, train=train, **around) as (session, context):  # type: ignore[arg-type]
        method.run(session, method.make_options(options))
        return context


def first_quick(values: Iterable[Any]) -> list[Any]:
    """Values of a parameter of which `make test` tries the first: the others go through the same code, and are slow."""
    return [pytest.param(value, marks=[pytest.mark.slow] * (number > 0)) for number, value in enumerate(values)]


def same_weights(a: nn.Module, b: nn.Module, tolerance: float = 0.0) -> bool:
    """Whether two networks hold the same weights, up to ``tolerance`` in any of them."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all((left.double() - right.double()).abs().max() <= tolerance for left, right in pairs)


@cache
def digits() -> Dataset:
    return load("digits", size=32)


@cache
def _digits_teacher() -> nn.Module:
    task = get_task("digits/lenet5-half")
    return get_teacher(task, teacher_key(task), digits()).network


def digits_teacher() -> nn.Module:
    """The digits' teacher of the task's own recipe, about 98 % right; trained on first use."""
    return copy.deepcopy(_digits_teacher())
