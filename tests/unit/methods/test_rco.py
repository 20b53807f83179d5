"""RCO: stages along the teacher's anchors, the loss against NumPy, and the library's mistakes that are not made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, images_of, lenet, same_weights, trial
from scipy.special import log_softmax, softmax
from torch import nn

from bench.data.batches import RealImages
from bench.harness.trial_context import TrialContext
from bench.spec.method import Access, Data
from methods.rco import evenly_chosen, rco

CPU = torch.device("cpu")
PLAIN = {"batch": 16, "optimizer": "sgd", "lr_student": 0.02}


pytestmark = pytest.mark.usefixtures("_double")


def anchor(number: int) -> nn.Module:
    """Ten networks that stand for the way, the tenth for the teacher."""
    network = lenet(100 + number).eval().requires_grad_(False)
    list(network.parameters())[-2].data.mul_(20)
    return network


def student() -> nn.Module:
    return lenet(2, "lenet5-half")


def play(options: dict[str, Any], steps: int, teacher: nn.Module | None = None) -> TrialContext:
    method = rco.declared
    around = {"access": method.access, "data": method.data, "train": images_of(60), "student": student()}
    networks = [anchor(number) for number in range(method.anchors - 1)]
    if isinstance(teacher, Listening):  # the anchors are weights of the teacher's own architecture
        networks = [Listening(network) for network in networks]
    states = [network.state_dict() for network in networks]
    with trial(steps=steps, teacher=teacher or anchor(9), anchors=states, **around) as (session, context):
        method.run(session, method.make_options({**PLAIN, **options}))
        return context


def loss_of(
    t: np.ndarray, s: np.ndarray, labels: np.ndarray, tau: float = 20.0, alpha: float = 0.5, beta: float = 0.5
) -> float:
    """Soft targets are probabilities, and the cross-entropy gets logits; the library has it the other way round."""
    p, difference = softmax(t / tau, 1), log_softmax(t / tau, 1) - log_softmax(s / tau, 1)
    hard = -log_softmax(s, 1)[np.arange(len(labels)), labels]
    return float(alpha * tau**2 * (p * difference).sum(1).mean() + beta * hard.mean())


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0, "alpha": 2.0, "beta": 0.1}])
def test_the_loss_is_that_of_the_anchor_in_turn(options: dict[str, Any]) -> None:
    context = play({"stages": 2, **options}, steps=1)
    images, labels = RealImages(images_of(60), IMAGE, 0, CPU).take(16)
    with torch.no_grad():
        t, s = np.asarray(anchor(4)(images.double())), np.asarray(student()(images.double()))
    names = {"temperature": "tau"}
    values = {names.get(name, name): value for name, value in options.items()}
    logs = context.take_logs()
    assert logs["anchor"] == 4
    assert logs["loss"] == pytest.approx(loss_of(t, s, labels.numpy(), **values), rel=1e-6)


def test_the_student_goes_from_anchor_to_anchor_with_its_weights_and_moments() -> None:
    context = play({"stages": 3, "temperature": 2.0}, steps=6)
    expected, real = student(), RealImages(images_of(60), IMAGE, 0, CPU)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.02, momentum=0.9)
    for number in (3, 3, 6, 6, 9, 9):
        images, labels = real.take(16)
        images = images.double()
        target = (anchor(number)(images) / 2).softmax(1)
        answer = expected(images)
        soft = 4 * (target * (target.log() - (answer / 2).log_softmax(1))).sum(1).mean()
        optimizer.zero_grad()
        (0.5 * soft + 0.5 * nn.functional.cross_entropy(answer, labels)).backward()
        optimizer.step()
    assert same_weights(context.student, expected, 1e-12)
    assert not same_weights(context.student, student(), 1e-3)


def test_only_the_last_stage_asks_the_trained_teacher_and_all_are_counted() -> None:
    teacher = Listening(anchor(9))
    context = play({"stages": 4}, steps=8, teacher=teacher)
    assert len(teacher.heard) == 2
    assert context.meter.teacher_images == context.meter.student_images == context.meter.real_images == 8 * 16


def test_with_one_stage_it_is_ordinary_distillation() -> None:
    from methods.kd import kd

    context = play({"stages": 1}, steps=3)
    around = {"access": Access.LOGITS, "data": Data.TRAIN, "train": images_of(60), "student": student()}
    with trial(steps=3, teacher=anchor(9), **around) as (session, other):
        options = {**PLAIN, "temperature": 20.0, "alpha": 0.5, "beta": 0.5}
        kd.declared.run(session, kd.declared.make_options(options))
    assert same_weights(context.student, other.student)


@pytest.mark.parametrize("stages", range(1, 11))
def test_anchors_are_chosen_at_equal_intervals_and_end_with_the_teacher(stages: int) -> None:
    chosen = evenly_chosen(10, stages)
    gaps = np.diff([-1, *chosen])
    assert chosen[-1] == 9
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_settings_are_the_documented_ones() -> None:
    o = rco.declared.make_options({})
    assert (o.stages, o.temperature, o.alpha, o.beta) == (10, 20.0, 0.5, 0.5)
    assert (o.batch, o.optimizer, o.lr_student, o.schedule) == (256, "adam", 1e-3, "constant")
    for data in ("cifar10", "cifar100"):
        o = rco.declared.make_options(rco.declared.presets[data])
        assert (o.batch, o.optimizer, o.lr_student, o.weight_decay) == (128, "sgd", 0.1, 1e-4)
        assert o.milestones == (120 / 200, 150 / 200, 180 / 200)
    assert rco.declared.anchors == 10
