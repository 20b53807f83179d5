"""What tests of loss terms share: the first step of a method, what it logs, and the networks' answers in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import lenet, run
from scipy.special import log_softmax, softmax
from torch import nn

from bench.harness.trial_context import TrialContext
from bench.spec.method import Method

Logs = Mapping[str, float]


def begin(
    method: Method,
    options: Mapping[str, Any],
    norm: bool = False,
    student: nn.Module | None = None,
    steps: int = 1,
) -> tuple[TrialContext, Logs, list[torch.Tensor]]:
    """The first step (or steps) of a method: what it leaves, what it logged, and what the teacher was asked."""
    teacher, heard = teacher_network(norm), []
    teacher.register_forward_pre_hook(
        lambda _, args: None if args[0].is_meta else heard.append(args[0].detach().clone())
    )
    if student is None:
        student = lenet(2, "lenet5bn-half" if norm else "lenet5-half")
    context = run(method, dict(options), steps=steps, teacher=teacher, student=student)
    return context, context.take_logs(), heard


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


def norm_inputs(network: nn.Module, images: torch.Tensor) -> list[tuple[nn.BatchNorm2d, np.ndarray]]:
    """The batch-norm layers and what they are given."""
    found: list[tuple[nn.BatchNorm2d, np.ndarray]] = []
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: found.append((layer, np.asarray(args[0]))))
        for layer in layers
    ]
    answers(network, images)
    for hook in hooks:
        hook.remove()
    return found


def statistics(network: nn.Module, images: torch.Tensor) -> float:
    """Of the inputs of the batch-norm layers: two norms each."""
    total = 0.0
    for layer, x in norm_inputs(network, images):
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        total += np.sqrt(((mean - np.asarray(layer.running_mean)) ** 2).sum())
        total += np.sqrt(((var - np.asarray(layer.running_var)) ** 2).sum())
    return total
