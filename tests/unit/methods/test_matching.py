"""The losses between teacher and student, and on the teacher's statistics, against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from bench import BatchNormStatistics, kl_divergence
from methods.common.losses import (
    adversarial_agreement,
    attention_distance,
    batch_norm_distance,
    clamped_js,
    competition,
    diversity_ratio,
    exponential,
    kl_rows,
)

RANDOM = np.random.default_rng(0)
TEACHER, STUDENT = RANDOM.normal(0, 2, (12, 5)), RANDOM.normal(0, 2, (12, 5))


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def layers(random: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
    return [tuple(random.normal(0, 1, width) for _ in range(4)) for width in (3, 7, 2)]


@pytest.mark.parametrize(("first", "squared"), [(1.0, False), (10.0, False), (1.0, True), (10.0, True)])
def test_batch_norm_distance_adds_unsquared_norms_of_mean_and_variance(first: float, squared: bool) -> None:
    entries = layers(np.random.default_rng(1))
    expected = 0.0
    for index, (mean, var, running_mean, running_var) in enumerate(entries):
        norms = [np.sqrt(((mean - running_mean) ** 2).sum()), np.sqrt(((var - running_var) ** 2).sum())]
        term = norms[0] ** 2 + norms[1] ** 2 if squared else norms[0] + norms[1]
        expected += term * (first if index == 0 else 1.0)
    statistics = [BatchNormStatistics(*map(tensor, entry)) for entry in entries]
    assert batch_norm_distance(statistics, first, squared).item() == pytest.approx(expected, rel=1e-12)


def test_batch_norm_distance_has_a_finite_gradient_where_it_is_zero() -> None:
    mean = torch.zeros(4, requires_grad=True)
    batch_norm_distance([BatchNormStatistics(mean, torch.ones(4), torch.zeros(4), torch.ones(4))]).backward()
    assert torch.equal(mean.grad, torch.zeros(4))


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_kl_rows_are_each_images_share_of_the_distillation_loss(tau: float) -> None:
    p, q = softmax(TEACHER / tau, 1), softmax(STUDENT / tau, 1)
    found = kl_rows(tensor(TEACHER), tensor(STUDENT), tau)
    np.testing.assert_allclose(found, tau**2 * rel_entr(p, q).sum(1), rtol=1e-10)
    assert found.mean().item() == pytest.approx(kl_divergence(tensor(TEACHER), tensor(STUDENT), tau).item())


def test_kl_rows_of_segmentation_are_means_over_an_images_pixels() -> None:
    teacher, student = RANDOM.normal(0, 2, (3, 4, 2, 5)), RANDOM.normal(0, 2, (3, 4, 2, 5))
    expected = rel_entr(softmax(teacher, 1), softmax(student, 1)).sum(1).mean((1, 2))
    np.testing.assert_allclose(kl_rows(tensor(teacher), tensor(student)), expected, rtol=1e-10)


def test_adversarial_agreement_counts_only_images_on_which_both_agree() -> None:
    agree = TEACHER.argmax(1) == STUDENT.argmax(1)
    assert 0 < agree.sum() < len(agree)
    each = rel_entr(softmax(TEACHER, 1), softmax(STUDENT, 1)).sum(1)
    expected = -(each * agree).sum() / len(agree)
    assert adversarial_agreement(tensor(TEACHER), tensor(STUDENT)).item() == pytest.approx(expected, rel=1e-12)


def test_adversarial_agreement_is_zero_in_disagreement_and_minus_the_kl_in_agreement() -> None:
    other = np.roll(TEACHER, 1, axis=1)
    assert adversarial_agreement(tensor(TEACHER), tensor(other)).item() == 0.0
    flatter = tensor(TEACHER / 3)
    expected = -kl_divergence(tensor(TEACHER), flatter).item()
    assert adversarial_agreement(tensor(TEACHER), flatter).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("elements", [False, True])
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_clamped_js_has_the_mixture_as_its_target(tau: float, elements: bool) -> None:
    p, q = softmax(STUDENT / tau, 1), softmax(TEACHER / tau, 1)
    mixture = np.clip((p + q) / 2, 0.01, 0.99)
    p, q = np.clip(p, 0.01, 0.99), np.clip(q, 0.01, 0.99)
    expected = 0.5 * (mixture * np.log(mixture / p)).sum() + 0.5 * (mixture * np.log(mixture / q)).sum()
    expected /= TEACHER.size if elements else len(TEACHER)
    found = clamped_js(tensor(TEACHER), tensor(STUDENT), tau, elements)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert competition(tensor(TEACHER), tensor(STUDENT), tau, elements).item() == pytest.approx(1 - expected, rel=1e-12)


def test_competition_is_one_where_the_networks_agree_and_never_below_zero() -> None:
    assert competition(tensor(TEACHER), tensor(TEACHER)).item() == pytest.approx(1.0, abs=1e-12)
    sure = 100.0 * np.eye(5)
    assert competition(tensor(sure), tensor(np.roll(sure, 1, 0)), 1.0).item() == 0.0


def test_the_clamp_flattens_many_classes() -> None:
    """Of 100 classes most probabilities lie at the clamp: averaged over elements, next to nothing is left."""
    random = np.random.default_rng(2)
    few, many = (
        clamped_js(*(tensor(random.normal(0, 5, (2000, classes))) for _ in range(2)), elements=True).item()
        for classes in (10, 100)
    )
    assert 0 < many < few / 10


def test_attention_compares_unit_maps_of_squared_activations() -> None:
    shapes = [(4, 3), (8, 2)]
    teacher = [RANDOM.normal(0, 1, (6, width, size, size)) for width, size in shapes]
    student = [RANDOM.normal(0, 1, (6, width + 1, size, size)) for width, size in shapes]
    expected = 0.0
    for t, s in zip(teacher, student, strict=True):
        maps = [(group**2).mean(1).reshape(6, -1) for group in (t, s)]
        unit = [each / np.sqrt((each**2).sum(1, keepdims=True)) for each in maps]
        expected += ((unit[1] - unit[0]) ** 2).mean()
    found = attention_distance([tensor(each) for each in teacher], [tensor(each) for each in student])
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_attention_refuses_maps_of_other_sizes() -> None:
    maps = [torch.ones(2, 3, 4, 4), torch.ones(2, 3, 2, 2)]
    with pytest.raises(
        ValueError, match=r"groups of equal sizes, not \[\(4, 4\), \(2, 2\)\] .teacher. and \[\(4, 4\)\]"
    ):
        attention_distance(maps, maps[:1])


def test_the_exponential_follows_the_increase_and_does_not_overflow() -> None:
    assert exponential(torch.tensor(1.5), 0.5).item() == pytest.approx(np.e, rel=1e-6)
    loss = torch.tensor(500.0, requires_grad=True)
    value = exponential(loss, torch.tensor(0.0))
    value.backward()
    assert value.item() == pytest.approx(np.exp(20.0), rel=1e-6)
    assert loss.grad.item() == 0.0


def test_diversity_is_one_ratio_for_the_whole_batch() -> None:
    images, logits = RANDOM.normal(0, 1, (6, 2, 3, 3)), RANDOM.normal(0, 2, (6, 4))
    p = softmax(logits, 1)
    expected = np.sqrt(((p[3:] - p[:3]) ** 2).sum()) / np.sqrt(((images[3:] - images[:3]) ** 2).sum())
    assert diversity_ratio(tensor(images), tensor(logits)).item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="even number of images, not 5"):
        diversity_ratio(tensor(images[:5]), tensor(logits[:5]))
