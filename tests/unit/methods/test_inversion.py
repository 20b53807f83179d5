"""What DeepDream, DeepInversion and ADI share: batches of images under optimisation, priors, the student's views."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, trial

from methods.common.inversion import Inversion, image_prior, rate, student_view
from methods.common.pixels import PixelSpace


def test_labels_take_turns_from_batch_to_batch() -> None:
    """256 of 10 classes: 25 times 0 to 9, then 0 to 5, as in the code; the next batch begins with 6."""
    with trial(steps=1) as (s, _):
        batch = Inversion(s, 256, 1, 0.1)
        batch.view(0, False)
        assert batch.labels.tolist() == [*range(10)] * 25 + [*range(6)]
        batch.take()
        batch.view(0, False)
        assert batch.labels.tolist()[:6] == [6, 7, 8, 9, 0, 1]


def test_random_labels_are_drawn_for_every_batch() -> None:
    with trial(steps=1) as (s, _):
        batch = Inversion(s, 200, 1, 0.1, labels="random")
        drawn = []
        for _ in range(2):
            batch.view(0, False)
            drawn.append(batch.labels.clone())
            batch.take()
    assert not torch.equal(*drawn)
    assert all(sorted(set(labels.tolist())) == list(range(10)) for labels in drawn)


def test_every_batch_starts_from_standard_normal_noise_with_a_fresh_optimiser() -> None:
    with trial(steps=1) as (s, _):
        batch = Inversion(s, 32, 2, 0.1)
        starts = []
        for _ in range(2):
            for iteration in range(2):
                x = batch.view(0, False)
                if iteration == 0:
                    starts.append(x.detach().clone())
                    assert not batch.optimizer.state
                batch.update(x.square().sum(), clip=False)
            assert batch.finished
            batch.take()
            assert not batch.started
    assert not torch.equal(*starts)
    for start in starts:
        assert start.mean().item() == pytest.approx(0, abs=0.02)
        assert start.std().item() == pytest.approx(1, abs=0.02)


def test_a_batch_is_taken_as_it_is_and_the_next_one_begins_again() -> None:
    with trial(steps=1) as (s, _):
        batch = Inversion(s, 4, 100, 0.1)
        assert not batch.started
        x = batch.view(0, False)
        batch.update(x.square().sum(), clip=False)
        assert batch.started
        assert not batch.finished
        assert torch.equal(batch.take(), batch.images)
        assert not batch.started


def test_the_shift_is_one_for_the_batch_and_changes_from_view_to_view() -> None:
    with trial(steps=1) as (s, _):
        batch = Inversion(s, 3, 100, 0.1)
        seen = set()
        for _ in range(200):
            x = batch.view(2, False)
            batch.update(0 * x.sum(), clip=False)
            for down in range(-2, 3):
                for right in range(-2, 3):
                    if torch.equal(x, torch.roll(batch.images, (down, right), (2, 3))):
                        seen.add((down, right))
    assert len(seen) == 25


@pytest.mark.parametrize("clip", [True, False])
def test_clipping_keeps_the_images_in_the_range_of_pixels(clip: bool) -> None:
    low, high = -0.3 / 0.25, 0.7 / 0.25
    with trial(steps=1) as (s, _):
        batch = Inversion(s, 8, 10, 0.5)
        x = batch.view(0, False)
        batch.update(-x.sum(), clip)
        found = batch.take()
    inside = bool(found.min() >= low - 1e-6 and found.max() <= high + 1e-6)
    assert inside == clip


def test_the_images_rate_rises_and_falls_within_each_batch() -> None:
    """ImageNet's: 100 updates of warm-up, then a cosine over the rest."""
    for iteration in (0, 49, 99):
        assert rate(0.25, "cosine", 100, iteration, 2000) == pytest.approx(0.25 * (iteration + 1) / 100)
    for iteration in (100, 700, 1999):
        expected = 0.25 * (1 + math.cos(math.pi * (iteration - 100) / 1900)) / 2
        assert rate(0.25, "cosine", 100, iteration, 2000) == pytest.approx(expected)
    assert {rate(0.05, "constant", 0, iteration, 10) for iteration in range(10)} == {0.05}
    assert rate(0.1, "cosine", 50, 9, 10) == pytest.approx(0.02)  # a batch shorter than its warm-up


def test_the_optimiser_gets_its_decays_and_the_rate_of_the_iteration() -> None:
    with trial(steps=1) as (s, _):
        batch = Inversion(s, 2, 4, 0.2, betas=(0.5, 0.9), schedule="cosine", warmup=2)
        rates = []
        for _ in range(4):
            batch.update(batch.view(0, False).square().sum(), clip=False)
            rates.append(batch.optimizer.param_groups[0]["lr"])
        assert batch.optimizer.param_groups[0]["betas"] == (0.5, 0.9)
    assert rates == pytest.approx([0.1, 0.2, 0.2, 0.1])


@pytest.mark.parametrize("tv_form", ["l2", "l1"])
@pytest.mark.parametrize("l2_form", ["batch", "image"])
def test_the_prior_is_a_weighted_sum(tv_form: str, l2_form: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 2, 5, 4))
    pairs = [
        (x[:, :, :, 1:], x[:, :, :, :-1]),
        (x[:, :, 1:], x[:, :, :-1]),
        (x[:, :, 1:, 1:], x[:, :, :-1, :-1]),
        (x[:, :, 1:, :-1], x[:, :, :-1, 1:]),
    ]
    variation = sum(np.sqrt(((a - b) ** 2).sum()) if tv_form == "l2" else np.abs(a - b).mean() for a, b in pairs)
    norms = [np.sqrt((each**2).sum()) for each in x]
    norm = np.sqrt((x**2).sum()) if l2_form == "batch" else sum(norms) / 3
    found = image_prior(torch.tensor(x), 0.3, tv_form, 0.07, l2_form)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(0.3 * variation + 0.07 * norm, rel=1e-12)


def test_the_students_views_are_crops_with_a_black_border_and_mirrored_if_so_wished() -> None:
    space = PixelSpace(IMAGE.mean, IMAGE.std)
    pixels = torch.full((64, 1, 32, 32), 0.2)
    pixels[:, :, :, 16:] = 0.9
    images = space.normalise(pixels)

    def view(kind: str) -> torch.Tensor:
        return space.pixels(student_view(images, kind, space, torch.Generator().manual_seed(0)))

    assert torch.equal(student_view(images, "none", space, torch.Generator()), images)
    cropped, mirrored = view("crop"), view("crop+flip")
    left_is_bright = [(each[:, 0, 4:28, 8] > 0.5).all(1) for each in (cropped, mirrored)]
    assert not left_is_bright[0].any()
    assert 16 < left_is_bright[1].sum() < 48
    for each in (cropped, mirrored):
        assert ((each[:, 0, 0].amax(1)).abs() < 1e-5).any()  # a window beyond the upper border is black there
