"""SD-Dropout and OSAKD: networks that teach themselves, against their equations in NumPy and loops written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, lenet, run, same_weights
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor
from torch.nn import functional as F

from bench.data import Split
from bench.data.batches import RealImages
from bench.models import head
from methods.osakd import osakd, posterior
from methods.sd_dropout import agreement, sd_dropout

CPU = torch.device("cpu")


def split(count: int = 48) -> Split:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *IMAGE.shape), generator=stream, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def divergence(target: NDArray[np.float64], other: NDArray[np.float64], tau: float) -> float:
    log_target, log_other = log_softmax(target / tau, 1), log_softmax(other / tau, 1)
    return float(tau**2 * (np.exp(log_target) * (log_target - log_other)).sum(1).mean())


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_agreement_is_the_sum_of_both_divergences(tau: float) -> None:
    first, second = random(6, 5), random(6, 5, seed=1)
    expected = divergence(first.numpy(), second.numpy(), tau) + divergence(second.numpy(), first.numpy(), tau)
    for detach in (False, True):
        assert float(agreement(first, second, tau, detach)) == pytest.approx(expected, rel=1e-12)


def test_a_detached_side_is_a_fixed_target() -> None:
    first, second = random(6, 5).requires_grad_(), random(6, 5, seed=1)
    agreement(first, second, 2.0, detach=True).backward()
    # of KL_tau(second || first) alone: tau * (p_first - p_second) / N
    expected = 2.0 * (F.softmax(first / 2, 1) - F.softmax(second / 2, 1)) / 6
    torch.testing.assert_close(first.grad, expected.detach())
    free = first.detach().requires_grad_()
    agreement(free, second, 2.0, detach=False).backward()
    assert not torch.allclose(free.grad, expected.detach())  # type: ignore[arg-type]


def test_sd_dropout_asks_the_backbone_once_and_the_head_three_times() -> None:
    heads: list[Tensor] = []
    student = lenet(2, "lenet5-half")
    backbone = Listening(student)
    head(student).register_forward_pre_hook(lambda module, inputs: heads.append(inputs[0].detach().clone()))
    context = run(sd_dropout.declared, {"batch": 32, "dropout": 0.25}, steps=1, student=backbone, train=split())
    assert context.meter.student_images == 32
    assert context.meter.teacher_images == 0
    whole, first, second = heads
    for dropped in (first, second):
        kept = dropped != 0
        torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
        assert float(kept[whole != 0].float().mean()) == pytest.approx(0.75, abs=0.05)
    assert not torch.equal(first, second)


def test_sd_dropout_without_the_divergences_is_scratch() -> None:
    expected, real = lenet(2, "lenet5-half"), RealImages(split(), IMAGE, 0, CPU)
    optimizer = torch.optim.SGD(expected.parameters(), 0.05, momentum=0.9)
    for _ in range(3):
        images, labels = real.take(16)
        optimizer.zero_grad()
        F.cross_entropy(expected(images), labels).backward()
        optimizer.step()
    settings = {"batch": 16, "optimizer": "sgd", "lr_student": 0.05}
    alone = {**settings, "weight": 0.0}
    context = run(sd_dropout.declared, alone, steps=3, student=lenet(2, "lenet5-half"), train=split())
    assert same_weights(context.student, expected, 1e-6)
    context = run(sd_dropout.declared, settings, steps=3, student=lenet(2, "lenet5-half"), train=split())
    assert not same_weights(context.student, expected, 1e-6)


@pytest.mark.parametrize("neighbours", [1, 4, 100])
def test_a_posterior_is_the_shares_among_the_nearest_others(neighbours: int) -> None:
    outputs, labels = random(20, 5), torch.arange(20) % 3
    expected = np.zeros((20, 5))
    for one in range(20):
        distance = np.sqrt(((outputs.numpy() - outputs.numpy()[one]) ** 2).sum(1))
        others = [each for each in np.argsort(distance) if each != one][:neighbours]
        for other in others:
            expected[one, int(labels[other])] += 1 / len(others)
    np.testing.assert_allclose(posterior(outputs, labels, neighbours).numpy(), expected, rtol=1e-12)


def test_osakd_follows_labels_and_neighbourhoods() -> None:
    expected, real = lenet(2, "lenet5-half"), RealImages(split(), IMAGE, 0, CPU)
    optimizer = torch.optim.SGD(expected.parameters(), 0.05, momentum=0.9)
    for _ in range(3):
        images, labels = real.take(24)
        logits = expected(images)
        soft = posterior(logits.detach(), labels, 5).double().numpy()
        log_p = F.log_softmax(logits, 1)
        cross = -(torch.from_numpy(soft).float() * log_p).sum(1).mean()  # KL(q || p) but for q's own entropy
        optimizer.zero_grad()
        (F.cross_entropy(logits, labels) + 0.7 * cross).backward()
        optimizer.step()
    settings = {"batch": 24, "neighbours": 5, "alpha": 0.7, "optimizer": "sgd", "lr_student": 0.05}
    context = run(osakd.declared, settings, steps=3, student=lenet(2, "lenet5-half"), train=split())
    assert same_weights(context.student, expected, 1e-6)
    assert context.meter.teacher_images == 0
