"""LPIPS as diversity: the mean over all pairs in one pass is the mean over all pairs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.errors import Unavailable
from bench.metrics.perceptual import Perceptual, get_perceptual, mean_pairwise, paired

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def squeeze() -> Perceptual:
    return get_perceptual("squeeze-random", None, CPU)


def pictures(count: int, *, channels: int = 1, size: int = 32, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=stream)


def plain(weights: Sequence[float] = (1.0,), batch: int = 3) -> Perceptual:
    """Pixels as they are for features, in one layer."""
    return Perceptual("plain", "", "", batch, (torch.tensor(weights).double(),), lambda images: [images.float() / 255])


def all_pairs(perceptual: Perceptual, images: Tensor) -> Tensor:
    first, second = zip(*itertools.combinations(images, 2), strict=True)
    return paired(perceptual, torch.stack(first), torch.stack(second))


# ---- all pairs at once ---------------------------------------------------------------------------------------------


def test_the_mean_is_over_all_pairs_then_over_the_classes_that_have_any(squeeze: Perceptual) -> None:
    images, labels = pictures(9), torch.tensor([2, 0, 2, 0, 2, 7, 2, 0, 5])
    wanted = [all_pairs(squeeze, images[labels == k]) for k in (0, 2)]
    value, pairs = mean_pairwise(squeeze, images, labels)
    assert pairs == 3 + 6
    assert value == pytest.approx(sum(each.mean().item() for each in wanted) / 2, rel=1e-6)


def test_without_labels_it_is_over_all_pairs(squeeze: Perceptual) -> None:
    images = pictures(5, channels=3)
    value, pairs = mean_pairwise(squeeze, images, None)
    assert pairs == 10
    assert value == pytest.approx(all_pairs(squeeze, images).mean().item(), rel=1e-6)


@given(st.integers(2, 12), st.integers(0, 1000), st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_it_holds_for_weights_of_any_sign(count: int, seed: int, weights: list[float]) -> None:
    images = pictures(count, channels=3, size=4, seed=seed)
    perceptual = plain(weights)
    wanted = all_pairs(perceptual, images).mean().item()
    assert mean_pairwise(perceptual, images, None)[0] == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@given(st.permutations(range(8)), st.integers(1, 9))
@settings(max_examples=30)
def test_order_and_batches_do_not_matter(order: list[int], batch: int) -> None:
    images, labels = pictures(8, size=4), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    whole = mean_pairwise(plain(batch=8), images, labels)
    found = mean_pairwise(plain(batch=batch), images[order], labels[order])
    assert found == (pytest.approx(whole[0], rel=1e-12), whole[1])


def test_copies_have_no_distance(squeeze: Perceptual) -> None:
    value, _ = mean_pairwise(squeeze, pictures(1).expand(40, -1, -1, -1), None)
    assert abs(value) < 1e-10


def test_images_that_are_nearly_alike_do_not_drown_in_rounding() -> None:
    images = torch.full((50, 1, 4, 4), 200, dtype=torch.uint8)
    images[0, 0, 0, 0] += 1
    value, pairs = mean_pairwise(plain(), images, None)
    assert value == pytest.approx(49 * (1 / 255) ** 2 / 16 / pairs, rel=1e-4)  # features are float32


def test_the_more_unlike_the_larger(squeeze: Perceptual) -> None:
    base = pictures(1, seed=3).expand(6, -1, -1, -1).int()
    noisy = [(base + pictures(6, seed=4).int() // by).clamp(0, 255).to(torch.uint8) for by in (32, 8, 2)]
    values = [mean_pairwise(squeeze, images, None)[0] for images in noisy]
    assert 0 < values[0] < values[1] < values[2]


# ---- the networks --------------------------------------------------------------------------------------------------


def test_distances_of_pairs_are_symmetric_and_zero_for_one_image(squeeze: Perceptual) -> None:
    first, second = pictures(4), pictures(4, seed=1)
    there, back = paired(squeeze, first, second), paired(squeeze, second, first)
    assert torch.equal(there, back)
    assert bool((there > 0).all())
    assert torch.equal(paired(squeeze, first, first), torch.zeros(4, dtype=torch.float64))
    assert there.dtype == torch.float64


def test_grey_is_the_same_as_its_three_channels(squeeze: Perceptual) -> None:
    grey = pictures(4)
    assert mean_pairwise(squeeze, grey, None) == mean_pairwise(squeeze, grey.expand(-1, 3, -1, -1), None)


def test_features_have_unit_length(squeeze: Perceptual) -> None:
    with torch.no_grad():
        layers = squeeze.embed(pictures(2))
    assert [layer.shape[1] for layer in layers] == [len(weight) for weight in squeeze.weights]
    for layer in layers:
        lengths = layer.square().sum(1)
        assert bool(((lengths - 1).abs() < 1e-4).logical_or(lengths == 0).all())


def test_random_trunks_are_the_same_every_time_and_touch_no_random_state() -> None:
    before = torch.get_rng_state()
    first, second = (get_perceptual("squeeze-random", None, CPU) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.identity == second.identity
    images = pictures(3)
    assert mean_pairwise(first, images, None) == mean_pairwise(second, images, None)
    assert get_perceptual("alex-random", None, CPU).identity != first.identity


def test_activations_of_a_random_trunk_neither_vanish_nor_explode() -> None:
    for name in ("alex-random", "squeeze-random"):
        perceptual = get_perceptual(name, None, CPU)
        value, _ = mean_pairwise(perceptual, pictures(6, size=64, channels=3), None)
        assert 1e-3 < value < 10
        with torch.no_grad():
            for layer in perceptual.embed(pictures(2)):
                assert (layer.square().sum(1) > 0.5).float().mean() > 0.9  # else all channels are dead


def test_the_result_does_not_depend_on_the_callers_precision(squeeze: Perceptual) -> None:
    images = pictures(3)
    wanted = mean_pairwise(squeeze, images, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert mean_pairwise(squeeze, images, None) == wanted


def test_the_batch_of_the_network_changes_rounding_only(squeeze: Perceptual) -> None:
    images = pictures(5)
    wanted, _ = mean_pairwise(squeeze, images, None)
    for batch in (1, 2):
        assert mean_pairwise(dataclasses.replace(squeeze, batch=batch), images, None)[0] == pytest.approx(
            wanted, rel=1e-5
        )


# ---- what cannot be ------------------------------------------------------------------------------------------------


def test_missing_weights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DFKD_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Unavailable, match=r"alexnet-owt-7be5be79\.pth \(233\.1 MiB\) is missing.*fetch alex`"):
        get_perceptual("alex", None, CPU)


def test_an_unknown_network_is_told_with_the_nearest() -> None:
    with pytest.raises(Unavailable, match="'alexx'; did you mean 'alex'"):
        get_perceptual("alexx", None, CPU)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (pictures(3), torch.tensor([0, 1, 2]), "no two images have the same label"),
        (pictures(1), None, "no two images"),
        (pictures(3), torch.tensor([0, 1]), r"labels must have shape \(3,\)"),
        (pictures(3).float(), None, "must be uint8"),
        (pictures(3)[:0], None, "one at least"),
    ],
)
def test_what_is_no_set_of_pairs_is_refused(images: Tensor, labels: Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mean_pairwise(plain(), images, labels)


def test_pairs_must_have_one_shape() -> None:
    with pytest.raises(ValueError, match="pairs need images of one shape"):
        paired(plain(), pictures(3), pictures(2))
