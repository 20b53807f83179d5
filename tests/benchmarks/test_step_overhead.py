"""What the harness adds to a training step: the same loops through a Session and written bare in PyTorch.

``make bench`` prints both; docs/performance.md holds the ratios. Speed is measured here, never asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Session, image_generator
from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.models import build
from bench.spec.budget import Budget
from bench.spec.method_loader import load_method
from bench.spec.method_registry import find_methods
from bench.spec.task import get_task

TASK = get_task("mnist/lenet5-half")
STEPS = 4


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def through_the_harness(
    make_context: Callable[..., TrialContext], method: Callable[[Session], None], steps: int
) -> None:
    networks = {"teacher": build("lenet5", TASK.image, 10), "student": build("lenet5-half", TASK.image, 10)}
    context = make_context(image=TASK.image, budget=Budget(steps=steps), access=Access.FEATURES, **networks)
    with context:
        context.clock.start()
        method(session_for(TASK.image, 10))


def bare_dafl(batch: int, width: int, steps: int) -> None:
    """DAFL as one would write it for one run: the same generator, losses and optimisers, nothing counted or kept."""
    teacher = build("lenet5", TASK.image, 10).eval().requires_grad_(False)
    student = build("lenet5-half", TASK.image, 10)
    generator = image_generator(100, TASK.image, width, eps=0.8)
    opt_g, opt_s = Adam(generator.parameters(), 0.2), Adam(student.parameters(), 2e-3)
    for _ in range(steps):
        images = generator(torch.randn(batch, 100))
        features = teacher.body(images)
        logits = teacher.head(features)
        one_hot = F.cross_entropy(logits, logits.detach().argmax(1))
        mean = logits.softmax(1).mean(0)
        loss = one_hot + 5 * (mean * mean.log10()).sum() - 0.1 * features.abs().mean()
        opt_g.zero_grad()
        loss.backward()
        opt_g.step()
        answer = student(images.detach())
        target = logits.detach().log_softmax(1)
        opt_s.zero_grad()
        F.kl_div(answer.log_softmax(1), target, reduction="batchmean", log_target=True).backward()
        opt_s.step()


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("way", ["bare", "harness"])
def test_dafl_steps_at_batch_256(
    benchmark: Any, make_context: Callable[..., TrialContext], way: str, width: int
) -> None:
    if width == 128 and not benchmark.enabled:
        pytest.skip("measured with --benchmark-enable only: width 32 tries the code")
    benchmark.group = f"dafl, mnist/lenet5-half, batch 256, width {width}, {STEPS} steps"
    method = load_method(find_methods()["dafl"])
    options = method.make_options({"batch": 256, "width": width})

    def run() -> None:
        if way == "bare":
            bare_dafl(256, width, STEPS)
        else:
            through_the_harness(make_context, lambda session: method.run(session, options), STEPS)

    benchmark.pedantic(run, rounds=7 if width == 32 else 3, warmup_rounds=1)


def test_thousand_steps_of_an_empty_method(benchmark: Any, make_context: Callable[..., TrialContext]) -> None:
    benchmark.group = "an empty method, 1,000 steps (seconds here are milliseconds a step)"

    def empty(session: Session) -> None:
        for _ in session.steps("nothing"):
            pass

    benchmark.pedantic(lambda: through_the_harness(make_context, empty, 1000), rounds=10, warmup_rounds=1)
