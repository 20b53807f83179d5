"""Each term of a loss as a method really computes it, from the images of its first step, in NumPy and double precision.

What a method logs, in single precision, is what it minimises. The equations are those of the methods' docstrings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import Listening, lenet, run
from scipy.special import log_softmax, softmax
from torch import nn

from bench.declare import Method
from bench.desk import Desk
from methods.adi import adi
from methods.dafl import dafl
from methods.deepdream import deepdream
from methods.deepinversion import deepinversion
from methods.dfad import dfad
from methods.rdskd import rdskd
from methods.zskd import zskd

GENERATOR = {"batch": 12, "latent": 6, "width": 4}
IMAGES = {"batch": 12, "iterations": 4, "images": 24, "batch_student": 16}
Logs = Mapping[str, float]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def begin(method: Method, options: Mapping[str, Any], norm: bool = False) -> tuple[Desk, Logs, list[torch.Tensor]]:
    """One step of a method: what it leaves, what it logged, and what the teacher was asked."""
    teacher = Listening(teacher_network(norm))
    student = lenet(2, "lenet5bn-half" if norm else "lenet5-half")
    desk = run(method, dict(options), steps=1, teacher=teacher, student=student)
    return desk, desk.take_logs(), teacher.heard


def assert_terms(logs: Logs, expected: Mapping[str, float]) -> None:
    """Among what is logged, which may be more."""
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def teacher_network(norm: bool = False) -> nn.Module:
    """With answers that are far from uniform, and other statistics than those it was made with."""
    network = lenet(1, "lenet5bn" if norm else "lenet5").eval().requires_grad_(False)
    list(network.parameters())[-2].data.mul_(20)
    stream = torch.Generator().manual_seed(7)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5, generator=stream)
            layer.running_var.uniform_(0.5, 2.0, generator=stream)
    return network


def answers(network: nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(network(images))


def kl(teacher: np.ndarray, student: np.ndarray, tau: float) -> float:
    p, logs = softmax(teacher / tau, 1), (log_softmax(each / tau, 1) for each in (teacher, student))
    return float(tau**2 * (p * np.subtract(*logs)).sum() / len(p))


def confidence(logits: np.ndarray) -> float:
    return float(-log_softmax(logits, 1).max(1).mean())


def prior(x: np.ndarray, tv: float, l2: float) -> float:
    pairs = [
        (x[..., 1:], x[..., :-1]),
        (x[..., 1:, :], x[..., :-1, :]),
        (x[..., 1:, 1:], x[..., :-1, :-1]),
        (x[..., 1:, :-1], x[..., :-1, 1:]),
    ]
    return float(tv * sum(np.sqrt(((a - b) ** 2).sum()) for a, b in pairs) + l2 * np.sqrt((x**2).sum()))


def statistics(network: nn.Module, images: torch.Tensor) -> float:
    """Of the inputs of the batch-norm layers: two norms each."""
    inputs: list[np.ndarray] = []
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, args: inputs.append(np.asarray(args[0])))
    answers(network, images)
    total = 0.0
    for layer, x in zip(layers, inputs, strict=True):
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        total += np.sqrt(((mean - np.asarray(layer.running_mean)) ** 2).sum())
        total += np.sqrt(((var - np.asarray(layer.running_var)) ** 2).sum())
    return total


def test_dafl() -> None:
    _, logs, (images,) = begin(dafl.declared, {**GENERATOR, "temperature": 2.0})
    network = teacher_network()
    logits = answers(network, images)
    mean = softmax(logits, 1).mean(0)
    features = answers(network.body, images)
    assert_terms(
        logs,
        {
            "one_hot": confidence(logits),
            "balance": (mean * np.log10(mean)).sum(),
            "activation": -np.abs(features).mean(),
            "distillation": kl(logits, answers(lenet(2, "lenet5-half"), images), 2.0),
        },
    )


def test_rdskd() -> None:
    _, logs, (images,) = begin(rdskd.declared, GENERATOR)
    logits, x = answers(teacher_network(), images), np.asarray(images)
    p = softmax(logits, 1)
    assert_terms(
        logs,
        {
            "one_hot": confidence(logits),
            "balance": (p.mean(0) * np.log(p.mean(0))).sum(),
            "diversity": np.linalg.norm(p[6:] - p[:6]) / np.linalg.norm((x[6:] - x[:6]).ravel()),
            "clamped": 0.0,
        },
    )


@pytest.mark.parametrize("kind", ["mae", "mse", "kl"])
def test_dfad(kind: str) -> None:
    options = {**GENERATOR, "student_steps": 1, "discrepancy": kind}
    if kind == "kl":
        options["temperature"] = 3.0
    desk, logs, (imitated, generated) = begin(dfad.declared, options)
    expected = {}
    for name, student, images in [
        ("imitation", lenet(2, "lenet5-half"), imitated),
        ("difference", desk.student, generated),  # as it is after the imitation
    ]:
        t, s = answers(teacher_network(), images), answers(student, images)
        expected[name] = {"mae": np.abs(s - t).mean(), "mse": ((s - t) ** 2).mean(), "kl": kl(t, s, 3.0)}[kind]
    assert_terms(logs, expected)


def test_zskd() -> None:
    desk, logs, (images,) = begin(zskd.declared, {"iterations": 4, "batch": 12, "share": 0.99})
    targets, logits = np.asarray(desk.kept["targets"]), answers(teacher_network(), images)
    assert targets.sum(1) == pytest.approx(1)
    assert logs["impression"] == pytest.approx(-(targets * log_softmax(logits / 20, 1)).sum(1).mean(), rel=1e-6)


def test_deepdream() -> None:
    _, logs, (images,) = begin(deepdream.declared, {**IMAGES, "tv": 0.02, "l2": 0.03})
    labels = np.arange(12) % 10
    one_hot = -log_softmax(answers(teacher_network(), images), 1)[range(12), labels].mean()
    assert_terms(logs, {"one_hot": one_hot, "prior": prior(np.asarray(images), 0.02, 0.03)})


@pytest.mark.parametrize("method", [deepinversion.declared, adi.declared], ids=["deepinversion", "adi"])
def test_deepinversion_and_adis_first_images(method: Method) -> None:
    _, logs, (images,) = begin(method, {**IMAGES, "tv": 0.02, "l2": 0.03}, norm=True)
    network, labels = teacher_network(norm=True), np.arange(12) % 10
    expected = {
        "one_hot": -log_softmax(answers(network, images), 1)[range(12), labels].mean(),
        "prior": prior(np.asarray(images), 0.02, 0.03),
        "statistics": statistics(network, images),
    }
    assert_terms(logs, expected)
