"""ZSKD's 106 variants: their number, their geometry, their noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from methods.common.augment import ANGLES, FAMILIES, GEOMETRIC, NOISY, Variant, augment, vary

SIZE = 32


def one(pixels: Tensor, **change: float) -> Tensor:
    """The variant of a single image (S, S)."""
    rows = torch.tensor([Variant(**change)], dtype=pixels.dtype)  # type: ignore[arg-type]
    return vary(pixels[None, None], rows, torch.Generator().manual_seed(0))[0, 0]


def square(side: int) -> Tensor:
    """A white square in the middle of a black image."""
    image = torch.zeros(SIZE, SIZE)
    start = (SIZE - side) // 2
    image[start : start + side, start : start + side] = 1
    return image


def photo() -> Tensor:
    """Smooth, without symmetry, nowhere 0 or 1."""
    y, x = torch.meshgrid(torch.linspace(0, 1, SIZE), torch.linspace(0, 1, SIZE), indexing="ij")
    return 0.2 + 0.3 * x + 0.2 * y**2 + 0.1 * torch.sin(7 * x) * y


def test_there_are_106_different_variants_of_the_papers_kinds() -> None:
    everything = GEOMETRIC + NOISY
    assert len(everything) == len(set(everything)) == 106

    def count(zoom: bool = False, shift: bool = False, angle: bool = False) -> int:
        kinds = [(v.zoom != 1, bool(v.right or v.down), v.angle != 0) for v in GEOMETRIC if v.flip == 0]
        return kinds.count((zoom, shift, angle))

    assert (count(), count(zoom=True), count(shift=True), count(angle=True)) == (1, 3, 4, 10)
    assert count(zoom=True, shift=True) == 12
    assert count(shift=True, angle=True) == 40
    assert count(zoom=True, angle=True) == 30
    assert sorted(v.flip for v in GEOMETRIC if v.flip) == [1, 2, 3]
    assert len(NOISY) == 3
    assert ANGLES == (-90, -70, -50, -30, -10, 10, 30, 50, 70, 90)


def test_the_original_is_left_alone() -> None:
    torch.testing.assert_close(one(photo()), photo())


@pytest.mark.parametrize("zoom", [0.9, 0.75, 0.6])
def test_a_zoom_magnifies_a_centred_square(zoom: float) -> None:
    side = 12
    zoomed = one(square(side), zoom=zoom)
    assert zoomed.sum().sqrt().item() == pytest.approx(side / zoom, rel=0.02)
    torch.testing.assert_close(zoomed, zoomed.flip(0))
    torch.testing.assert_close(zoomed, zoomed.T)


def test_a_zoom_shows_the_centres_crop() -> None:
    left_to_right = ((torch.arange(SIZE) + 0.5) / SIZE).expand(SIZE, SIZE)
    expected = 0.5 + 0.6 * (left_to_right - 0.5)  # a ramp is cropped to its middle 60 %
    torch.testing.assert_close(one(left_to_right, zoom=0.6), expected)


@pytest.mark.parametrize("turns", [0, 1, 2, 3], ids=["right", "up", "left", "down"])
def test_a_translation_moves_by_whole_pixels_and_fills_with_one(turns: int) -> None:
    shift = [{"right": 0.2}, {"down": -0.2}, {"right": -0.2}, {"down": 0.2}][turns]
    moved = torch.rot90(one(photo(), **shift), -turns)  # turned so that each case reads as "to the right"
    torch.testing.assert_close(moved[:, 6:], torch.rot90(photo(), -turns)[:, :-6])
    assert (moved[:, :6] == 1).all()


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (-90, -1)])
def test_a_quarter_turn_is_exact(angle: int, turns: int) -> None:
    torch.testing.assert_close(one(photo(), angle=angle), torch.rot90(photo(), turns), rtol=0, atol=1e-4)


@pytest.mark.parametrize("angle", [-70, -50, -30, -10, 10, 30, 50, 70])
def test_a_rotation_keeps_the_centre_and_fills_the_corners_with_zero(angle: int) -> None:
    turned = one(photo(), angle=angle)
    assert turned[15:17, 15:17].mean() == pytest.approx(photo()[15:17, 15:17].mean().item(), abs=1e-3)
    assert [turned[row, column].item() for row in (0, -1) for column in (0, -1)] == [0.0] * 4


def test_opposite_rotations_undo_each_other_near_the_centre() -> None:
    back = one(one(photo(), angle=30), angle=-30)
    torch.testing.assert_close(back[10:22, 10:22], photo()[10:22, 10:22], rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("flip", "expected"), [(1, photo().flip(1)), (2, photo().flip(0)), (3, photo().T)], ids=["lr", "ud", "transpose"]
)
def test_flips(flip: int, expected: Tensor) -> None:
    torch.testing.assert_close(one(photo(), flip=flip), expected)


def test_a_translated_image_is_rotated_with_its_filling() -> None:
    """First the translation (ones from the left), then the quarter turn: the ones end up at the bottom."""
    both = one(photo(), right=0.2, angle=90)
    torch.testing.assert_close(both, torch.rot90(one(photo(), right=0.2), 1), rtol=0, atol=1e-4)
    assert (both[-6:] == 1).all()


def test_a_zoomed_image_is_translated_by_the_full_distance() -> None:
    both = one(photo(), zoom=0.6, down=0.2)
    torch.testing.assert_close(both[6:], one(photo(), zoom=0.6)[:-6])
    assert (both[:6] == 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_salt_and_pepper_paint_the_same_13_whole_pixels_of_every_image(channels: int) -> None:
    """3 white and 10 black of 1,024, in all channels alike, at other places in every call."""
    grey = torch.full((3, channels, SIZE, SIZE), 0.5)
    rows = torch.tensor([Variant(salt=1)] * 3, dtype=torch.float32)
    stream = torch.Generator().manual_seed(0)
    out, again = vary(grey, rows, stream), vary(grey, rows, stream)
    assert torch.equal(out, out[:1, :1].expand_as(out))
    assert [int((out[0, 0] == value).sum()) for value in (1.0, 0.0, 0.5)] == [3, 10, 1024 - 13]
    assert not torch.equal(out, again)


def test_gaussian_noise_is_one_uniform_field_for_channels_and_images() -> None:
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([Variant(gauss=1)] * 2, dtype=torch.float32)
    field = (vary(images, rows, torch.Generator().manual_seed(0)) - 0.75 * images) / 0.0625
    torch.testing.assert_close(field, field[:1, :1].expand_as(field), rtol=0, atol=1e-4)
    assert field.min() >= -1e-4
    assert field.max() <= 1
    assert field[0, 0].mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("noise", "count"), [(False, 103), (True, 106)])
def test_expanding_gives_every_variant_of_every_image(noise: bool, count: int) -> None:
    pixels = torch.stack([photo(), photo().T])[:, None]
    out = augment(pixels, torch.Generator().manual_seed(0), noise=noise, expand=True)
    assert out.shape == (2 * count, 1, SIZE, SIZE)
    torch.testing.assert_close(out[0], pixels[0])
    torch.testing.assert_close(out[count], pixels[1])
    torch.testing.assert_close(out[count + 1], one(photo().T, zoom=0.9)[None])


@pytest.mark.parametrize(
    ("family", "count"),
    [
        ("zoom", 3),
        ("shift", 4),
        ("rotation", 10),
        ("flip", 3),
        ("zoom+shift", 12),
        ("shift+rotation", 40),
        ("zoom+rotation", 30),
    ],
)
def test_a_family_comes_with_the_original_and_with_no_other(family: str, count: int) -> None:
    def expanded(families: tuple[str, ...]) -> Tensor:
        return augment(photo()[None, None], torch.Generator(), expand=True, families=families)[:, 0]

    alone, everything = expanded((family,)), expanded(FAMILIES)
    assert len(alone) == 1 + count
    torch.testing.assert_close(alone[0], photo())
    assert all((each == everything).all((1, 2)).any() for each in alone)
    others = expanded(tuple(each for each in FAMILIES if each != family))
    assert not any((each == others).all((1, 2)).any() for each in alone[1:])


def test_all_families_are_the_default() -> None:
    assert len(FAMILIES) == 7
    pixels = torch.rand(64, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    drawn = [augment(pixels, torch.Generator().manual_seed(1), **kind) for kind in ({}, {"families": FAMILIES})]  # type: ignore[arg-type]
    assert torch.equal(*drawn)


def test_one_variant_each_is_drawn_uniformly_from_the_stream() -> None:
    pixels = photo().expand(2000, 1, SIZE, SIZE)
    out = augment(pixels, torch.Generator().manual_seed(0))
    again = augment(pixels, torch.Generator().manual_seed(0))
    other = augment(pixels, torch.Generator().manual_seed(1))
    assert out.shape == pixels.shape
    assert torch.equal(out, again)
    assert not torch.equal(out, other)
    untouched = (out - photo()).abs().amax((1, 2, 3)) < 1e-4
    assert 5 <= untouched.sum() <= 40  # 2000 / 103 are expected


def test_variants_stay_in_the_range_of_pixels() -> None:
    pixels = torch.rand(64, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    out = augment(pixels, torch.Generator().manual_seed(0), noise=True, expand=True)
    assert out.min() >= 0
    assert out.max() <= 1
