"""WSL: weights of the soft labels, and the loss, in NumPy and double precision; then whole steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, images_of, lenet, run, same_weights
from scipy.special import log_softmax, softmax

from bench.data.batches import RealImages
from methods.wsl import soft_label_weights, wsl

CPU = torch.device("cpu")
TEACHER = np.array([[4.0, 0.5, -1.0], [0.2, 0.1, 0.0], [-3.0, 5.0, 1.0], [9.0, -9.0, 0.0]])
STUDENT = np.array([[1.0, 0.0, 0.5], [3.0, -1.0, 0.0], [0.3, 0.1, -0.2], [8.0, -8.0, 0.0]])
LABELS = np.array([0, 0, 2, 0])


def weights_of(teacher: np.ndarray, student: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = np.arange(len(labels))
    errors = [-log_softmax(logits, 1)[rows, labels] for logits in (student, teacher)]
    weights: np.ndarray = 1 - np.exp(-errors[0] / (errors[1] + 1e-7))
    return weights


def loss_of(
    teacher: np.ndarray, student: np.ndarray, labels: np.ndarray, tau: float, alpha: float, beta: float
) -> float:
    weights = weights_of(teacher, student, labels)
    soft = -(softmax(teacher / tau, 1) * log_softmax(student / tau, 1)).sum(1)
    hard = -log_softmax(student, 1)[np.arange(len(labels)), labels]
    return float(alpha * tau**2 * (weights * soft).mean() + beta * hard.mean())


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_weights_are_those_of_the_paper_at_temperature_one() -> None:
    student = torch.tensor(STUDENT, requires_grad=True)
    weights = soft_label_weights(torch.tensor(TEACHER), student, torch.tensor(LABELS))
    assert weights.numpy() == pytest.approx(weights_of(TEACHER, STUDENT, LABELS), rel=1e-12)
    assert not weights.requires_grad


def test_a_student_ahead_of_its_teacher_gets_less_of_the_soft_label() -> None:
    right = torch.zeros(2, dtype=torch.int64)
    sure, unsure = torch.tensor([[6.0, 0.0]]), torch.tensor([[0.5, 0.0]])
    ahead, behind = soft_label_weights(torch.cat([unsure, sure]), torch.cat([sure, unsure]), right)
    assert ahead < 0.01
    assert behind > 0.99
    assert soft_label_weights(unsure, unsure, right[:1]).item() == pytest.approx(1 - np.exp(-1), abs=1e-6)


def test_a_teacher_without_any_error_leaves_the_weight_finite() -> None:
    perfect = torch.tensor([[200.0, -200.0]])
    weights = soft_label_weights(
        torch.cat([perfect, perfect]), torch.tensor([[1.0, 0.0], [200.0, -200.0]]), torch.zeros(2).long()
    )
    assert weights.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("options", [{}, {"temperature": 4.0, "alpha": 2.25, "beta": 0.5}])
def test_steps_follow_the_papers_loss(options: dict[str, Any], double: None) -> None:
    split = images_of(60)
    o = wsl.declared.make_options({"batch": 16, "lr_student": 0.02, "schedule": "constant", **options})
    teacher, expected, real = lenet(1).eval(), lenet(2, "lenet5-half"), RealImages(split, IMAGE, 0, CPU)
    list(teacher.parameters())[-2].data.mul_(20)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    for _ in range(3):
        images, labels = real.take(16)
        images = images.double()
        with torch.no_grad():
            t = teacher(images)
        s = expected(images)
        weights = torch.tensor(weights_of(t.numpy(), s.detach().numpy(), labels.numpy()))
        tau, rows = o.temperature, torch.arange(16)
        soft = -((t / tau).softmax(1) * (s / tau).log_softmax(1)).sum(1)
        loss = o.alpha * tau**2 * (weights * soft).mean() - o.beta * s.log_softmax(1)[rows, labels].mean()
        reference = loss_of(t.numpy(), s.detach().numpy(), labels.numpy(), tau, o.alpha, o.beta)
        assert loss.item() == pytest.approx(reference, rel=1e-12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    context = run(wsl.declared, vars(o), steps=3, teacher=teacher, student=lenet(2, "lenet5-half"), train=split)
    assert same_weights(context.student, expected, 1e-12)
    assert not same_weights(context.student, lenet(2, "lenet5-half"), 1e-3)
    assert context.meter.teacher_images == context.meter.real_images == 48


def test_without_weights_it_is_ordinary_distillation(double: None) -> None:
    """With the KL divergence's gradient: the soft label's entropy has none."""
    from methods.kd import kd

    common = {"batch": 16, "temperature": 3.0, "alpha": 2.0, "beta": 1.0, "optimizer": "sgd", "lr_student": 0.02}
    students = []
    for declared, more in (
        (wsl.declared, {"weighted": False, "schedule": "constant"}),
        (kd.declared, {"weight_decay": 1e-4}),
    ):
        context = run(
            declared,
            {**common, **more},
            steps=3,
            teacher=lenet(1),
            student=lenet(2, "lenet5-half"),
            train=images_of(60),
        )
        students.append(context.student)
    assert same_weights(*students, 1e-12)


def test_labels_follow_their_images_when_some_are_held_out(double: None) -> None:
    """The harness takes eight images out of a batch of 32 and puts the next eight in their place."""
    split = images_of(64)
    options = {"batch": 32, "lr_student": 0.02, "schedule": "constant"}
    context = run(wsl.declared, options, steps=1, teacher=lenet(1), student=lenet(2, "lenet5-half"), train=split)
    images, labels = RealImages(split, IMAGE, 0, CPU).take(32)
    order = [*range(8, 16), *range(8, 32)]
    images, labels = images.double()[order], labels[order]
    with torch.no_grad():
        t, s = lenet(1).eval()(images), lenet(2, "lenet5-half")(images)
    expected = weights_of(t.numpy(), s.numpy(), labels.numpy()).mean()
    assert context.take_logs()["weight"] == pytest.approx(expected, rel=1e-6)


def test_settings_are_those_of_the_papers_images() -> None:
    o = wsl.declared.make_options({})
    assert (o.temperature, o.alpha, o.beta, o.weighted) == (2.0, 2.5, 1.0, True)
    assert (o.batch, o.optimizer, o.lr_student, o.momentum, o.weight_decay) == (256, "sgd", 0.1, 0.9, 1e-4)
    assert (o.schedule, o.milestones) == ("milestones", (30 / 100, 60 / 100, 90 / 100))
    o = wsl.declared.make_options(wsl.declared.presets["cifar100"])
    assert (o.temperature, o.alpha, o.batch, o.lr_student, o.weight_decay) == (4.0, 2.25, 64, 0.05, 5e-4)
    assert o.milestones == (150 / 240, 180 / 240, 210 / 240)
    assert wsl.declared.make_options(wsl.declared.presets["mnist"]).optimizer == "adam"
