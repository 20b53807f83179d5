"""The shared losses against the papers' formulae in NumPy, double precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_fixtures import images_of, lenet, same_weights, trial
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from bench import kl_divergence
from bench.data.batches import normalise
from bench.spec.method import Data
from methods.common.losses import imbalance, one_hot_loss, rows, soft_cross_entropy
from methods.common.optimizers import scheduled, student_optimizer

LOGITS = np.array([[2.0, -1.0, 0.5, 0.0], [0.1, 0.3, -4.0, 1.5], [-2.0, 6.0, 5.0, 1.0]])
OTHER = np.array([[0.3, 0.2, -0.7, 1.1], [2.0, 0.0, 0.4, -1.5], [0.0, 1.0, 2.0, 3.0]])
TARGETS = np.array([[0.7, 0.1, 0.1, 0.1], [0.0, 0.25, 0.25, 0.5], [0.0, 0.0, 1.0, 0.0]])


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_one_hot_loss_is_the_cross_entropy_with_the_own_prediction() -> None:
    expected = -np.mean([math.log(math.exp(row.max()) / np.exp(row).sum()) for row in LOGITS])
    assert one_hot_loss(tensor(LOGITS)).item() == pytest.approx(expected, rel=1e-12)


def test_one_hot_loss_sends_no_gradient_through_the_label() -> None:
    logits = tensor(LOGITS).requires_grad_()
    one_hot_loss(logits).backward()
    chosen = np.eye(4)[LOGITS.argmax(1)]
    np.testing.assert_allclose(logits.grad, (softmax(LOGITS, axis=1) - chosen) / len(LOGITS), rtol=1e-12)


@pytest.mark.parametrize(("base", "log"), [(10.0, np.log10), (math.e, np.log)])
def test_imbalance_is_the_negative_entropy_of_the_mean_prediction(base: float, log: np.ufunc) -> None:
    mean = softmax(LOGITS, axis=1).mean(0)
    assert imbalance(tensor(LOGITS), base).item() == pytest.approx((mean * log(mean)).sum(), rel=1e-12)


def test_imbalance_is_to_base_ten_unless_told() -> None:
    assert imbalance(tensor(LOGITS)).item() == pytest.approx(imbalance(tensor(LOGITS), math.e).item() / math.log(10))


@pytest.mark.parametrize("confident", [0.0, 5.0, 1000.0])
def test_imbalance_is_lowest_when_all_classes_are_equally_frequent(confident: float) -> None:
    balanced = confident * torch.eye(10)
    assert imbalance(balanced).item() == pytest.approx(-1.0, abs=1e-6)  # -log10 of 10 classes
    assert imbalance(balanced, math.e).item() == pytest.approx(-math.log(10), abs=1e-6)


def test_imbalance_is_zero_when_one_class_takes_all() -> None:
    one_class = torch.tensor([1000.0, 0.0, -1000.0]).repeat(5, 1).requires_grad_()
    loss = imbalance(one_class)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(one_class.grad).all()


@given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=6))
def test_imbalance_stays_between_its_extremes(rows: list[list[float]]) -> None:
    assert -math.log10(3) - 1e-9 <= imbalance(tensor(np.array(rows))).item() <= 1e-9


@pytest.mark.parametrize("tau", [1.0, 4.0, 20.0])
def test_soft_cross_entropy_divides_by_the_temperature_once(tau: float) -> None:
    expected = -(TARGETS * log_softmax(LOGITS / tau, axis=1)).sum() / len(LOGITS)
    assert soft_cross_entropy(tensor(LOGITS), tensor(TARGETS), tau).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0, 20.0])
def test_kl_divergence_is_the_batch_mean_times_the_temperature_squared(tau: float) -> None:
    p, q = softmax(LOGITS / tau, axis=1), softmax(OTHER / tau, axis=1)
    expected = tau**2 * rel_entr(p, q).sum() / len(LOGITS)
    assert kl_divergence(tensor(LOGITS), tensor(OTHER), tau).item() == pytest.approx(expected, rel=1e-11)


def test_kl_divergence_takes_the_teacher_first() -> None:
    forward, backward = kl_divergence(tensor(LOGITS), tensor(OTHER)), kl_divergence(tensor(OTHER), tensor(LOGITS))
    p, q = softmax(LOGITS, axis=1), softmax(OTHER, axis=1)
    assert forward.item() == pytest.approx((p * np.log(p / q)).sum() / 3, rel=1e-12)
    assert forward.item() != pytest.approx(backward.item(), rel=1e-3)


def test_kl_divergence_has_the_gradient_of_the_soft_cross_entropy() -> None:
    """So that ZSKD's loss, a cross-entropy with the teacher's soft labels, may be written as a divergence."""
    tau, student = 20.0, tensor(OTHER).requires_grad_()
    (divergence,) = torch.autograd.grad(kl_divergence(tensor(LOGITS), student, tau), student)
    soft = torch.softmax(tensor(LOGITS) / tau, 1)
    (cross,) = torch.autograd.grad(tau**2 * soft_cross_entropy(student, soft, tau), student)
    np.testing.assert_allclose(divergence, cross, rtol=1e-10)


def test_kl_divergence_of_far_apart_logits_is_finite() -> None:
    far = torch.tensor([[1000.0, -1000.0]])
    assert kl_divergence(far, -far).item() == pytest.approx(2000.0)
    assert kl_divergence(far, far).item() == 0.0


def test_distill_adds_the_weighted_divergence_and_cross_entropy() -> None:
    split, alpha, beta, tau = images_of(6), 0.7, 0.2, 4.0
    with trial(steps=1, data=Data.TRAIN, train=split) as (session, context):
        images, labels = normalise(split.images, session.task.image), split.labels
        with torch.no_grad():
            t, s = lenet(1)(images).double().numpy(), context.student(images).double().numpy()
        optimizer = session.keep("opt", torch.optim.SGD(session.student.parameters(), 0.1))
        loss = session.distill(optimizer, images, temperature=tau, alpha=alpha, labels=labels, beta=beta)
    divergence = tau**2 * rel_entr(softmax(t / tau, axis=1), softmax(s / tau, axis=1)).sum() / 6
    hard = -log_softmax(s, axis=1)[np.arange(6), labels].mean()
    assert loss.item() == pytest.approx(alpha * divergence + beta * hard, rel=1e-5)


# ---- segmentation: every pixel counts as an image would --------------------------------------------------------------

DENSE = np.random.default_rng(7).normal(0, 3, (2, 4, 3, 5))
DENSE_OTHER = np.random.default_rng(8).normal(0, 3, (2, 4, 3, 5))


def pixel_rows(values: np.ndarray) -> torch.Tensor:
    """(N, K, H, W) as (N * H * W, K), pixel by pixel."""
    n, _, height, width = values.shape
    places = [(i, y, x) for i in range(n) for y in range(height) for x in range(width)]
    return tensor(np.array([values[i, :, y, x] for i, y, x in places]))


def test_rows_are_the_pixels_in_their_order() -> None:
    assert torch.equal(rows(tensor(DENSE)), pixel_rows(DENSE))
    assert torch.equal(rows(tensor(LOGITS)), tensor(LOGITS))


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_kl_divergence_of_dense_logits_is_that_of_their_pixels(tau: float) -> None:
    dense = tensor(DENSE), tensor(DENSE_OTHER).requires_grad_()
    flat = pixel_rows(DENSE), pixel_rows(DENSE_OTHER).requires_grad_()
    divergences = [kl_divergence(*pair, tau) for pair in (dense, flat)]
    assert divergences[0].item() == pytest.approx(divergences[1].item(), rel=1e-12)
    gradients = [torch.autograd.grad(loss, pair[1])[0] for loss, pair in zip(divergences, (dense, flat), strict=True)]
    torch.testing.assert_close(rows(gradients[0]), gradients[1])


@pytest.mark.parametrize("loss", [one_hot_loss, imbalance, lambda logits: imbalance(logits, math.e)])
def test_shared_losses_of_dense_logits_are_those_of_their_pixels(loss: Callable[[torch.Tensor], torch.Tensor]) -> None:
    dense, flat = tensor(DENSE).requires_grad_(), pixel_rows(DENSE).requires_grad_()
    values = [loss(dense), loss(flat)]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, each)[0] for value, each in zip(values, (dense, flat), strict=True)]
    torch.testing.assert_close(rows(gradients[0]), gradients[1])


def test_soft_cross_entropy_of_dense_logits_is_that_of_their_pixels() -> None:
    soft = softmax(DENSE_OTHER, axis=1)
    dense = soft_cross_entropy(tensor(DENSE), tensor(soft), 4.0)
    assert dense.item() == pytest.approx(soft_cross_entropy(pixel_rows(DENSE), pixel_rows(soft), 4.0).item(), rel=1e-12)


# ---- optimisers and schedules ----------------------------------------------------------------------------------------


def test_schedules_at_known_points() -> None:
    assert scheduled(0.1, "constant", 0.99) == 0.1
    assert [scheduled(0.1, "cosine", at) for at in (0, 0.5, 1)] == pytest.approx([0.1, 0.05, 0.0])
    steps = [scheduled(0.1, "milestones", at, (0.4, 0.8)) for at in (0, 0.399, 0.4, 0.799, 0.8, 1)]
    assert steps == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-12)


def test_very_small_rates_are_not_rounded_away() -> None:
    assert scheduled(1e-12, "milestones", 1.0, (0.1, 0.2)) == pytest.approx(1e-14, rel=1e-9)


@given(st.floats(1e-8, 10), st.sampled_from(["constant", "cosine", "milestones"]), st.floats(0, 1), st.floats(0, 1))
def test_schedules_never_rise_and_stay_between_zero_and_the_start(lr: float, kind: str, a: float, b: float) -> None:
    early, late = sorted((a, b))
    first, second = (scheduled(lr, kind, at, (0.3, 0.6)) for at in (early, late))
    assert 0 <= second <= first <= lr


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_optimiser_is_torchs_with_the_papers_constants(name: str) -> None:
    ours, theirs = lenet(3), lenet(3)
    optimizer = student_optimizer(ours.parameters(), name, 0.05, 0.9, 5e-4)
    if name == "adam":
        reference: torch.optim.Optimizer = torch.optim.Adam(
            theirs.parameters(), 0.05, betas=(0.9, 0.999), eps=1e-8, weight_decay=5e-4
        )
    else:
        reference = torch.optim.SGD(theirs.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for network, steps in ((ours, optimizer), (theirs, reference)):
        for _ in range(3):
            steps.zero_grad()
            nn.functional.cross_entropy(network(images), torch.arange(4)).backward()
            steps.step()
    assert same_weights(ours, theirs)
