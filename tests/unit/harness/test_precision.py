"""Trials in half precision: what a method sees of its networks, and updates that were scaled too far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import SGD

from bench import image_generator
from bench.execution.run_trial import Setting, run_trial
from bench.harness.optimizer_steps import Updates
from bench.harness.precision import computing
from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.records import open_results
from bench.spec.method_registry import find_methods
from bench.spec.study import SUITE
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key
from bench.spec.trial import Trial

MakeContext = Callable[..., TrialContext]


def test_networks_compute_in_half_precision_and_answer_in_full(make_context: MakeContext) -> None:
    with make_context(precision="bfloat16") as context, computing("bfloat16", torch.device("cpu")):
        context.clock.start()
        s = session_for(context.image, 10)
        generator = s.keep("generator", image_generator(8, context.image, 4))
        images = generator(s.noise(5, 8))
        out = s.teacher(images, features=True)
        answers = [images, out.logits, s.student(images), s.teacher.copy()(images)]
        assert out.features.dtype is torch.bfloat16
        assert [answer.dtype for answer in answers] == [torch.float32] * 4


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_forward_pass_is_that_of_the_weights_as_they_are(make_context: MakeContext, precision: str) -> None:
    """Autocast keeps converted weights to the end of its block: DFAD learned nothing, by those of its first step."""
    with make_context(precision=precision) as context, computing(precision, torch.device("cpu")):
        context.clock.start()
        s = session_for(context.image, 10)
        optimizer = s.keep("optimizer", SGD(s.student.parameters(), 0.1))
        images = s.noise(8, *context.image.shape)
        for _ in s.steps("train"):
            before = s.student(images)
            s.update(optimizer, before.square().mean())
            after = s.student(images)  # with a graph, and without one
            assert not torch.equal(before, after)
            with torch.no_grad():
                assert torch.equal(s.student(images), after)
            break


def test_double_precision_stays(make_context: MakeContext) -> None:
    with make_context() as context:
        s = session_for(context.image, 10)
        context.student.double()
        assert s.student(torch.zeros(1, *context.image.shape, dtype=torch.float64)).dtype is torch.float64


def test_an_update_that_was_scaled_too_far_leaves_no_gradient() -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer, updates = SGD([weight], 0.1), Updates(torch.device("cpu"), "float16")
    updates.on_loss(optimizer, 1e35 * weight.sum())  # times the scale: beyond float32
    assert weight.tolist() == [1.0] * 3
    assert weight.grad is not None
    assert weight.grad.tolist() == [0.0] * 3  # a meta-learner adds up what lies here
    updates.on_loss(optimizer, 2 * weight.sum())
    assert weight.grad.tolist() == [2.0] * 3
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.8))


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        pytest.param("fast_dfkd", "float16", marks=pytest.mark.slow),
        ("kd3", "bfloat16"),
        pytest.param("rdskd", "float16", marks=pytest.mark.slow),
        ("ssd_kd", "bfloat16"),
    ],
)
def test_methods_that_half_precision_once_broke(tmp_path: Path, method: str, precision: str) -> None:
    task, card = get_task("digits/lenet5bn-half"), find_methods()[method]
    trial = Trial(
        suite=SUITE,
        task=task.name,
        task_sha=task.sha,
        teacher=teacher_key(task),
        method=method,
        method_sha=card.sha,
        options={**card.defaults(), **card.quick},
        budget={"steps": 20},
        seed=0,
        precision=precision,
        points=2,
        pool="photos" if card.pool else "",
    )
    record = run_trial(trial, Setting(open_results(tmp_path, create=True)))
    assert record.status == "ok", record.reason
    assert record.meter.steps == 20
