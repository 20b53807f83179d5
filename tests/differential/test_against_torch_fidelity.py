"""Image metrics against torch-fidelity 0.4's own functions, on the same features; and where and why the two differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from feature_pairs import PAIRS, Pair, digits_pair, network_like, random_pair
from torch import Tensor

from bench.metrics.frechet import frechet_distance, moments
from bench.metrics.inception_score import inception_score, inception_score_of_splits
from bench.metrics.kernel import kernel_distance, kernel_distance_of_subsets
from bench.metrics.neighbours import precision_recall
from bench.utils import torchvision_compat

torchvision_compat.torchvision()  # which torch-fidelity imports

from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402

BOUND = 1e-4  # relative, for features in float32


def their_fid(generated: Tensor, real: Tensor) -> float:
    statistics = [fid_features_to_statistics(each) for each in (generated, real)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def their_kid(generated: Tensor, real: Tensor, subsets: int, size: int) -> tuple[float, float]:
    found = kid_features_to_metric(generated, real, kid_subsets=subsets, kid_subset_size=size, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def their_precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    found = prc_features_to_metric(generated, real, verbose=False)
    return found["precision"], found["recall"]


def their_inception_score(logits: Tensor, splits: int = 10, shuffle: bool = True) -> tuple[float, float]:
    found = isc_features_to_metric(logits, splits, shuffle)
    return found["inception_score_mean"], found["inception_score_std"]


def our_fid(generated: Tensor, real: Tensor) -> float:
    return frechet_distance(moments(generated), moments(real))


@pytest.mark.parametrize("pair", PAIRS)
def test_fid_agrees(pair: Pair) -> None:
    generated, real = pair()
    assert our_fid(generated, real) == pytest.approx(their_fid(generated.double(), real.double()), rel=1e-6)
    assert our_fid(generated, real) == pytest.approx(their_fid(generated, real), rel=BOUND)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("size", [50, 1000], ids=["small subsets", "all that there are"])
def test_kid_of_subsets_agrees(pair: Pair, size: int) -> None:
    generated, real = pair()
    fewest = min(size, len(generated), len(real))
    found = kernel_distance_of_subsets(generated, real, 4, size)
    assert found == pytest.approx(their_kid(generated.double(), real.double(), 4, fewest), rel=1e-9)
    assert found[0] == pytest.approx(their_kid(generated, real, 4, fewest)[0], rel=BOUND)


@pytest.mark.parametrize("pair", PAIRS)
def test_kid_of_all_pairs_is_theirs_of_one_subset_with_all_images(pair: Pair) -> None:
    generated, real = pair()
    fewest = min(len(generated), len(real))
    generated, real = generated[:fewest], real[:fewest]
    expected = their_kid(generated.double(), real.double(), 1, fewest)[0]
    assert kernel_distance(generated, real) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_precision_and_recall_agree(pair: Pair) -> None:
    generated, real = pair()
    assert precision_recall(generated, real) == pytest.approx(their_precision_recall(generated, real), rel=1e-6)
    assert precision_recall(real, generated) == pytest.approx(their_precision_recall(real, generated), rel=1e-6)


def test_precision_and_recall_are_neither_0_nor_1_in_these_tests() -> None:
    for pair in (random_pair, digits_pair):
        assert all(0.05 < value < 0.99 for value in precision_recall(*pair()))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("splits", [1, 3, 10])
def test_inception_score_of_splits_agrees(pair: Pair, splits: int) -> None:
    logits = 4 * pair()[0][:, :50]
    assert inception_score_of_splits(logits, splits) == pytest.approx(their_inception_score(logits, splits), rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_inception_score_of_all_images_is_theirs_of_one_split(pair: Pair) -> None:
    logits = 4 * pair()[0][:, :50]
    assert inception_score(logits) == pytest.approx(their_inception_score(logits, 1, shuffle=False)[0], rel=1e-9)


def test_difference_kid_of_all_pairs_uses_every_image() -> None:
    """Their default takes 100 random subsets: another estimate of the same number, within the subsets' own spread."""
    generated, real = random_pair()
    mean, spread = their_kid(generated.double(), real.double(), 100, 100)
    assert kernel_distance(generated, real) != pytest.approx(mean, rel=1e-4)
    assert kernel_distance(generated, real) == pytest.approx(mean, abs=spread)


def test_difference_kid_is_summed_in_float64() -> None:
    """They sum kernels in the features' own type. Where the distance is small beside the kernels, float32 shows."""
    pixels = digits_pair()[1]
    generated, real = pixels[:440], pixels[440:880]
    found = kernel_distance(generated, real)
    assert found == pytest.approx(their_kid(generated.double(), real.double(), 1, 440)[0], rel=1e-9)
    assert found != pytest.approx(their_kid(generated, real, 1, 440)[0], rel=1e-7)
    assert found == pytest.approx(their_kid(generated, real, 1, 440)[0], rel=1e-2)


def test_difference_means_of_features_are_in_float64() -> None:
    """Their means of float32 features are float32, and so is the distance between them."""
    generated, real = (network_like(300, 64, seed) + 1000 for seed in (1, 2))
    generated = generated * 1.02 - 20
    exact = their_fid(generated.double(), real.double())
    assert our_fid(generated, real) == pytest.approx(exact, rel=1e-9)
    assert their_fid(generated, real) != pytest.approx(exact, rel=1e-5)


def test_difference_identical_sets_are_at_no_distance() -> None:
    """Fewer images than dimensions: their square roots of rounding errors bring the distance below 0."""
    features = network_like(50, 64, seed=1).double()
    assert their_fid(features, features) < -1e-9
    assert 0 <= our_fid(features, features) < 1e-12


def test_difference_copies_and_what_is_next_to_them() -> None:
    """Copies have radius 0, so that nothing but a copy is inside. Their distances are float32 products, which gives a
    copy some distance of its own on most processors (up to 0.2 at this length of 450), and takes images near it for
    copies, or copies for others: by how much differs between processors, so that theirs is not held to it here.
    """
    stream = torch.Generator().manual_seed(0)
    image = 10 * torch.randn(1, 2048, generator=stream)
    real = image.repeat(40, 1)
    near = image + 1e-3 * torch.randn(60, 2048, generator=stream)  # about 0.045 away
    assert precision_recall(near, real)[0] == 0
    assert precision_recall(real[:20], real) == (1, 1)


def test_difference_inception_score_of_all_images_is_above_that_of_their_splits() -> None:
    """A split of few images cannot use all classes evenly: theirs grows with the number of images."""
    logits = 20 * network_like(200, 50, seed=1)
    whole, (mean, _) = inception_score(logits), their_inception_score(logits)
    assert whole > 1.05 * mean


def test_difference_classes_of_no_probability_count_nothing() -> None:
    """They take the logarithm of 0."""
    logits = torch.zeros(20, 10)
    logits[:10, 0] = logits[10:, 1] = 2000
    assert math.isnan(their_inception_score(logits)[0])
    assert inception_score(logits) == pytest.approx(2, rel=1e-12)
    assert inception_score_of_splits(logits, 1) == (pytest.approx(2, rel=1e-12), 0)


def test_difference_fewer_images_than_splits_are_refused() -> None:
    """They take the mean of no images."""
    logits = network_like(8, 5, seed=1)
    assert np.isnan(their_inception_score(logits)[0])
    with pytest.raises(ValueError, match="8 images cannot be split into 10 parts"):
        inception_score_of_splits(logits, 10)
