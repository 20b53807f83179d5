"""Pools of images and CMI's feature bank, and the contrast that it serves."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.harness import checkpoint
from methods.common.contrastive import InstanceHead, contrast
from methods.common.pixels import PixelSpace
from methods.common.pools import FeatureBank, ImagePool

SPACE = PixelSpace((0.5,), (0.25,))
CPU = torch.device("cpu")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(first: int, count: int) -> Tensor:
    """Images whose pixels all are their own number, of 255."""
    pixels = torch.arange(first, first + count).view(-1, 1, 1, 1).expand(-1, 1, 4, 4) / 255
    return SPACE.normalise(pixels)


def numbers(pool: ImagePool) -> list[int]:
    return (SPACE.pixels(pool.take(torch.arange(len(pool))))[:, 0, 0, 0] * 255).round().int().tolist()


def test_a_pool_grows_to_its_capacity_and_leaves_the_rest_out() -> None:
    pool = ImagePool(5)
    pool.add(numbered(0, 3))
    assert (len(pool), pool.full) == (3, False)
    pool.add(numbered(3, 3))
    pool.add(numbered(9, 3))
    assert numbers(pool) == [0, 1, 2, 3, 4]
    assert pool.full


def test_a_ring_overwrites_the_oldest() -> None:
    pool = ImagePool(5, ring=True)
    for first in (0, 3, 6, 9):
        pool.add(numbered(first, 3))
    assert numbers(pool) == [10, 11, 7, 8, 9]
    pool.add(numbered(20, 12))  # more than there is room for: the last ones
    assert sorted(numbers(pool)) == [27, 28, 29, 30, 31]


def test_images_can_be_replaced_one_by_one() -> None:
    pool = ImagePool(4)
    pool.add(numbered(0, 4))
    pool.replace(torch.tensor([3, 1]), numbered(100, 2))
    assert numbers(pool) == [0, 101, 2, 100]


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, torch.float32),
        ({"space": SPACE, "limit_mib": 1.0}, torch.float32),
        ({"space": SPACE, "limit_mib": 0.001}, torch.uint8),
        ({"space": SPACE, "eight_bit": True}, torch.uint8),
    ],
)
def test_images_are_stored_in_eight_bits_when_asked_for_or_too_large(options: dict[str, Any], dtype: Any) -> None:
    pool = ImagePool(100, **options)  # 6,400 bytes
    images = torch.randn(8, 1, 4, 4, generator=stream())
    pool.add(images)
    assert pool.state_dict()["parts"][0].dtype == dtype
    wanted = images if dtype == torch.float32 else SPACE.restore(SPACE.quantise(images))
    torch.testing.assert_close(pool.take(torch.arange(8)), wanted, rtol=0, atol=0)


def test_a_large_pool_that_is_not_clipped_keeps_what_leaves_the_range_of_pixels() -> None:
    """DeepInversion's 256,000 images: the reference code cuts none of them to real pixels."""
    pixels = torch.linspace(-1, 2, 6400).view(400, 1, 4, 4)
    found = []
    for capacity, dtype in ((400, torch.float32), (100_000, torch.float16)):
        pool = ImagePool(capacity, limit_mib=0.1, clipped=False)
        pool.add(SPACE.normalise(pixels))
        assert pool.state_dict()["parts"][0].dtype == dtype
        found.append(SPACE.pixels(pool.take(torch.arange(400))))
        assert found[-1].dtype == torch.float32
    torch.testing.assert_close(found[0], pixels)
    real = (pixels >= 0) & (pixels <= 1)
    assert (found[1] - pixels)[real].abs().max() < 1 / 2000
    assert (found[1] - pixels).abs().max() < 1 / 500


