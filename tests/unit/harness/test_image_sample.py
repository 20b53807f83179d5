"""The images that a student was trained on: an even sample in constant memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.data.batches import normalise
from bench.data.image_spec import ImageSpec
from bench.harness.image_sample import PER_STEP, Capture, EvenSample, to_pixels

IMAGE = ImageSpec(channels=1, size=4, mean=(0.25,), std=(0.5,))


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(40, 200))
def test_sample_is_even_and_bounded(steps: int, rows: int, capacity: int) -> None:
    sample = EvenSample(capacity)
    for step in range(steps):
        if sample.wants(step):
            sample.add(step, {"x": torch.full((rows,), step)})
    taken = [at for _, at, _ in sample.rows]
    assert sum(len(kept["x"]) for *_, kept in sample.rows) <= max(capacity, rows)
    assert taken == list(range(0, taken[-1] + 1, sample.stride))
    assert steps - 1 - taken[-1] < sample.stride  # it reaches to the end
    if steps * rows > capacity:
        assert len(taken) * rows * 2 + 2 * rows >= min(capacity, steps * rows) // 2  # and is not needlessly thin


def test_after_a_resumption_all_rows_lie_where_new_ones_do() -> None:
    sample = EvenSample(40)
    sample.add(0, {"x": torch.ones(3)})
    sample.add(1, {"x": torch.ones(3, device="meta")})  # stands for a GPU
    rows = sample.column("x")
    assert rows is not None
    assert (rows.device.type, len(rows)) == ("meta", 6)


@given(st.integers(2, 9), st.integers(0, 8), st.integers(200, 900))
def test_sample_is_even_over_the_steps_that_have_images(round_: int, place: int, steps: int) -> None:
    """A loop in which the student has one turn in each round, as long as it likes: a power of two, for example."""
    sample = EvenSample(8)
    turns = [step for step in range(steps) if step % round_ == place % round_]
    for step in turns:
        if sample.wants(step):
            sample.add(step, {"x": torch.zeros(1)})
    assert sample.steps().tolist() == turns[:: sample.stride]
    assert len(sample.rows) > 3


def test_sample_goes_on_from_its_state() -> None:
    whole, broken = EvenSample(64), EvenSample(64)
    for step in range(50):
        for sample in (whole, broken):
            if sample.wants(step):
                sample.add(step, {"x": torch.full((4,), step)})
        if step == 20:
            state = broken.state()
            broken = EvenSample(64)
            broken.restore(state)
    first, second = whole.column("x"), broken.column("x")
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)
    assert torch.equal(whole.steps(), broken.steps())


def test_pixels_undo_the_normalisation() -> None:
    pixels = torch.randint(256, (3, 1, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(to_pixels(normalise(pixels, IMAGE), IMAGE), pixels.float() / 255)


def test_captured_images_are_the_training_images() -> None:
    capture = Capture(IMAGE)
    pixels = torch.randint(256, (PER_STEP + 8, 1, 4, 4), dtype=torch.uint8)
    capture.take(0, normalise(pixels, IMAGE))
    stored = capture.training.column("images")
    assert stored is not None
    assert torch.equal(stored, pixels[:PER_STEP])
    assert capture.clipped == 0


@pytest.mark.parametrize("batch", [32, 64])
def test_the_sample_has_no_copies_where_images_are_held_out(batch: int) -> None:
    """Both samples are of the same steps, and what stands in for the held-out images comes twice there."""
    capture = Capture(IMAGE)
    for step in range(200):
        images = torch.rand(batch, 1, 4, 4)
        order = capture.withhold(step, images, torch.zeros(batch, 10))
        capture.take(step, images if order is None else images[order])
    stored = capture.training.column("images")
    assert stored is not None
    assert len(stored) == len(stored.flatten(1).unique(dim=0)) > 500
    assert set(capture.training.steps().tolist()) & set(capture.held_out.steps().tolist())


def test_values_outside_the_pixel_range_are_counted() -> None:
    capture = Capture(IMAGE)
    images = torch.zeros(4, 1, 4, 4)
    images[0] = 100.0
    capture.take(0, images)
    assert capture.clipped == 0.25


def test_small_batches_hold_nothing_out() -> None:
    capture = Capture(IMAGE)
    assert capture.withhold(0, torch.zeros(31, 1, 4, 4), torch.zeros(31, 10)) is None
    assert capture.withhold(0, torch.zeros(32, 1, 4, 4), torch.zeros(32, 10)) is not None


def test_standing_in_keeps_the_batch_size_and_drops_the_held_out() -> None:
    capture = Capture(IMAGE)
    order = capture.withhold(0, torch.zeros(40, 1, 4, 4), torch.eye(40, 10))
    assert order is not None
    assert len(order) == 40
    assert set(order.tolist()) == set(range(8, 40))
