"""Image priors, the pixel space and random views, against NumPy in double precision."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, trial
from torch.nn import functional as F

from bench.spec.task import get_task
from methods.common.pixels import PixelSpace
from methods.common.priors import jitter, l2_norm, total_variation
from methods.common.views import _look, crop_and_flip, resized_crop_and_flip

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(0, 1, (3, 2, 6, 5))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def differences(x: np.ndarray) -> list[np.ndarray]:
    return [
        np.diff(x, axis=3),
        np.diff(x, axis=2),
        x[:, :, :-1, :-1] - x[:, :, 1:, 1:],
        x[:, :, 1:, :-1] - x[:, :, :-1, 1:],
    ]


@pytest.mark.parametrize("form", ["l2", "l1"])
def test_the_gradient_of_total_variation_is_that_of_its_value(form: Literal["l2", "l1"]) -> None:
    images = torch.tensor(IMAGES[:2, :, :5, :4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: total_variation(x, form), images)


@pytest.mark.parametrize("form", ["l2", "l1"])
def test_the_gradient_of_total_variation_is_zero_on_images_of_one_colour(form: Literal["l2", "l1"]) -> None:
    images = torch.full((2, 1, 4, 4), 0.5, requires_grad=True)
    total_variation(images, form).backward()
    assert torch.equal(images.grad, torch.zeros_like(images))


def test_total_variation_is_four_norms_over_the_whole_batch() -> None:
    expected = sum(np.sqrt((each**2).sum()) for each in differences(IMAGES))
    assert total_variation(torch.tensor(IMAGES)).item() == pytest.approx(expected, rel=1e-12)


def test_its_other_form_is_four_mean_absolute_differences() -> None:
    expected = sum(np.abs(each).mean() for each in differences(IMAGES))
    assert total_variation(torch.tensor(IMAGES), "l1").item() == pytest.approx(expected, rel=1e-12)


def test_flat_images_have_no_variation_and_a_finite_gradient() -> None:
    flat = torch.full((2, 1, 4, 4), 0.3, requires_grad=True)
    loss = total_variation(flat) + l2_norm(flat * 0)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(flat.grad).all()


def test_the_l2_norm_is_the_batchs_or_the_mean_of_the_images() -> None:
    assert l2_norm(torch.tensor(IMAGES)).item() == pytest.approx(np.sqrt((IMAGES**2).sum()), rel=1e-12)
    each = np.sqrt((IMAGES**2).sum((1, 2, 3))).mean()
    assert l2_norm(torch.tensor(IMAGES), per_image=True).item() == pytest.approx(each, rel=1e-12)


def test_jitter_shifts_the_whole_batch_in_a_circle() -> None:
    images, draws = torch.tensor(IMAGES), stream()
    seen = set()
    for _ in range(300):
        shifted = jitter(images, 1, draws, flip=True)
        found = [
            (down, right, mirror)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            for mirror in (False, True)
            if np.array_equal(shifted, _rolled(IMAGES, down, right, mirror))
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 18


def _rolled(images: np.ndarray, down: int, right: int, mirror: bool) -> np.ndarray:
    rolled = np.roll(images, (down, right), (2, 3))
    return rolled[..., ::-1] if mirror else rolled


# ---- pixels ----------------------------------------------------------------------------------------------------------


def test_pixels_go_to_the_networks_space_and_back() -> None:
    space = PixelSpace((0.2, 0.5), (0.1, 0.25))
    pixels = torch.rand(3, 2, 4, 4, generator=stream())
    expected = (pixels.double().numpy() - np.array([0.2, 0.5])[:, None, None]) / np.array([0.1, 0.25])[:, None, None]
    np.testing.assert_allclose(space.normalise(pixels), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(space.pixels(space.normalise(pixels)), pixels)


def test_eight_bits_are_cut_down_and_clipped_as_in_the_codes_files() -> None:
    space = PixelSpace((0.2,), (0.3,))
    pixels = torch.linspace(-0.2, 1.2, 1001, dtype=torch.float64).view(1, 1, 7, 143)
    stored = space.quantise(space.normalise(pixels.float()))
    levels = pixels.clamp(0, 1).numpy() * 255
    sure = levels % 1 < 0.998  # nearer to the next level only the arithmetic's precision decides
    assert stored.dtype == torch.uint8
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(stored.numpy()[sure], levels.astype(np.uint8)[sure])
    darker = pixels.clamp(0, 1) - space.pixels(space.restore(stored))
    assert darker.min() > -1e-5
    assert darker.max() < 1 / 255
    assert darker[(pixels > 0) & (pixels < 1)].mean().item() == pytest.approx(1 / 510, rel=0.05)


@pytest.mark.parametrize("data", ["mnist/lenet5-half", "cifar10/wrn16-1", "cifar100/wrn16-1", "svhn/wrn16-1"])
def test_what_was_stored_in_eight_bits_stays_the_same(data: str) -> None:
    image = get_task(data).image
    space = PixelSpace(image.mean, image.std)
    stored = torch.arange(256, dtype=torch.uint8).view(16, 1, 4, 4).expand(-1, image.channels, -1, -1)
    for _ in range(3):
        again = space.quantise(space.restore(stored))
        assert torch.equal(again, stored)


def test_clipping_keeps_what_is_a_real_pixel() -> None:
    space = PixelSpace((0.2, 0.6), (0.3, 0.2))
    pixels = torch.randn(4, 2, 5, 5, generator=stream())
    torch.testing.assert_close(space.pixels(space.clip(space.normalise(pixels))), pixels.clamp(0, 1))


def test_a_sessions_space_is_its_tasks() -> None:
    with trial(steps=1) as (s, _):
        space = PixelSpace.of(s)
    assert space.mean.flatten().tolist() == pytest.approx(IMAGE.mean)
    assert space.std.flatten().tolist() == pytest.approx(IMAGE.std)


# ---- views -----------------------------------------------------------------------------------------------------------


def test_a_crop_is_an_exact_window_of_the_padded_image() -> None:
    pixels = torch.rand(200, 2, 8, 8, generator=stream())
    views = crop_and_flip(pixels, stream(1), padding=2)
    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = []
    for index, view in enumerate(views.numpy()):
        windows = {
            (down, right, mirror): padded[index, :, down : down + 8, right : right + 8][..., :: -1 if mirror else 1]
            for down in range(5)
            for right in range(5)
            for mirror in (False, True)
        }
        found = [place for place, window in windows.items() if np.array_equal(window, view)]
        assert len(found) == 1
        seen.append(found[0])
    assert len({place[:2] for place in seen}) == 25  # every shift comes up, and each image has its own
    assert 60 < sum(mirror for _, _, mirror in seen) < 140


def test_a_view_is_bilinear_between_the_pixels() -> None:
    pixels = torch.rand(5, 2, 7, 7, generator=stream(), dtype=torch.float64)
    draws = stream(3)
    down, right = (torch.rand(5, 7, generator=draws, dtype=torch.float64) * 6 for _ in range(2))
    grid = torch.stack([right[:, None, :].expand(5, 7, 7), down[:, :, None].expand(5, 7, 7)], -1) / 6 * 2 - 1
    expected = F.grid_sample(pixels, grid, align_corners=True)
    torch.testing.assert_close(_look(pixels, down, right), expected)


def test_a_resized_crop_has_the_wanted_area_and_aspect() -> None:
    """Of an image that holds each pixel's own place, a view shows its window."""
    size = 32
    place = (torch.arange(size) + 0.5) / size
    pixels = torch.stack([place.expand(size, size), place[:, None].expand(size, size)])[None].repeat(4000, 1, 1, 1)
    views = resized_crop_and_flip(pixels, stream())
    inner = size / (size - 2)  # the outermost places may lie beyond the middle of the last pixel
    width = (views[:, 0, 16, -2] - views[:, 0, 16, 1]).abs() * size / (size - 3)
    height = (views[:, 1, -2, 16] - views[:, 1, 1, 16]) * size / (size - 3)
    area, aspect = width * height, width / height
    assert area.min() > 0.24
    assert area.max() < 1.0 * inner**2
    assert area.mean() == pytest.approx(_mean_area(), abs=0.01)
    assert aspect.min() > 0.74
    assert aspect.max() < 1.35
    assert aspect.log().mean().abs() < 0.01
    mirrored = (views[:, 0, 16, -1] < views[:, 0, 16, 0]).double().mean()
    assert 0.45 < mirrored < 0.55


def _mean_area() -> float:
    """By trial and error, image by image."""
    random = np.random.default_rng(1)
    areas = []
    for _ in range(4000):
        for _ in range(10):
            share, ratio = random.uniform(0.25, 1), np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            if share * ratio <= 1 and share / ratio <= 1:
                break
        else:
            share = 1.0
        areas.append(share)
    return float(np.mean(areas))


def test_a_whole_image_is_its_own_view() -> None:
    pixels = torch.rand(20, 1, 8, 8, generator=stream())
    views = resized_crop_and_flip(pixels, stream(2), area=(1.0, 1.0), aspect=(1.0, 1.0))
    for view, own in zip(views, pixels, strict=True):
        assert torch.allclose(view, own, atol=1e-5) or torch.allclose(view, own.flip(2), atol=1e-5)


def test_views_carry_the_gradient_of_every_pixel_they_show() -> None:
    pixels = torch.rand(3, 1, 8, 8, dtype=torch.float64, generator=stream()).requires_grad_()
    for view in (crop_and_flip, resized_crop_and_flip):
        assert torch.autograd.gradcheck(lambda x, view=view: view(x, stream(5)).square(), pixels)  # type: ignore[misc]
