"""The harness counts, and cannot be fooled."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD

from bench import image_generator
from bench.harness.counters import _moments
from bench.harness.session import session_for
from bench.harness.trial_context import BudgetSpent, TrialContext
from bench.spec.budget import Budget

MakeContext = Callable[..., TrialContext]
TEACHER, STUDENT = 416_520, 133_740  # multiply-adds of the LeNet pair


def test_images_are_counted_forward_and_backward(make_context: MakeContext) -> None:
    with make_context() as context:
        session = session_for(context.image, 10)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.1))
        context.clock.start()
        images = torch.randn(6, *context.image.shape, requires_grad=True)
        out = session.teacher(images, features=True)
        (out.logits.sum() + out.features.sum()).backward()
        with torch.no_grad():
            session.student(images)
        session.update(opt, session.student(images.detach()).mean())
        meter = context.meter
    assert meter.teacher_images == 6
    assert meter.teacher_backward == 6  # once, although both outputs carried a gradient
    assert meter.student_images == 12
    assert meter.student_backward == 6
    assert meter.optimizer_steps == 1
    assert meter.macs == 6 * (2 * TEACHER + 2 * STUDENT + 2 * STUDENT)


def test_a_gradient_through_the_statistics_alone_is_counted(make_context: MakeContext) -> None:
    teacher = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1024, 10))
    with make_context(teacher=teacher) as context:
        images = torch.randn(6, *context.image.shape, requires_grad=True)
        (entry,) = session_for(context.image, 10).teacher(images, batch_norm=True).batch_norm
        entry.mean.sum().backward()
        assert context.meter.teacher_backward == 6


def test_a_gradient_through_the_student_alone_is_not_the_teachers(make_context: MakeContext) -> None:
    with make_context() as context:
        session = session_for(context.image, 10)
        images = torch.randn(6, *context.image.shape, requires_grad=True)
        session.teacher(images)
        session.student(images).sum().backward()
        assert context.meter.teacher_backward == 0


def test_generated_and_drawn_images_are_counted(make_context: MakeContext) -> None:
    with make_context() as context:
        session = session_for(context.image, 10)
        generator = session.keep("generator", image_generator(8, context.image, 4))
        context.clock.start()
        generator(session.noise(5, 8))
        session.noise(3, *context.image.shape)
        session.uniform(2, *context.image.shape)
        assert context.meter.synthesised_images == 10


def test_a_generators_cost_follows_its_own_network(make_context: MakeContext) -> None:
    with make_context() as context:
        session = session_for(context.image, 10)
        linear = session.keep("linear", nn.Linear(7, 11))
        context.clock.start()
        linear(torch.randn(3, 7)).sum().backward()
        assert context.meter.macs == 3 * 7 * 11 * 3  # forward once, backward twice


def test_steps_of_any_optimiser_are_counted(make_context: MakeContext) -> None:
    with make_context() as context:
        session = session_for(context.image, 10)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.1))
        context.clock.start()
        session.student(torch.randn(2, *context.image.shape)).mean().backward()
        opt.step()  # not through session.update
        assert context.meter.optimizer_steps == 1


@pytest.mark.parametrize(
    ("unit", "limit", "each"),
    [("steps", 5, 1), ("teacher_images", 33, 8), ("student_images", 33, 8), ("gmacs", 0.02, 8 * 3 * STUDENT / 1e9)],
)
def test_no_budget_is_overrun_by_more_than_one_step(
    make_context: MakeContext, unit: str, limit: float, each: float
) -> None:
    with make_context(budget=Budget(**{unit: limit})) as context:
        session = session_for(context.image, 10)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.1))
        context.clock.start()
        for _ in session.steps("train"):
            session.distill(opt, torch.randn(8, *context.image.shape))
        spent = getattr(context.meter, unit)
        each = each + 8 * TEACHER / 1e9 if unit == "gmacs" else each
        assert limit <= spent < limit + each + 1e-12


def test_work_after_the_loop_is_refused(make_context: MakeContext) -> None:
    for use in ("teacher", "student", "optimiser"):
        with make_context(budget=Budget(steps=2)) as context:
            session = session_for(context.image, 10)
            opt = session.keep("opt", SGD(session.student.parameters(), 0.1))
            context.clock.start()
            images = torch.randn(8, *context.image.shape)
            loss = session.student(images).mean()
            for _ in session.steps("train"):
                pass
            with pytest.raises(BudgetSpent):
                if use == "teacher":
                    session.teacher(images)
                elif use == "student":
                    session.student(images)
                else:
                    session.update(opt, loss)


def test_the_clock_cannot_be_replaced(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_context(budget=Budget(seconds=0.05)) as context:
        monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
        context.clock.start()
        steps = sum(1 for _ in session_for(context.image, 10).steps("train"))
        assert steps > 0
        assert context.meter.seconds >= 0.05


def test_the_clock_stands_still_while_the_harness_works(make_context: MakeContext) -> None:
    with make_context() as context:
        context.clock.start()
        context.clock.stop()
        before = context.meter.seconds
        time.sleep(0.05)
        assert context.clock.read() == before
        context.clock.start()
        time.sleep(0.02)
        assert context.clock.read() >= before + 0.02


def test_nothing_is_counted_while_the_clock_stands(make_context: MakeContext) -> None:
    with make_context() as context:
        context.student(torch.randn(2, *context.image.shape))
        assert context.meter.student_images == 0


def test_the_average_follows_the_student(make_context: MakeContext) -> None:
    with make_context() as context:
        session = session_for(context.image, 10)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.5))
        context.clock.start()
        name, weights = next(iter(session.student.named_parameters()))
        average = dict(context.average.module.named_parameters())[name]
        history = []
        for _ in range(3):
            session.update(opt, session.student(torch.randn(4, *context.image.shape)).square().mean())
            history.append(weights.detach().clone())
    wanted = history[0]  # the first update copies
    for number, value in enumerate(history[1:], start=1):
        wanted = torch.lerp(wanted, value, 1 - (1 + number) / (10 + number))
    torch.testing.assert_close(average, wanted)


def test_only_the_students_optimiser_moves_the_average(make_context: MakeContext) -> None:
    with make_context() as context:
        session = session_for(context.image, 10)
        other = session.keep("other", nn.Linear(2, 2))
        opt = session.keep("opt", SGD(other.parameters(), 0.5))
        context.clock.start()
        session.update(opt, other(torch.randn(4, 2)).square().mean())
        assert int(context.average.n_averaged) == 0


@pytest.mark.parametrize("shape", [(7, 3), (5, 4, 6), (6, 3, 5, 4)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_batch_statistics_and_their_gradient_are_those_of_var_mean(shape: tuple[int, ...], offset: float) -> None:
    value = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + offset).requires_grad_()
    exact = value.detach().double().requires_grad_()
    mean, var = _moments(value)
    exact_var, exact_mean = torch.var_mean(exact, dim=[0, *range(2, len(shape))], correction=0)
    torch.testing.assert_close(mean, exact_mean.float())
    torch.testing.assert_close(var, exact_var.float(), rtol=1e-4, atol=0)
    weights = torch.arange(1.0, 1 + shape[1])
    (weights * (mean + var.square())).sum().backward()
    (weights.double() * (exact_mean + exact_var.square())).sum().backward()
    torch.testing.assert_close(value.grad, exact.grad.float(), rtol=1e-3, atol=1e-4)
