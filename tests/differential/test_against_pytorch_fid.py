"""The Fréchet distance against pytorch-fid 0.3's own function, on the same features."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from feature_pairs import PAIRS, Pair, network_like
from torch import Tensor

from bench.metrics.frechet import frechet_distance, moments, moments_of
from bench.utils import torchvision_compat

torchvision_compat.torchvision()  # which pytorch-fid imports

from pytorch_fid import fid_score  # noqa: E402


def _root(matrix: np.ndarray, disp: bool = True) -> Any:
    """scipy's square root as pytorch-fid calls it: ``disp=False`` gave it with an error estimate, which it drops.

    The argument is deprecated, and gone from SciPy 1.18 on.
    """
    found = scipy.linalg.sqrtm(matrix)
    return found if disp else (found, None)


@pytest.fixture(autouse=True)
def _square_root_of_any_scipy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid_score, "linalg", SimpleNamespace(sqrtm=_root))
        yield


def statistics(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance as pytorch-fid's ``calculate_activation_statistics`` computes them, from float64."""
    values = features.double().numpy()
    return values.mean(axis=0), np.cov(values, rowvar=False)


def theirs(generated: Tensor, real: Tensor) -> float:
    return float(fid_score.calculate_frechet_distance(*statistics(generated), *statistics(real)))


def ours(generated: Tensor, real: Tensor) -> float:
    return frechet_distance(moments(generated), moments(real))


@pytest.mark.filterwarnings("ignore:Matrix is singular")  # scipy about covariances without full rank
@pytest.mark.parametrize("pair", PAIRS)
def test_the_distance_agrees(pair: Pair) -> None:
    generated, real = pair()
    assert ours(generated, real) == pytest.approx(theirs(generated, real), rel=1e-6)


def test_the_distance_of_given_statistics_agrees() -> None:
    """What pytorch-fid stores of a set can be compared with as it is."""
    (mean, covariance), real = statistics(network_like(300, 64, seed=1)), network_like(400, 64, seed=2)
    found = moments_of(torch.from_numpy(mean), torch.from_numpy(covariance), 300)
    expected = float(fid_score.calculate_frechet_distance(mean, covariance, *statistics(real)))
    assert frechet_distance(found, moments(real)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_the_distance_agrees_at_2048_dimensions_of_full_rank() -> None:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    sets = network_like(4500, 2048, seed=1, shift=0.3), network_like(5000, 2048, seed=2)
    (mean, covariance), (other_mean, other_covariance) = map(statistics, sets)
    found = ours(*sets)
    expected = fid_score.calculate_frechet_distance(mean, covariance, other_mean, other_covariance)
    assert found == pytest.approx(expected, rel=1e-6)
    one, two = {"mu": mean, "sigma": covariance}, {"mu": other_mean, "sigma": other_covariance}
    expected = fid_statistics_to_metric(one, two, False)["frechet_inception_distance"]
    assert found == pytest.approx(expected, rel=1e-6)
