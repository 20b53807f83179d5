"""Steps of every method at its paper's batch sizes, beside the bare passes of the networks that they need.

``make bench`` prints both; docs/performance.md holds the ratios. Speed is measured here, never asserted. The floor has
no losses, no optimisers and no augmentation in it: a ratio of 1 would be a method that does nothing but call networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from passes import Pass, play, write_down

from bench.budget import Budget
from bench.cards import find_methods, load_method
from bench.desk import Desk
from bench.expansion import preset
from bench.models import build
from bench.session import session_for
from bench.support import why_unsupported
from bench.task import get_task

TASKS = ("mnist/lenet5-half", "cifar10/wrn16-1")
STEPS = 12  # of every loop: enough for a round of those that take turns
TRIED = ("dfad", "mnist/lenet5-half")  # where only the code is tried
METHODS = [name for name, card in find_methods().items() if card.data.value == "none"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("way", ["bare", "harness"])
def test_steps(benchmark: Any, make_desk: Callable[..., Desk], request: Any, name: str, task: str, way: str) -> None:
    card, spec = find_methods()[name], get_task(task)
    if reason := why_unsupported(card, spec):
        pytest.skip(reason)
    measured = request.config.getoption("benchmark_enable")
    if not measured and (name, task) != TRIED:
        pytest.skip("measured with --benchmark-enable only: the papers' batches take minutes")
    values = preset(card, spec, "paper") if measured else dict(card.quick)
    method = load_method(card)
    steps = STEPS if measured else 2
    benchmark.group = f"{name}, {task}, {steps} steps"

    def fresh() -> Desk:
        teacher = build(spec.teacher.network, spec.image, 10).eval().requires_grad_(False)
        student = build(spec.student, spec.image, 10)
        budget = Budget(steps=steps)
        return make_desk(image=spec.image, budget=budget, access=card.access, teacher=teacher, student=student)

    def run(desk: Desk) -> None:
        with desk:
            desk.clock.start()
            method.run(session_for(spec.image, 10), method.make_options(values))

    if way == "harness":
        benchmark.pedantic(run, setup=lambda: ((fresh(),), {}), rounds=3 if measured else 1)
        return
    desk = fresh()
    passes: list[Pass] = write_down(desk, lambda: run(desk))
    benchmark.pedantic(lambda: play(passes, desk._teacher.network), rounds=3 if measured else 1)