def test_a_pool_in_half_precision_goes_on_where_it_was() -> None:
    pool = ImagePool(100_000, limit_mib=0.1, clipped=False)
    pool.move_to(CPU)
    pool.add(numbered(0, 3))
    again = ImagePool(100_000, limit_mib=0.1, clipped=False)
    again.move_to(CPU)
    again.load_state_dict(copy.deepcopy(pool.state_dict()))
    again.add(numbered(3, 2))
    assert len(again) == 5
    torch.testing.assert_close(again.take(torch.arange(5)), numbered(0, 5), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("limit_mib", "moved"), [(1.0, []), (0.001, [torch.uint8, torch.float32])])
def test_stores_that_would_be_too_large_lie_on_the_host(
    limit_mib: float, moved: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what they would hold when full, whatever they hold now: 1,600 bytes of images, 3,200 of pairs."""
    found: list[torch.dtype] = []
    monkeypatch.setattr(Tensor, "cpu", lambda self: found.append(self.dtype) or self)
    pool, bank = ImagePool(100, SPACE, eight_bit=True, limit_mib=limit_mib), FeatureBank(100, limit_mib)
    pool.add(torch.randn(1, 1, 4, 4))
    bank.add(torch.randn(1, 4), torch.randn(1, 4))
    assert found == moved


@pytest.mark.gpu
def test_a_store_on_the_host_gives_images_on_the_device() -> None:
    device, space = torch.device("cuda"), PixelSpace((0.5,), (0.25,), torch.device("cuda"))
    for limit_mib, place in ((1.0, "cuda"), (0.001, "cpu")):
        pool, bank = ImagePool(100, space, eight_bit=True, limit_mib=limit_mib), FeatureBank(100, limit_mib)
        for store in (pool, bank):
            store.move_to(device)
        pool.add(numbered(0, 3).to(device))
        bank.add(torch.ones(3, 4, device=device), torch.ones(3, 4, device=device))
        assert {store.state_dict()["parts"][0].device.type for store in (pool, bank)} == {place}
        host = torch.Generator().manual_seed(0)
        assert pool.sample(5, host).device.type == "cuda"
        pairs = bank.sample(2, host)
        assert pairs is not None
        assert pairs[0].device.type == "cuda"


def test_eight_bits_need_to_know_the_normalisation() -> None:
    with pytest.raises(ValueError, match="need the task's normalisation"):
        ImagePool(10, eight_bit=True)
    with pytest.raises(ValueError, match="need the task's normalisation"):
        ImagePool(10, limit_mib=3.0)


def test_all_images_are_drawn_equally_often() -> None:
    pool = ImagePool(10, SPACE, eight_bit=True)
    pool.add(numbered(0, 10))
    drawn = (SPACE.pixels(pool.sample(20_000, stream()))[:, 0, 0, 0] * 255).round().int()
    counts = np.bincount(drawn.numpy(), minlength=10)
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # chi-squared with 9 degrees of freedom, 0.1 %


def test_an_empty_pool_says_so() -> None:
    with pytest.raises(ValueError, match="empty"):
        ImagePool(3).take(torch.tensor([0]))


@pytest.mark.parametrize("ring", [False, True])
def test_a_checkpoint_of_a_pool_is_no_copy_and_is_not_touched_later(ring: bool) -> None:
    pool = ImagePool(6, SPACE, ring=ring, eight_bit=True)
    pool.add(numbered(0, 4))
    pool.sample(1, stream())
    state = checkpoint.state_of(pool)
    assert state["parts"][0].data_ptr() == pool._rows.parts[0].data_ptr()
    before = copy.deepcopy(state)
    pool.add(numbered(4, 4))
    pool.replace(torch.tensor([0]), numbered(200, 1))
    assert torch.equal(state["parts"][0], before["parts"][0])
    for _ in range(2):  # the runner puts it back twice
        again = ImagePool(6, SPACE, ring=ring, eight_bit=True)
        checkpoint.restore_into(again, state)
        assert numbers(again) == [0, 1, 2, 3]
        again.add(numbered(4, 4))
        assert numbers(again) == ([6, 7, 2, 3, 4, 5] if ring else [0, 1, 2, 3, 4, 5])
        assert torch.equal(state["parts"][0], before["parts"][0])


def test_a_ring_goes_on_at_its_own_place() -> None:
    pool = ImagePool(4, ring=True)
    pool.add(numbered(0, 6))
    again = ImagePool(4, ring=True)
    checkpoint.restore_into(again, checkpoint.state_of(pool))
    pool.add(numbered(6, 1))
    again.add(numbered(6, 1))
    assert numbers(again) == numbers(pool) == [6, 3, 4, 5]
    again.add(numbered(7, 1))
    assert numbers(again) == [6, 7, 4, 5]


# ---- the bank and the contrast ---------------------------------------------------------------------------------------


def test_a_bank_holds_the_latest_pairs_and_gives_different_ones() -> None:
    bank = FeatureBank(10)
    assert bank.sample(4, stream()) is None
    for first in range(0, 24, 4):
        values = torch.arange(first, first + 4.0)[:, None].expand(-1, 3)
        bank.add(values, -values)
    assert len(bank) == 10
    pairs = bank.sample(100, stream())
    assert pairs is not None
    assert sorted(pairs[0][:, 0].tolist()) == list(range(14, 24))
    assert torch.equal(pairs[0], -pairs[1])
    few = bank.sample(4, stream())
    assert few is not None
    assert len(set(few[0][:, 0].tolist())) == 4


@pytest.mark.parametrize("stored", [8, 12, 16, 20])
def test_an_exactly_full_bank_is_full_and_gives_a_finite_loss(stored: int) -> None:
    """The reference code gives nothing of a bank that is exactly full, and the mean of nothing is NaN."""
    bank = FeatureBank(16)
    for _ in range(stored // 4):
        bank.add(torch.randn(4, 6), torch.randn(4, 6))
    cached = bank.sample(8, stream())
    assert cached is not None
    assert len(cached[0]) == min(stored, 8)
    assert torch.isfinite(contrast(InstanceHead(6), torch.randn(4, 6), torch.randn(4, 6), cached))


@pytest.mark.parametrize("tau", [0.1, 0.2])
def test_contrast_of_orthonormal_views(tau: float) -> None:
    count = 6
    same = torch.eye(count, dtype=torch.float64)
    row = -1 / tau + math.log(math.exp(1 / tau) + count - 1)
    assert contrast(nn.Identity(), same, same, temperature=tau).item() == pytest.approx(row, rel=1e-10)
    cached = (same[4:], same[4:])  # the same six vectors, two of them from the bank: a mean for each part
    assert contrast(nn.Identity(), same[:4], same[:4], cached, tau).item() == pytest.approx(2 * row, rel=1e-10)


def test_contrast_is_the_cross_entropy_of_numpys() -> None:
    random = np.random.default_rng(0)
    local, global_, old_local, old_global = (random.normal(0, 1, (n, 4)) for n in (5, 5, 3, 3))
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (local, global_, old_local, old_global)]
    scores = np.concatenate([unit[0], unit[2]]) @ np.concatenate([unit[1], unit[3]]).T / 0.3
    losses = np.log(np.exp(scores).sum(1)) - np.diag(scores)
    tensors = [torch.tensor(each) for each in unit]
    found = contrast(nn.Identity(), tensors[0], tensors[1], (tensors[2], tensors[3]), 0.3)
    assert found.item() == pytest.approx(losses[:5].mean() + losses[5:].mean(), rel=1e-10)


def test_only_the_local_side_learns() -> None:
    local, global_ = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    head = InstanceHead(6)
    contrast(head, local, global_).backward()
    assert local.grad is not None
    assert global_.grad is None
    assert all(bool(parameter.grad.any()) for parameter in head.parameters())
    torch.testing.assert_close(head(local).norm(dim=1), torch.ones(4))
    assert head(local).shape == (4, 256)
