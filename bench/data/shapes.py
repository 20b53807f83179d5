"""Shapes: a segmentation set that is generated, so that dense labels need no download.

Each image shows one to four discs, boxes, triangles and striped patches of random colour, size, proportion, rotation
and overlap on textured ground, with noise over all of it. Colours are drawn alike for every class, and a striped patch
has the outline of a disc, a box or a triangle: neither colour nor outline alone tells the classes apart.

All machines and NumPy releases give the same bytes: the only random numbers are the raw words of the Philox bit
generator (the part of NumPy's random numbers that is promised never to change), and all arithmetic is on integers, or
on floating-point numbers that hold them exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import decoded
from bench.data.source import Pair, Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Integers = NDArray[np.int32]

SIZE = 64  # pixels
COUNTS = (2000, 500)  # train and test images
SEED = 20191223
OBJECTS = 4  # at most, in one image
CHUNK = 125  # images made at a time: what is worked on stays in the processor's cache
DISC, BOX, TRIANGLE, STRIPES = 1, 2, 3, 4  # classes; 0 is ground
TURN = 64  # directions in a full turn
UNIT = 256  # sines and cosines are integers: 256 times the real ones


def make() -> tuple[Pair, Pair]:
    """The train and test pairs: images uint8 (N, 3, 64, 64), labels uint8 (N, 64, 64) in 0..4, none of them void.

    Drawn once and kept in the cache: drawing takes a second, and every trial is a process of its own.
    """
    code = Path(__file__)
    kept = decoded.cached("shapes", code.parent, [code], SIZE, _draw_all)
    return (kept["train_images"], kept["train_labels"]), (kept["test_images"], kept["test_labels"])


def _draw_all() -> dict[str, Tensor]:
    found = {}
    for index, (name, count) in enumerate(zip(("train", "test"), COUNTS, strict=True)):
        found[f"{name}_images"], found[f"{name}_labels"] = _split(index, count)
    return found


def _split(index: int, count: int) -> Pair:
    import numpy as np
    import torch

    words = np.random.Philox(key=SEED + index)
    images = np.empty((count, 3, SIZE, SIZE), np.uint8)
    labels = np.empty((count, SIZE, SIZE), np.uint8)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        images[part], labels[part] = _draw(words, part.stop - part.start)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _draw(words: np.random.Philox, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """``count`` images (count, 3, 64, 64) and their labels (count, 64, 64)."""
    import numpy as np

    colours, ground = _colours(words, count)
    # which of an image's nine colours a pixel has: the ground's, or one of the two of each object
    colour = np.zeros((count, SIZE, SIZE), np.int32)
    labels = np.zeros((count, SIZE, SIZE), np.uint8)
    shown = _integers(words, 1, OBJECTS + 1, count)
    for place in range(OBJECTS):
        for images, inside, stripe, kind in _objects(words, count):
            inside &= (shown[images] > place)[:, None, None]
            colour[images] = np.where(inside, 1 + 2 * place + stripe, colour[images])
            labels[images] = np.where(inside, kind[:, None, None], labels[images])

    coarse, fine = _texture(words, count, 8), _texture(words, count, 4)
    weak = np.where(labels > 0, fine, 0)  # objects are textured as well, but less
    noise = _bytes(words, count * 3 * SIZE * SIZE).reshape(count, 3, SIZE, SIZE)
    row = np.arange(count)[:, None, None] * colours.shape[1]
    result = np.empty((count, 3, SIZE, SIZE), np.uint8)
    for channel in range(3):
        strength = ground[:, channel, None, None]
        texture = np.where(labels > 0, weak * 24, coarse * strength + fine * 48) >> 7
        grain = noise[:, channel].astype(np.int32)
        grain = (grain >> 4) + (grain & 15) - 15  # the sum of two draws: small values are more frequent
        pixels = colours[..., channel].reshape(-1)[row + colour] + texture + grain
        result[:, channel] = pixels.clip(0, 255)
    return result, labels


def _colours(words: np.random.Philox, count: int) -> tuple[Integers, Integers]:
    """Colours (count, 9, 3) in 0..255, the ground's first, and how strongly the ground varies (count, 3).

    An object differs from the ground by 32 or more in every channel, and the two colours of stripes by 64: added
    modulo 256, a difference of d to 256 - d stays that large on either side.
    """
    import numpy as np

    base = _integers(words, 0, 256, count, 1, 3)
    first = base + _integers(words, 32, 225, count, OBJECTS, 3)
    second = first + _integers(words, 64, 193, count, OBJECTS, 3)
    objects = np.stack([first, second], 2).reshape(count, 2 * OBJECTS, 3)
    return np.concatenate([base, objects % 256], 1), _integers(words, -64, 65, count, 3)


def _objects(words: np.random.Philox, count: int) -> Iterator[tuple[Integers, NDArray[np.bool_], Integers, Integers]]:
    """One object for each of ``count`` images, outline by outline.

    Yields the images' numbers (n,), which pixels are inside (n, 64, 64), the stripe that a pixel is on (0 or 1, always
    0 but in striped patches), and the classes (n,).
    """
    import numpy as np

    kind = _integers(words, DISC, STRIPES + 1, count)
    other = _integers(words, DISC, TRIANGLE + 1, count)
    outline = np.where(kind == STRIPES, other, kind)
    centre = _integers(words, 12, 2 * SIZE - 12, count, 2)  # in half pixels, as all lengths here
    half = _integers(words, 16, 37, count)
    ratio = _integers(words, 10, 17, count)  # of the sides, in sixteenths
    direction = _integers(words, 0, TURN, count)
    width = _integers(words, 4, 9, count)  # of a stripe

    cosines, sines = _rotations()
    for which in (DISC, BOX, TRIANGLE):
        n = np.flatnonzero(outline == which).astype(np.int32)
        pixel = 2 * np.arange(SIZE, dtype=np.int32) + 1  # the middle of a pixel
        x = (pixel - centre[n, 0, None])[:, None, :]
        y = (pixel - centre[n, 1, None])[:, :, None]
        cos, sin = (table[direction[n]][:, None, None] for table in (cosines, sines))
        u, v = cos * x + sin * y, cos * y - sin * x
        long, short = half[n][:, None, None], (half[n] * ratio[n] >> 4)[:, None, None]
        if which == DISC:
            inside = x * x + y * y <= long * short
        elif which == BOX:
            inside = (abs(u) <= long * UNIT) & (abs(v) <= short * UNIT)
        else:
            inside = (v >= -long * UNIT) & (2 * long * abs(u) <= (short + 6) * (long * UNIT - v))
        stripe = (u // (width[n][:, None, None] * UNIT)) & 1
        yield n, inside, np.where((kind[n] == STRIPES)[:, None, None], stripe, 0), kind[n]


def _rotations() -> tuple[Integers, Integers]:
    """Cosines and sines of all directions, (64,) each, times 256.

    None of them is near a half, so that the last bit of the machine's cosine makes no difference.
    """
    import numpy as np

    angles = [2 * math.pi * step / TURN for step in range(TURN)]
    cosines = np.array([round(UNIT * math.cos(angle)) for angle in angles], np.int32)
    return cosines, np.roll(cosines, TURN // 4)


def _texture(words: np.random.Philox, count: int, spacing: int) -> Integers:
    """Smooth noise (count, 64, 64) in -128..127: random values ``spacing`` pixels apart, and bilinear between them."""
    import numpy as np

    knots = SIZE // spacing + 1
    weights = np.zeros((SIZE, knots), np.float32)
    for pixel in range(SIZE):
        cell, part = divmod(2 * pixel + 1, 2 * spacing)
        weights[pixel, cell : cell + 2] = 2 * spacing - part, part
    values = _integers(words, -128, 128, count, knots, knots).astype(np.float32)
    # sums of integers below 2 to the power of 24: exact in single precision, in whatever order they are added
    return (weights @ values @ weights.T).astype(np.int32) >> (2 * spacing.bit_length())


def _integers(words: np.random.Philox, low: int, high: int, *shape: int) -> Integers:
    """Evenly drawn integers in low..high - 1: the upper half of a 64-bit word, scaled (uneven by less than 1e-6)."""
    import numpy as np

    upper = words.random_raw(math.prod(shape)) >> np.uint64(32)
    return (low + ((upper * np.uint64(high - low)) >> np.uint64(32)).astype(np.int32)).reshape(shape)


def _bytes(words: np.random.Philox, count: int) -> NDArray[np.uint8]:
    import numpy as np

    return words.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]


SOURCES = (
    Source(
        name="shapes",
        title="Shapes: generated images with a class for every pixel",
        classes=("ground", "disc", "box", "triangle", "stripes"),
        files=(),
        licence="CC0 1.0 (generated by this suite)",
        citation="generated by this suite from a fixed seed (bench/data/shapes.py)",
        how_to_place="nothing to place: it is generated",
        kind="segmentation",
        make=make,
    ),
)
