"""Image metrics beside those of torch-fidelity and pytorch-fid, on the same features with one thread each.

``make bench`` prints them; docs/performance.md holds the ratios. Speed is measured here, never asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench.metrics.frechet import frechet_distance, moments, moments_of
from bench.metrics.kernel import kernel_distance, kernel_distance_of_subsets
from bench.metrics.neighbours import precision_recall
from bench.utils import torchvision_compat

torchvision_compat.torchvision()  # which the others import

from pytorch_fid import fid_score  # noqa: E402
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """torch has its own, numpy and scipy those of OpenBLAS."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> int:
    """What images and dimensions are divided by: 1, or 16 where benchmarks are off and only the code is tried."""
    measured = request.config.getoption("benchmark_enable") or not request.config.getoption("benchmark_disable")
    return 1 if measured else 16


def features(count: int, dimension: int, seed: int) -> Tensor:
    """float32, rectified and correlated, as a network's are."""
    mixing = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(0)) / dimension**0.5
    values = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))
    return torch.relu(values @ mixing + 0.1 * seed)


def root(matrix: np.ndarray, disp: bool) -> tuple[Any, None]:
    """scipy's, as pytorch-fid calls it; SciPy 1.18 knows no ``disp``."""
    return scipy.linalg.sqrtm(matrix), None


@pytest.mark.parametrize("of", ["suite", "torch-fidelity", "pytorch-fid"])
@pytest.mark.parametrize("counts", [(5000, 4500), (5000, 500)], ids=["full rank", "500 images"])
def test_frechet_distance(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, scale: int, counts: tuple[int, int], of: str
) -> None:
    """From means and covariances, the factors of the suite's own included."""
    benchmark.group = f"frechet 2048, {counts[0]} against {counts[1]} images"
    monkeypatch.setattr(fid_score, "linalg", SimpleNamespace(sqrtm=root))
    sets = [features(count // scale, 2048 // scale, seed) for seed, count in enumerate(counts)]
    one, two = (fid_features_to_statistics(each.double()) for each in sets)
    real = moments(sets[0])
    ways: dict[str, Callable[[], float]] = {
        "suite": lambda: frechet_distance(*(moments_of(*map(torch.from_numpy, s.values()), 1) for s in (one, two))),
        "torch-fidelity": lambda: fid_statistics_to_metric(one, two, False)["frechet_inception_distance"],
        "pytorch-fid": lambda: fid_score.calculate_frechet_distance(*one.values(), *two.values()),
    }
    if len(sets[1]) < sets[1].shape[1]:  # no covariance of theirs is needed
        ways["suite"] = lambda: frechet_distance(real, moments(sets[1]))
    value = benchmark.pedantic(ways[of], rounds=3, warmup_rounds=0 if of == "pytorch-fid" else 1)
    assert value == pytest.approx(frechet_distance(real, moments(sets[1])), rel=1e-6)


@pytest.mark.parametrize("of", ["suite", "torch-fidelity"])
def test_moments(benchmark: Any, scale: int, of: str) -> None:
    benchmark.group = "moments of 20,000 x 2048 features"
    values = features(20_000 // scale, 2048 // scale, 1)
    way: Callable[[], Any] = (lambda: moments(values)) if of == "suite" else lambda: fid_features_to_statistics(values)
    benchmark.pedantic(way, rounds=3)
    assert moments(values).mean.tolist() == pytest.approx(values.double().mean(0).tolist())


IN_BOTH = ["suite", "torch-fidelity in float64", "torch-fidelity"]  # float32 features, which it takes as they are


def as_given(values: Tensor, of: str) -> Tensor:
    return values.double() if of.endswith("float64") else values


@pytest.mark.parametrize("of", IN_BOTH)
def test_kernel_distance_of_subsets(benchmark: Any, scale: int, of: str) -> None:
    benchmark.group = "kid 2048, 10 subsets of 1,000"
    x, y = (as_given(features(2000 // scale, 2048 // scale, seed), of) for seed in (1, 2))
    protocol = {"kid_subsets": 10, "kid_subset_size": 1000 // scale, "verbose": False}
    value = benchmark.pedantic(
        (lambda: kernel_distance_of_subsets(x, y, 10, 1000 // scale)[0])
        if of == "suite"
        else lambda: kid_features_to_metric(x, y, **protocol)["kernel_inception_distance_mean"],
        rounds=3,
    )
    assert value == pytest.approx(kernel_distance(x, y), rel=0.2)


@pytest.mark.parametrize("of", IN_BOTH)
def test_kernel_distance_of_all_pairs(benchmark: Any, scale: int, of: str) -> None:
    benchmark.group = "kid 2048, all pairs of 4,000"
    x, y = (as_given(features(4000 // scale, 2048 // scale, seed), of) for seed in (1, 2))
    whole = {"kid_subsets": 1, "kid_subset_size": len(x), "verbose": False}
    value = benchmark.pedantic(
        (lambda: kernel_distance(x, y))
        if of == "suite"
        else lambda: kid_features_to_metric(x, y, **whole)["kernel_inception_distance_mean"],
        rounds=3,
    )
    assert value == pytest.approx(kernel_distance(x, y), rel=1e-4)


@pytest.mark.parametrize("of", IN_BOTH)
def test_precision_and_recall(benchmark: Any, scale: int, of: str) -> None:
    benchmark.group = "precision and recall 2048, 4,000 against 3,000"
    x = as_given(features(4000 // scale, 2048 // scale, 1), of)
    y = as_given(features(3000 // scale, 2048 // scale, 2) * 0.9, of)
    value = benchmark.pedantic(
        (lambda: precision_recall(x, y))
        if of == "suite"
        else lambda: tuple(prc_features_to_metric(x, y, verbose=False).values())[:2],
        rounds=3,
    )
    assert value == pytest.approx(precision_recall(x, y), rel=1e-3)
